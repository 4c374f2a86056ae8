package release

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Options of Compose.
type Options struct {
	Target string
	Tree   string
	Repos  []build.Revision
	Header []build.Pair // any order
	// Base lists keys that the target's base gives: needs on them are met
	// without an entry.
	Base []build.Key
	// Names says of keys that are no candidates what they are, for reasons.
	Names map[build.Key]build.CPV
	// Without lists keys of the previous release that are not carried over:
	// their blob is lost, or a person took them out. A candidate with such a
	// key is taken as if it were new.
	Without []build.Key
	// Out says of candidates, by the CID of their package, why they may not enter:
	// what needs them stays out with them. What prev has is not asked for.
	Out map[string]string
	// Consumers are the subscribed machines of the target with what they have
	// installed: nothing may enter that would leave one of them to compile.
	Consumers []Consumer
}

// Held is an entry that Compose left out, and why, in one line for people.
type Held struct {
	Entry  Entry
	Reason string
}

// Compose makes the release that follows prev (nil for the first): what prev
// had, and of the candidates all that can go in together. An identity's
// candidate replaces prev's entry unless its key is the same. Held back are
// candidates that may not enter (Options.Out); candidates, and left behind entries
// of prev, that need what the result does not have; and a library whose subslot differs from what a dependant in the
// result was built against. The order of candidates does not count. Neither
// argument is written to; the result shares their strings and metadata.
func Compose(prev *Manifest, candidates []Entry, opt Options) (Manifest, []Held, error) {
	c := newComposer(prev, candidates, opt)
	for c.closeNeeds() || c.meetSlots() || c.meetConsumers() {
	}
	m := Manifest{Target: opt.Target, Tree: opt.Tree, Repos: opt.Repos, Header: slices.Clone(opt.Header)}
	for _, g := range c.groups {
		if e := g.chosen(); e != nil {
			out := e.Entry
			out.Needs = c.resolved(&e.Entry)
			m.Entries = append(m.Entries, out)
		}
	}
	m.Sort()
	if err := m.Validate(); err != nil {
		return Manifest{}, nil, fmt.Errorf("compose release of %s: %w", clip(opt.Target), err)
	}
	slices.SortStableFunc(c.held, func(a, b Held) int {
		return cmp.Or(a.Entry.identity().compare(b.Entry.identity()), strings.Compare(string(a.Entry.Key), string(b.Entry.Key)))
	})
	return m, c.held, nil
}

// option is one entry that could stand for an identity.
type option struct {
	Entry
	prev  bool // it stood in the previous release
	slot  build.Slot
	bound []binding
	deps  []dep // run-time needs as atoms; only where there are consumers
}

// group is an identity with its options, the preferred first. Options are
// only ever crossed off, so Compose ends.
type group struct {
	id      identity
	options []*option
}

func (g *group) chosen() *option {
	if len(g.options) == 0 {
		return nil
	}
	return g.options[0]
}

type composer struct {
	groups []*group
	byKey  map[build.Key]*group
	slotOf map[build.Key]string
	nameOf map[build.Key]build.CPV
	base   map[build.Key]bool
	names  map[build.Key]build.CPV // Options.Names
	held   []Held

	consumers []*consumer
	byCP      map[string][]*group
}

