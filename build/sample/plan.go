package sample

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Options choose what a plan holds.
type Options struct {
	// Target the plan is for; "" is "demo".
	Target string
	// Only names the packages wanted, as "category/name", "name" or an atom; what
	// they need comes along. Empty wants all.
	Only []string
	// Broken adds the packages that fail on purpose.
	Broken bool
}

// Plan is the plan of the samples for a machine with toolchain t. Without a
// compiler it holds the shell packages; the notes say what was left out and
// why, and name what of Only does not exist. The same arguments give the same
// plan.
func Plan(t Toolchain, o Options) (build.Plan, []build.Note, error) {
	if o.Target == "" {
		o.Target = "demo"
	}
	p := planner{t: t, all: catalog(), jobs: map[string][]int{}}
	p.byCP = byCP(p.all)
	out := &p.plan
	out.Target, out.Command = o.Target, "built-in samples"
	out.Header = []build.Pair{{Name: "CHOST", Value: t.CHOST}}
	want, err := p.wanted(o)
	if err != nil {
		return build.Plan{}, nil, fmt.Errorf("plan samples: %w", err)
	}
	needed := p.closure(want)
	var notes []build.Note
	for i := range p.all {
		s := &p.all[i]
		if !needed[s.cp()] {
			continue
		}
		if why := p.leftOut(s); why != "" {
			notes = append(notes, build.Note{Atom: "=" + s.cpv().String(), Reason: why})
			continue
		}
		for _, use := range s.uses() {
			j, err := p.job(s, use)
			if err != nil {
				return build.Plan{}, nil, fmt.Errorf("plan samples: %w", err)
			}
			p.jobs[s.cp()] = append(p.jobs[s.cp()], len(out.Jobs))
			out.Jobs = append(out.Jobs, j)
			if want[s.cp()] {
				out.Want = append(out.Want, j.Key)
			}
		}
	}
	slices.Sort(out.Want)
	out.Dropped = slices.Clone(notes)
	notes = append(notes, out.Missing...)
	if err := out.Validate(); err != nil {
		return build.Plan{}, nil, fmt.Errorf("plan samples: %w", err)
	}
	return *out, notes, nil
}

type planner struct {
	t    Toolchain
	all  []pkg
	byCP map[string]*pkg
	plan build.Plan
	jobs map[string][]int // by category/name, one for each USE variant
}

// wanted resolves Only to category/name.
func (p *planner) wanted(o Options) (map[string]bool, error) {
	want := map[string]bool{}
	for i := range p.all {
		if s := &p.all[i]; len(o.Only) == 0 && !s.hidden || o.Broken && s.hidden {
			want[s.cp()] = true
		}
	}
	for _, text := range o.Only {
		a, err := build.ParseAtom(text)
		if err != nil {
			return nil, err
		}
		found := false
		for i := range p.all {
			s := &p.all[i]
			if s.name == a.Name && (a.Category == "" || a.Category == s.cat) && (a.Version == "" || a.Version == s.version) {
				want[s.cp()], found = true, true
			}
		}
		if !found {
			p.plan.Missing = append(p.plan.Missing, build.Note{Atom: text, Reason: "there is no such sample package"})
		}
	}
	return want, nil
}

// closure adds everything that want depends on.
func (p *planner) closure(want map[string]bool) map[string]bool {
	out := map[string]bool{}
	// The catalog stands in dependency order, so one pass backwards is enough.
	for i := len(p.all) - 1; i >= 0; i-- {
		s := &p.all[i]
		if want[s.cp()] {
			out[s.cp()] = true
		}
		if out[s.cp()] {
			for _, d := range s.deps {
				out[d.cp] = true
			}
		}
	}
	return out
}

// leftOut says why s cannot be planned on this machine, or "".
func (p *planner) leftOut(s *pkg) string {
	if p.t.CC != "" {
		return ""
	}
	if s.compiled {
		return p.t.Why
	}
	for _, d := range s.deps {
		if p.leftOut(p.byCP[d.cp]) != "" {
			return "needs " + d.cp + ", which is left out"
		}
	}
	return ""
}

