package release

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Consumer is a machine that installs a target's releases, with what it has.
type Consumer struct {
	Name string // for people
	Set  *Installed
}

// consumer is a Consumer with what Compose looks up in it.
type consumer struct {
	name  string
	byCP  map[string][]*installed
	given map[string][]build.CPV // of package.provided, by category/name
	bound map[place][]*installed // by the library they were built against
}

type installed struct {
	cpv   build.CPV
	slot  build.Slot
	use   string // enabled flags of its IUSE
	binds []binding
}

// place is a package's slot, whatever its version.
type place struct{ cp, slot string }

func newConsumer(c Consumer) *consumer {
	out := &consumer{name: c.Name, byCP: map[string][]*installed{}, given: map[string][]build.CPV{}, bound: map[place][]*installed{}}
	for _, p := range c.Set.Provided {
		out.given[p.CP()] = append(out.given[p.CP()], p)
	}
	for i := range c.Set.Packages {
		p := &c.Set.Packages[i]
		slot, err := build.ParseSlot(p.Slot)
		if err != nil {
			continue // Validate refuses such a set
		}
		in := &installed{cpv: p.CPV, slot: slot, use: ownUSE(p.Value("USE"), p.Value("IUSE")), binds: bindingsOf(p.Value)}
		out.byCP[p.CPV.CP()] = append(out.byCP[p.CPV.CP()], in)
		for _, b := range in.binds {
			at := place{b.cp, b.slot.Slot}
			out.bound[at] = append(out.bound[at], in)
		}
	}
	return out
}

// ownUSE is the enabled flags that stand in IUSE, sorted: what makes one
// instance of a version another than the next.
func ownUSE(use, iuse string) string {
	on := map[string]bool{}
	for _, u := range strings.Fields(use) {
		on[u] = true
	}
	var out []string
	for _, u := range strings.Fields(iuse) {
		if u = strings.TrimLeft(u, "+-"); on[u] {
			out = append(out, u)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// at returns what is installed in a slot, or nil.
func (c *consumer) at(p place) *installed {
	for _, in := range c.byCP[p.cp] {
		if in.slot.Slot == p.slot {
			return in
		}
	}
	return nil
}

func (c *consumer) has(a *build.Atom) bool {
	for _, in := range c.byCP[a.Category+"/"+a.Name] {
		if Matches(a, in.cpv, in.slot) {
			return true
		}
	}
	anySlot := *a
	anySlot.Slot = "" // what is provided has none, and Portage asks for none
	for _, p := range c.given[a.Category+"/"+a.Name] {
		if Matches(&anySlot, p, build.Slot{}) {
			return true
		}
	}
	return false
}

// meetConsumers strikes out one newcomer that would leave a consumer to
// compile: a library in another subslot while a package that is installed there
// was built against the one before and has no rebuild here, or a package that
// needs what neither the release nor the consumer has. It reports whether it
// changed anything.
func (c *composer) meetConsumers() bool {
	if len(c.consumers) == 0 {
		return false
	}
	top := c.top()
	for _, g := range c.groups {
		o := g.chosen()
		if o == nil || o.prev {
			continue
		}
		at := place{o.CPV.CP(), o.slot.Slot}
		if reason := c.strands(o, at, top[at] == g); reason != "" {
			c.cross(g, reason)
			return true
		}
		if reason := c.lacks(o, at); reason != "" {
			c.cross(g, reason)
			return true
		}
	}
	return false
}

// strands says which installed package a library would leave behind.
func (c *composer) strands(lib *option, at place, newest bool) string {
	if !newest {
		return ""
	}
	for _, k := range c.consumers {
		in := k.at(at)
		if in == nil || in.slot.Sub == lib.slot.Sub || CompareVersions(lib.CPV.Version, in.cpv.Version) < 0 {
			continue
		}
		for _, p := range k.bound[at] {
			if !c.rebuilt(p, at, lib.slot.Sub) {
				return fmt.Sprintf("%s, installed on %s, was built against %s:%s and its rebuild is not in the release", p.cpv, k.name, at.cp, in.slot)
			}
		}
	}
	return ""
}

// rebuilt reports whether the release has what takes an installed package's
// place beside a library of that subslot.
func (c *composer) rebuilt(p *installed, lib place, sub string) bool {
	for _, b := range p.binds {
		if b.cp == lib.cp && b.slot.Slot == lib.slot && b.slot.Sub == sub {
			return true // it was built against this one already
		}
	}
	for _, g := range c.byCP[p.cpv.CP()] {
		o := g.chosen()
		if o == nil || o.slot.Slot != p.slot.Slot || CompareVersions(o.CPV.Version, p.cpv.Version) < 0 {
			continue
		}
		if o.CPV.Version == p.cpv.Version && ownUSE(o.Meta("USE"), o.Meta("IUSE")) != p.use {
			continue
		}
		if !slices.ContainsFunc(o.bound, func(b binding) bool {
			return b.cp == lib.cp && b.slot.Slot == lib.slot && b.slot.Sub != sub
		}) {
			return true
		}
	}
	return false
}

// lacks says what a package needs and a consumer that will get it has not. One
// that no consumer has installed is asked for by somebody: one that can take it
// is enough.
func (c *composer) lacks(o *option, at place) string {
	can, reason := false, ""
	for _, k := range c.consumers {
		missing := unmet(o.deps, func(a *build.Atom) bool { return c.gives(a) || k.has(a) })
		if missing == "" {
			can = true
			continue
		}
		why := fmt.Sprintf("needs %s, which neither the release nor %s has", missing, k.name)
		if k.at(at) != nil {
			return why
		}
		if reason == "" {
			reason = why
		}
	}
	if can {
		return ""
	}
	return reason
}

// gives reports whether the release, as it stands, satisfies an atom.
func (c *composer) gives(a *build.Atom) bool {
	for _, g := range c.byCP[a.Category+"/"+a.Name] {
		if o := g.chosen(); o != nil && Matches(a, o.CPV, o.slot) {
			return true
		}
	}
	return false
}