func newComposer(prev *Manifest, candidates []Entry, opt Options) *composer {
	c := &composer{
		byKey: map[build.Key]*group{}, slotOf: map[build.Key]string{},
		nameOf: map[build.Key]build.CPV{}, names: opt.Names, base: map[build.Key]bool{}, byCP: map[string][]*group{},
	}
	for _, k := range opt.Consumers {
		c.consumers = append(c.consumers, newConsumer(k))
	}
	for _, k := range opt.Base {
		c.base[k] = true
	}
	without := map[build.Key]bool{}
	for _, k := range opt.Without {
		without[k] = true
	}
	groups := map[identity]*group{}
	seen := map[build.Key]*option{}
	add := func(e Entry, prev bool) {
		e.Needs = slices.Compact(slices.Sorted(slices.Values(e.Needs)))
		if err := e.Validate(); err != nil {
			c.held = append(c.held, Held{e, err.Error()})
			return
		}
		if was := seen[e.Key]; was != nil { // prev's, or the one of the lowest CID, stays
			if was.prev && e.Keywords != "" { // what the tree says of it may have changed
				was.Keywords = e.Keywords
			}
			return
		}
		id := e.identity()
		g := groups[id]
		if g == nil {
			g = &group{id: id}
			groups[id] = g
			c.groups = append(c.groups, g)
			c.byCP[e.CPV.CP()] = append(c.byCP[e.CPV.CP()], g)
		}
		c.byKey[e.Key], c.slotOf[e.Key], c.nameOf[e.Key] = g, e.Slot, e.CPV
		if reason, out := opt.Out[e.Artifact.CID]; out && !prev {
			c.held = append(c.held, Held{e, reason})
			return
		}
		slot, _ := build.ParseSlot(e.Slot) // valid, by e.Validate
		o := &option{Entry: e, prev: prev, slot: slot, bound: bindingsOf(e.Meta)}
		if len(c.consumers) > 0 && !prev {
			for _, name := range runtimeDeps {
				o.deps = append(o.deps, parseDeps(e.Meta(name))...)
			}
		}
		seen[e.Key] = o
		g.options = append(g.options, o)
	}
	if prev != nil {
		for _, e := range prev.Entries {
			if without[e.Key] {
				c.nameOf[e.Key] = e.CPV
				continue
			}
			add(e, true)
		}
	}
	sorted := slices.Clone(candidates)
	slices.SortFunc(sorted, func(a, b Entry) int {
		if c := cmp.Or(strings.Compare(string(a.Key), string(b.Key)), strings.Compare(a.Artifact.CID, b.Artifact.CID)); c != 0 {
			return c
		}
		return bytes.Compare(encoded(&a), encoded(&b))
	})
	for _, e := range sorted {
		add(e, false)
	}
	slices.SortFunc(c.groups, func(a, b *group) int { return a.id.compare(b.id) })
	for _, g := range c.groups {
		// Candidates before prev's; among candidates the one built last.
		slices.SortStableFunc(g.options, func(a, b *option) int {
			if a.prev != b.prev {
				if a.prev {
					return 1
				}
				return -1
			}
			return cmp.Or(compareInt(b.Meta("BUILD_TIME"), a.Meta("BUILD_TIME")), strings.Compare(string(b.Key), string(a.Key)))
		})
	}
	return c
}

// encoded orders candidates that claim one key and one CID and still differ.
func encoded(e *Entry) []byte {
	b, err := build.Marshal(e)
	if err != nil {
		return nil // not valid either, so it is held back
	}
	return b
}

// cross strikes out what g shows now.
func (c *composer) cross(g *group, reason string) {
	c.held = append(c.held, Held{g.options[0].Entry, reason})
	g.options = g.options[1:]
}

// met returns the key that meets a need in the present choice: the key
// itself, or the one that took its place (same CPV, USE and slot). It is ""
// for what the base gives.
func (c *composer) met(need build.Key) (build.Key, bool) {
	if c.base[need] {
		return "", true
	}
	g := c.byKey[need]
	if g == nil {
		return "", false
	}
	o := g.chosen()
	if o == nil || o.Key != need && o.Slot != c.slotOf[need] {
		return "", false
	}
	return o.Key, true
}