// job makes the plan's entry for s with the flags of use.
func (p *planner) job(s *pkg, use []string) (build.Job, error) {
	preimage, err := p.preimage(s, use)
	if err != nil {
		return build.Job{}, err
	}
	k, err := build.KeyOf(preimage)
	if err != nil {
		return build.Job{}, err
	}
	j := build.Job{
		Key: k, Builder: build.BuilderSample, CPV: s.cpv(), Slot: s.slot, Repo: Repo,
		USE: slices.Sorted(slices.Values(use)), IUSE: slices.Sorted(slices.Values(s.iuse)),
		Preimage: preimage, Needs: []build.Edge{},
		CoreMillis: s.estimate, MemoryMiB: s.memory, DiskMiB: 32,
	}
	var root []build.RootEntry
	for _, d := range s.deps {
		on := p.dependency(d)
		var kind build.EdgeKind
		switch {
		case d.build:
			kind = build.Buildtime
		case d.link:
			kind = build.Buildtime | build.Runtime | build.SlotOp
			j.Bound = append(j.Bound, d.bound(p.byCP[d.cp]))
		default:
			kind = build.Runtime
		}
		j.Needs = append(j.Needs, build.Edge{Key: on.Key, Kind: kind})
		if kind&build.Buildtime != 0 {
			root = p.addToRoot(root, on)
		}
	}
	slices.SortFunc(j.Needs, func(a, b build.Edge) int { return strings.Compare(string(a.Key), string(b.Key)) })
	slices.Sort(j.Bound)
	j.Root = build.NewRoot(root...)
	return j, nil
}

// dependency is the job that satisfies d: planned before, since the catalog
// stands in dependency order.
func (p *planner) dependency(d dep) *build.Job {
	candidates := p.jobs[d.cp]
	for _, i := range candidates {
		if j := &p.plan.Jobs[i]; d.use == "" || slices.Contains(j.USE, d.use) {
			return j
		}
	}
	return &p.plan.Jobs[candidates[0]]
}

// addToRoot adds on and what it needs to run, those first.
func (p *planner) addToRoot(root []build.RootEntry, on *build.Job) []build.RootEntry {
	if slices.ContainsFunc(root, func(r build.RootEntry) bool { return r.Key == on.Key }) {
		return root
	}
	for _, e := range on.Needs {
		if e.Kind&build.Runtime != 0 {
			i := slices.IndexFunc(p.plan.Jobs, func(x build.Job) bool { return x.Key == e.Key })
			root = p.addToRoot(root, &p.plan.Jobs[i])
		}
	}
	return append(root, build.RootEntry{CPV: on.CPV, Slot: on.Slot, Key: on.Key})
}

// recipeVersion changes when the builder itself makes other packages of the
// same sources.
const recipeVersion = "1"

// preimage lists what decides the content of s.
func (p *planner) preimage(s *pkg, use []string) ([]build.Facet, error) {
	return preimageOf(p.t, s, p.byCP, use)
}

func preimageOf(t Toolchain, s *pkg, all map[string]*pkg, use []string) ([]build.Facet, error) {
	src, err := sourceDigest(s.name)
	if err != nil {
		return nil, err
	}
	out := []build.Facet{
		{Name: "builder", Value: "sample " + recipeVersion},
		{Name: "CPV", Value: s.cpv().String()},
		{Name: "SLOT", Value: s.slot},
		{Name: "EAPI", Value: eapi},
		{Name: "repository", Value: Repo},
		{Name: "source", Value: src},
		{Name: "USE", Value: strings.Join(slices.Sorted(slices.Values(use)), " ")},
		{Name: "IUSE", Value: strings.Join(slices.Sorted(slices.Values(s.iuse)), " ")},
		{Name: "CHOST", Value: t.CHOST},
	}
	deps := s.depAtoms(all)
	for _, k := range []string{"BDEPEND", "DEPEND", "RDEPEND"} {
		if deps[k] != "" {
			out = append(out, build.Facet{Name: k, Value: deps[k]})
		}
	}
	if s.compiled {
		out = append(out, build.Facet{Name: "compiler", Value: t.Class}, build.Facet{Name: "CFLAGS", Value: cflags},
			build.Facet{Name: "LDFLAGS", Value: ldflags})
	}
	slices.SortFunc(out, func(a, b build.Facet) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
