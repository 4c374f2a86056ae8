package emerge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// The order of builds, and what breaks its cycles.
//
// Two things are told apart for every package i: that it is being built, and
// that it can be used. Building i waits until each of its build-time needs can
// be used; i can be used once it is built (unless the base has it) and what it
// needs to run can be used. A strongly connected component of that graph with a
// build in it is a cycle, and is broken by the first of these that helps:
//
//  1. A component with one build only: a tool of i needs i itself to run. i is
//     built without itself in its root, or with a seed of itself.
//  2. PDEPEND is needed "some time after": inside the component it is not
//     waited for.
//  3. A seed: a package that the requester has installed, in the slot and
//     subslot that is planned, takes the place of one that is still to be built.
//  4. A bootstrap build: the package with the flags that Portage suggests.
//  5. What a tool needs to run is not waited for inside the component: so
//     Portage itself orders it in an empty root.
//
// Whoever is outside of the component gets the packages as they are planned.

// relief is how the cycle that a job is part of was broken: rules for its root.
// A component may be broken more than once, so that reliefs stand in a chain.
type relief struct {
	outer   *relief
	in      map[int]bool // packages of the component
	seeded  map[int]bool // of these, those that are taken from a seed or a bootstrap build
	noPost  bool         // PDEPEND inside is not waited for
	noRun   bool         // nor is RDEPEND
	selfish bool         // a component of one build
}

// skips reports whether a need of a package that is in the root is passed over.
func (r *relief) skips(kind build.EdgeKind, to int) bool {
	for ; r != nil; r = r.outer {
		if r.in[to] && (r.noRun || r.noPost && kind&build.Runtime == 0) {
			return true
		}
	}
	return false
}

// takesSeed reports whether a package is taken from a seed.
func (r *relief) takesSeed(i int) bool {
	for ; r != nil; r = r.outer {
		if r.seeded[i] {
			return true
		}
	}
	return false
}

// step is a vertex of the order: building a package, or having it usable.
type step int32

func building(i int) step   { return step(2 * i) }
func usable(i int) step     { return step(2*i + 1) }
func (s step) pkg() int     { return int(s / 2) }
func (s step) builds() bool { return s%2 == 0 }

// waits calls f with each step that s waits for, under a relief.
func (g *graph) waits(s step, isJob []bool, r *relief, f func(step)) {
	i := s.pkg()
	if s.builds() {
		for _, e := range g.next[i] {
			if e.kind&build.Buildtime != 0 && e.to != i {
				f(usable(e.to))
			}
		}
		return
	}
	if isJob[i] {
		switch {
		case !r.takesSeed(i):
			f(building(i))
		case g.seeds[i] == nil:
			f(building(g.bootstrap[i]))
		}
	}
	for _, e := range g.next[i] {
		if e.kind&(build.Runtime|build.RuntimePost) != 0 && e.to != i && !r.skips(e.kind, e.to) {
			f(usable(e.to))
		}
	}
}

// components finds the strongly connected components (Tarjan) of the steps in
// all, under a relief, each a list; those of one step are left out.
func (g *graph) components(all []step, isJob []bool, r *relief) [][]step {
	const unseen = -1
	index, low := map[step]int{}, map[step]int{}
	on := map[step]bool{}
	for _, s := range all {
		index[s] = unseen
	}
	var stack []step
	var out [][]step
	type frame struct {
		s    step
		next []step
	}
	counter := 0
	open := func(s step) frame {
		index[s], low[s], on[s] = counter, counter, true
		counter++
		stack = append(stack, s)
		f := frame{s: s}
		g.waits(s, isJob, r, func(t step) {
			if _, in := index[t]; in {
				f.next = append(f.next, t)
			}
		})
		return f
	}
	for _, start := range all {
		if index[start] != unseen {
			continue
		}
		calls := []frame{open(start)}
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			if len(f.next) > 0 {
				t := f.next[0]
				f.next = f.next[1:]
				switch {
				case index[t] == unseen:
					calls = append(calls, open(t))
				case on[t]:
					low[f.s] = min(low[f.s], index[t])
				}
				continue
			}
			s := f.s
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				p := calls[len(calls)-1].s
				low[p] = min(low[p], low[s])
			}
			if low[s] != index[s] {
				continue
			}
			var comp []step
			for {
				t := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				on[t] = false
				comp = append(comp, t)
				if t == s {
					break
				}
			}
			if len(comp) > 1 {
				slices.Sort(comp)
				out = append(out, comp)
			}
		}
	}
	slices.SortFunc(out, func(a, b []step) int { return int(a[0] - b[0]) })
	return out
}