func (c *composer) resolved(e *Entry) []build.Key {
	out := make([]build.Key, 0, len(e.Needs))
	for _, k := range e.Needs {
		if got, ok := c.met(k); ok && got != "" && got != e.Key {
			out = append(out, got)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// closeNeeds strikes out what needs something that is not there, until
// nothing does. It reports whether it changed anything.
func (c *composer) closeNeeds() bool {
	changed := false
	for again := true; again; {
		again = false
		for _, g := range c.groups {
			o := g.chosen()
			if o == nil {
				continue
			}
			for _, k := range o.Needs {
				if _, ok := c.met(k); ok || k == o.Key {
					continue
				}
				c.cross(g, "needs "+c.name(k)+", which is not in the release")
				again, changed = true, true
				break
			}
		}
	}
	return changed
}

func (c *composer) name(k build.Key) string {
	if cpv, ok := c.nameOf[k]; ok {
		return cpv.String()
	}
	if cpv, ok := c.names[k]; ok {
		return cpv.String()
	}
	return "key " + k.Short()
}

// meetSlots looks for one entry whose bound slot operator does not match the
// highest version of that slot, and strikes out the newcomer of the two: the
// dependant if it is a candidate (it was built against something else), else
// the library. It reports whether it changed anything.
func (c *composer) meetSlots() bool {
	top := c.top()
	for _, g := range c.groups {
		o := g.chosen()
		if o == nil {
			continue
		}
		for _, b := range o.bound {
			t := top[place{b.cp, b.slot.Slot}]
			if t == nil || t.chosen().slot.Sub == b.slot.Sub {
				continue
			}
			lib := t.chosen()
			if o.prev && !lib.prev {
				c.cross(t, fmt.Sprintf("%s was built against %s:%s and has to be built again first", o.CPV, b.cp, b.slot))
			} else {
				c.cross(g, fmt.Sprintf("was built against %s:%s, but the release has %s:%s", b.cp, b.slot, lib.CPV, lib.slot))
			}
			return true
		}
	}
	return false
}

// top is the highest version of each slot in the present choice.
func (c *composer) top() map[place]*group {
	top := map[place]*group{}
	for _, g := range c.groups {
		o := g.chosen()
		if o == nil {
			continue
		}
		p := place{o.CPV.CP(), o.slot.Slot}
		if t := top[p]; t == nil || CompareVersions(o.CPV.Version, t.chosen().CPV.Version) > 0 {
			top[p] = g
		}
	}
	return top
}

// runtimeDeps are what a package needs where it is installed.
var runtimeDeps = []string{"RDEPEND", "IDEPEND", "PDEPEND"}

// binding is a slot operator dependency as it was bound at build time.
type binding struct {
	cp   string
	slot build.Slot
}

// bindingsOf reads the bound := atoms of a package's run-time dependencies. What
// stands in an any-of or a conditional group does not bind on its own.
func bindingsOf(meta func(string) string) []binding {
	var out []binding
	for _, name := range runtimeDeps {
		var optional []bool // one per open group
		loose := false      // the next group is an any-of or a conditional one
		for _, tok := range strings.Fields(meta(name)) {
			switch {
			case tok == "||" || tok == "^^" || tok == "??" || strings.HasSuffix(tok, "?"):
				loose = true
				continue
			case tok == "(":
				optional = append(optional, loose || len(optional) > 0 && optional[len(optional)-1])
			case tok == ")":
				if len(optional) > 0 {
					optional = optional[:len(optional)-1]
				}
			case len(optional) > 0 && optional[len(optional)-1], tok[0] == '!':
			default:
				if b, ok := parseBinding(tok); ok {
					out = append(out, b)
				}
			}
			loose = false
		}
	}
	return out
}

func parseBinding(tok string) (binding, bool) {
	a, err := build.ParseAtom(tok)
	if err != nil || a.Category == "" || !strings.HasSuffix(a.Slot, "=") || !strings.Contains(a.Slot, "/") {
		return binding{}, false
	}
	slot, err := build.ParseSlot(strings.TrimSuffix(a.Slot, "="))
	if err != nil {
		return binding{}, false
	}
	return binding{a.Category + "/" + a.Name, slot}, true
}

// ChangeKind says how a consumer sees a difference.
type ChangeKind string

const (
	Added    ChangeKind = "new"
	Replaced ChangeKind = "changed" // same CPV and USE, another build or other KEYWORDS
	Gone     ChangeKind = "gone"
)

// Change is one difference between two releases.
type Change struct {
	Kind ChangeKind
	Old  *Entry // nil if Added
	New  *Entry // nil if Gone
}

// Diff lists what changed from a to b (either may be nil), by CPV and USE. The
// result points into both.
func Diff(a, b *Manifest) []Change {
	index := func(m *Manifest) map[identity]*Entry {
		out := map[identity]*Entry{}
		if m != nil {
			for i := range m.Entries {
				out[m.Entries[i].identity()] = &m.Entries[i]
			}
		}
		return out
	}
	old, now := index(a), index(b)
	var out []Change
	for id, n := range now {
		switch o := old[id]; {
		case o == nil:
			out = append(out, Change{Kind: Added, New: n})
		case o.Key != n.Key || o.Artifact.CID != n.Artifact.CID || o.Keywords != n.Keywords:
			out = append(out, Change{Kind: Replaced, Old: o, New: n})
		}
	}
	for id, o := range old {
		if now[id] == nil {
			out = append(out, Change{Kind: Gone, Old: o})
		}
	}
	either := func(c Change) *Entry {
		if c.New != nil {
			return c.New
		}
		return c.Old
	}
	slices.SortFunc(out, func(x, y Change) int { return either(x).identity().compare(either(y).identity()) })
	return out
}