// cyclic lists the packages on cycles of builds, before anything breaks them:
// those for which a seed would help.
func (g *graph) cyclic(jobs []int) []int {
	isJob := g.marks(jobs)
	var out []int
	for _, comp := range g.components(g.steps(jobs), isJob, nil) {
		for _, s := range comp {
			if s.builds() {
				out = append(out, s.pkg())
			}
		}
	}
	return out
}

func (g *graph) marks(jobs []int) []bool {
	isJob := make([]bool, len(g.doc.Nodes))
	for _, i := range jobs {
		isJob[i] = true
	}
	return isJob
}

// steps are the vertices that jobs can reach.
func (g *graph) steps(jobs []int) []step {
	all := make([]step, 0, 2*len(g.doc.Nodes))
	for i := range g.doc.Nodes {
		all = append(all, usable(i))
	}
	for _, i := range jobs {
		all = append(all, building(i))
	}
	slices.Sort(all)
	return all
}

// breakCycles gives each job on a cycle its relief, and leaves out (into
// g.drop) those that nothing helps.
func (g *graph) breakCycles(jobs []int) {
	isJob := g.marks(jobs)
	for _, comp := range g.components(g.steps(jobs), isJob, nil) {
		g.breakCycle(comp, isJob, nil)
	}
}

func (g *graph) breakCycle(comp []step, isJob []bool, outer *relief) {
	var builds []int
	in := make(map[int]bool)
	for _, s := range comp {
		in[s.pkg()] = true
		if s.builds() {
			builds = append(builds, s.pkg())
		}
	}
	if len(builds) == 0 {
		return // needs of running things may be as round as they like
	}
	r := &relief{outer: outer, in: in, seeded: map[int]bool{}}
	set := func() {
		for _, i := range builds {
			g.relief[i] = r
		}
	}
	if len(builds) == 1 {
		i := builds[0]
		r.selfish = true
		if g.seeds[i] != nil {
			r.seeded[i] = true
		}
		set()
		return
	}
	try := func() (rest [][]step, helped bool) {
		rest = g.components(comp, isJob, r)
		return rest, len(rest) != 1 || len(rest[0]) < len(comp)
	}
	deeper := func(rest [][]step) {
		set()
		for _, c := range rest {
			g.breakCycle(c, isJob, r)
		}
	}
	if !outer.postDropped() {
		r.noPost = true
		if rest, ok := try(); ok {
			deeper(rest)
			return
		}
		r.noPost = false
	}
	if v := g.bestSeed(builds, comp, isJob, r); v >= 0 {
		r.seeded[v] = true
		rest, _ := try()
		deeper(rest)
		return
	}
	if !outer.runDropped() {
		r.noRun = true
		if rest, ok := try(); ok {
			deeper(rest)
			return
		}
	}
	why := "a cycle of build-time needs that no installed package and no change of flags breaks: " + g.path(builds, comp, isJob, outer)
	for _, i := range builds {
		if g.drop[i] == "" {
			g.drop[i] = why
		}
	}
}

func (r *relief) postDropped() bool {
	for ; r != nil; r = r.outer {
		if r.noPost || r.noRun {
			return true
		}
	}
	return false
}

func (r *relief) runDropped() bool {
	for ; r != nil; r = r.outer {
		if r.noRun {
			return true
		}
	}
	return false
}

// bestSeed is the package of a component whose seed, or else bootstrap build,
// serves most of the others; -1 if there is none.
func (g *graph) bestSeed(builds []int, comp []step, isJob []bool, r *relief) int {
	users := make(map[int]int)
	inside := make(map[step]bool, len(comp))
	for _, s := range comp {
		inside[s] = true
	}
	for _, s := range comp {
		g.waits(s, isJob, r, func(t step) {
			if !t.builds() && inside[t] {
				users[t.pkg()]++
			}
		})
	}
	best, score := -1, -1
	for _, i := range builds {
		if r.takesSeed(i) {
			continue
		}
		n := users[i]
		switch {
		case g.seeds[i] != nil && !g.want[i]:
			n += 2 * len(comp) // then perhaps nobody needs it built at all
		case g.seeds[i] != nil:
			n += len(comp) // a seed costs nothing, a bootstrap is a build more
		case !g.hasBootstrap(i):
			continue
		}
		if n > score {
			best, score = i, n
		}
	}
	return best
}

func (g *graph) hasBootstrap(i int) bool {
	_, ok := g.bootstrap[i]
	return ok
}

// path names one cycle of builds for people.
func (g *graph) path(builds []int, comp []step, isJob []bool, r *relief) string {
	inside := make(map[step]bool, len(comp))
	for _, s := range comp {
		inside[s] = true
	}
	// The shortest way from a build back to itself.
	start := building(builds[0])
	from := map[step]step{}
	queue := []step{start}
	for found := false; len(queue) > 0 && !found; {
		s := queue[0]
		queue = queue[1:]
		g.waits(s, isJob, r, func(t step) {
			if _, seen := from[t]; !seen && inside[t] && !found {
				from[t] = s
				queue = append(queue, t)
				found = t == start
			}
		})
	}
	names := []string{g.doc.Nodes[start.pkg()].CPV}
	for s := from[start]; s != start && len(names) < 12; s = from[s] {
		if n := g.doc.Nodes[s.pkg()].CPV; n != names[len(names)-1] {
			names = append(names, n)
		}
	}
	if first := g.doc.Nodes[start.pkg()].CPV; names[len(names)-1] != first || len(names) == 1 {
		names = append(names, first)
	}
	slices.Reverse(names)
	return strings.Join(names, " needs ")
}

// seedFor is an installed package that may stand for a node while others are
// built.
type seedFor struct {
	cpv  build.CPV
	slot string
	at   uint32 // its place in the table of root entries, once a root has it; 0 = none yet
}

// chooseSeeds decides which of the installed packages may stand for a node: it
// has the planned slot and subslot, satisfies the needs of those on the cycle,
// and every := that it is bound to is what the plan has. seeds are the planner's
// answers for the nodes asked, in the same order.
func (g *graph) chooseSeeds(asked []int, seeds []installedSeed) error {
	if len(asked) != len(seeds) {
		return fmt.Errorf("%w: %d seeds of %d packages", errAnswer, len(seeds), len(asked))
	}
	bySlot := make(map[string]*node, len(g.order))
	for _, i := range g.order {
		n := &g.doc.Nodes[i]
		bySlot[g.entry[i].CPV.CP()+":"+n.Slot] = n
	}
	for at, i := range asked {
		s, n := seeds[at], &g.doc.Nodes[i]
		if s.CPV == "" {
			continue
		}
		cpv, err := build.ParseCPV(s.CPV)
		if err != nil || cpv.CP() != g.entry[i].CPV.CP() {
			return fmt.Errorf("%w: seed %q for %s", errAnswer, s.CPV, n.CPV)
		}
		slot, err := build.ParseSlot(s.Slot)
		if err != nil || slot != (build.Slot{Slot: n.Slot, Sub: n.SubSlot}) || slices.Contains(s.Satisfies, false) {
			continue
		}
		if !slices.ContainsFunc(s.Bound, func(b string) bool { return g.stale(b, bySlot) }) {
			g.seeds[i] = &seedFor{cpv: cpv, slot: slot.String()}
		}
	}
	return nil
}

// stale reports whether the plan has another subslot than a bound atom.
func (g *graph) stale(bound string, bySlot map[string]*node) bool {
	a, err := build.ParseAtom(bound)
	if err != nil {
		return true
	}
	slot, sub, ok := strings.Cut(strings.TrimSuffix(a.Slot, "="), "/")
	n := bySlot[a.Category+"/"+a.Name+":"+slot]
	return ok && n != nil && n.SubSlot != sub
}

// installedSeed is the planner's answer to one question of "seeds".
type installedSeed struct {
	CPV       string   `json:"cpv"` // "" = nothing installed in that slot
	Slot      string   `json:"slot"`
	Bound     []string `json:"bound"`     // the := atoms of its RDEPEND and IDEPEND
	Satisfies []bool   `json:"satisfies"` // of the question's atoms, those that the planned one satisfies
}

// seedQuestion asks for the installed package that could stand for a node.
type seedQuestion struct {
	CPV   string   `json:"cpv"` // as it is planned
	Slot  string   `json:"slot"`
	Atoms []string `json:"atoms"` // what those on the cycle want of it
}

// questions are what the planner is asked about the packages on cycles.
func (g *graph) questions(cyclic []int) []seedQuestion {
	want := make(map[string][]string)
	for _, i := range cyclic {
		for _, kind := range []string{"BDEPEND", "DEPEND"} {
			for _, w := range strings.Fields(g.doc.Nodes[i].Deps.Text[kind]) {
				if a, err := build.ParseAtom(w); err == nil && a.Category != "" {
					cp := a.Category + "/" + a.Name
					if !slices.Contains(want[cp], w) {
						want[cp] = append(want[cp], w)
					}
				}
			}
		}
	}
	out := make([]seedQuestion, len(cyclic))
	for at, i := range cyclic {
		cp := g.entry[i].CPV.CP()
		out[at] = seedQuestion{CPV: g.doc.Nodes[i].CPV, Slot: g.doc.Nodes[i].Slot, Atoms: append([]string{}, want[cp]...)}
		slices.Sort(out[at].Atoms)
	}
	return out
}
