package emerge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// errAnswer is wrapped by errors about an answer of the planner that breaks
// its own rules.
var errAnswer = errors.New("malformed answer")

// conversion is what convert is told beside the document.
type conversion struct {
	target string
	prefix string // facet of the key: which offset packages are built for
	tree   string // digest of the repositories
	// noBase: builds begin in an empty root, so nothing installed here counts.
	noBase bool
}

// maxNodes bounds a document; the densest real plan known has 1,421.
const maxNodes = build.MaxJobs

// check validates what the rest of the conversion indexes with.
func (d *document) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", errAnswer, fmt.Sprintf(format, args...))
	}
	if len(d.Nodes) > maxNodes {
		return bad("%d packages, at most %d", len(d.Nodes), maxNodes)
	}
	in := func(i int) bool { return i >= 0 && i < len(d.Nodes) }
	for _, list := range [][]int{d.Want, d.Need} {
		seen := make(map[int]bool, len(list))
		for _, i := range list {
			if !in(i) || seen[i] {
				return bad("task %d", i)
			}
			seen[i] = true
		}
	}
	for _, list := range [][]edge{d.WantEdges, d.NeedEdges} {
		for _, e := range list {
			if !in(e.From) || !in(e.To) {
				return bad("edge %d to %d", e.From, e.To)
			}
		}
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if _, err := build.ParseCPV(n.CPV); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
		if _, err := build.ParseSlot(n.Slot + "/" + n.SubSlot); err != nil {
			return fmt.Errorf("%w: %s: %w", errAnswer, n.CPV, err)
		}
		for _, u := range slices.Concat(n.USE, n.IUSE) {
			if !build.ValidUSE(u) {
				return bad("%s: USE flag %q", n.CPV, u)
			}
		}
		for _, op := range n.Deps.SlotOps {
			if op.To != nil && !in(*op.To) {
				return bad("%s: bound to %d", n.CPV, *op.To)
			}
		}
	}
	return nil
}

func kindOf(kinds []string) build.EdgeKind {
	var k build.EdgeKind
	for _, s := range kinds {
		switch s {
		case "buildtime":
			k |= build.Buildtime
		case "buildtime_slot_op":
			k |= build.Buildtime | build.SlotOp
		case "runtime":
			k |= build.Runtime
		case "runtime_slot_op":
			k |= build.Runtime | build.SlotOp
		case "runtime_post":
			k |= build.RuntimePost
		}
	}
	return k
}

// graph is the document as the conversion works on it.
type graph struct {
	doc    *document
	order  []int             // merge order of every task
	rank   []int             // position in order, by node
	next   [][]arc           // edges of a node, sorted by target
	entry  []build.RootEntry // of each node, without its key
	seen   []int             // marks of root: the last turn that saw a node
	turn   int
	noBase bool
	want   map[int]bool   // tasks of WANT
	drop   map[int]string // nodes that cannot be built, and why
}

// arc is an edge by its target.
type arc struct {
	to   int
	kind build.EdgeKind
}

func newGraph(d *document, noBase bool) *graph {
	g := &graph{
		doc: d, noBase: noBase, next: make([][]arc, len(d.Nodes)), seen: make([]int, len(d.Nodes)), rank: make([]int, len(d.Nodes)),
		want: make(map[int]bool, len(d.Want)), drop: make(map[int]string),
	}
	inNeed := make(map[int]bool, len(d.Need))
	for _, i := range d.Need {
		inNeed[i] = true
	}
	g.order = slices.Clone(d.Need)
	for _, i := range d.Want {
		g.want[i] = true
		if !inNeed[i] {
			g.order = append(g.order, i)
		}
	}
	for r, i := range g.order {
		g.rank[i] = r
	}
	add := func(list []edge, keep func(int) bool) {
		for _, e := range list {
			if e.From != e.To && keep(e.From) {
				g.next[e.From] = append(g.next[e.From], arc{e.To, kindOf(e.Kinds)})
			}
		}
	}
	add(d.NeedEdges, func(int) bool { return true })
	add(d.WantEdges, func(i int) bool { return !inNeed[i] })
	for i := range g.next {
		slices.SortFunc(g.next[i], func(a, b arc) int { return a.to - b.to })
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		cpv, _ := build.ParseCPV(n.CPV) // check has parsed it
		g.entry = append(g.entry, build.RootEntry{CPV: cpv, Slot: build.Slot{Slot: n.Slot, Sub: n.SubSlot}.String()})
	}
	return g
}

// base reports whether a node is installed as the plan has it, so that builds
// find it in their base and nothing needs to be built, unless it is wanted.
func (g *graph) base(i int) bool { return g.doc.Nodes[i].Installed && !g.want[i] && !g.noBase }

// root lists what must be in the root before node i is built: its build-time
// needs and whatever these need to run, in merge order.
func (g *graph) root(i int) []int {
	g.turn++
	g.seen[i] = g.turn // it runs with itself: that is no reason to wait
	var out []int
	visit := func(n int) {
		if g.seen[n] != g.turn {
			g.seen[n] = g.turn
			out = append(out, n)
		}
	}
	for _, e := range g.next[i] {
		if e.kind&build.Buildtime != 0 {
			visit(e.to)
		}
	}
	for at := 0; at < len(out); at++ {
		for _, e := range g.next[out[at]] {
			if e.kind&(build.Runtime|build.RuntimePost) != 0 {
				visit(e.to)
			}
		}
	}
	slices.SortFunc(out, func(a, b int) int { return g.rank[a] - g.rank[b] })
	return out
}

// convert makes a plan of the planner's answer: jobs with keys, edges and
// roots, in an order in which they can be built one after another.
func convert(d *document, files fileDigests, c conversion) (*build.Plan, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	g := newGraph(d, c.noBase)
	jobs, roots := g.jobs()
	for _, i := range jobs {
		if slices.Contains(d.Nodes[i].Properties, "live") {
			g.drop[i] = "a live ebuild has no fixed content"
		}
	}
	order := g.sort(jobs, roots)
	plan := &build.Plan{
		Target: c.target, Tree: c.tree, Jobs: []build.Job{}, Want: []build.Key{}, Header: header(d.Header),
	}
	keys := make(map[int]build.Key, len(order))
	byKey := make(map[build.Key]bool, len(order))
	for _, i := range order {
		j, err := g.job(i, roots[i], keys, files, c)
		if err != nil {
			return nil, err
		}
		keys[i] = j.Key
		if byKey[j.Key] {
			continue // one ebuild for two roots of the machine
		}
		byKey[j.Key] = true
		plan.Jobs = append(plan.Jobs, *j)
		if g.want[i] {
			plan.Want = append(plan.Want, j.Key)
		}
	}
	g.needs(plan, order, keys)
	plan.Dropped, plan.Missing = notes(d.Dropped), notes(d.Missing)
	for _, i := range jobs {
		if why, ok := g.drop[i]; ok {
			plan.Dropped = append(plan.Dropped, build.Note{Atom: "=" + d.Nodes[i].CPV, Reason: build.OneLine(why, 500)})
		}
	}
	if err := plan.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return plan, nil
}

// jobs lists, in merge order, the nodes to build: WANT and, as long as there
// are any, what the roots of these hold that is not in the base.
func (g *graph) jobs() (jobs []int, roots map[int][]int) {
	roots = make(map[int][]int)
	in := make(map[int]bool)
	todo := slices.Clone(g.doc.Want)
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if in[i] {
			continue
		}
		in[i] = true
		roots[i] = g.root(i)
		for _, n := range roots[i] {
			if !g.base(n) && !in[n] {
				todo = append(todo, n)
			}
		}
	}
	for i := range in {
		jobs = append(jobs, i)
	}
	slices.SortFunc(jobs, func(a, b int) int { return g.rank[a] - g.rank[b] })
	return jobs, roots
}

// sort puts jobs into an order in which every root's jobs come first, leaving
// out (into g.drop) cycles and what waits for something left out.
func (g *graph) sort(jobs []int, roots map[int][]int) []int {
	isJob := make(map[int]bool, len(jobs))
	for _, i := range jobs {
		isJob[i] = true
	}
	out := make([]int, 0, len(jobs))
	done := make(map[int]bool, len(jobs))
	for progress := true; progress; {
		progress = false
		for _, i := range jobs {
			if done[i] || g.drop[i] != "" {
				continue
			}
			ready := true
			for _, n := range roots[i] {
				switch {
				case !isJob[n]:
				case g.drop[n] != "":
					g.drop[i] = fmt.Sprintf("its build needs %s, which cannot be built here: %s", g.doc.Nodes[n].CPV, g.drop[n])
					ready, progress = false, true
				case !done[n]:
					ready = false
				}
				if !ready {
					break
				}
			}
			if ready {
				done[i], progress = true, true
				out = append(out, i)
			}
		}
		if !progress {
			progress = g.dropCycle(jobs, roots, done, isJob)
		}
	}
	return out
}

// dropCycle leaves out one cycle among the jobs that are not done, if there is
// one, and reports whether there was.
func (g *graph) dropCycle(jobs []int, roots map[int][]int, done, isJob map[int]bool) bool {
	start := -1
	for _, i := range jobs {
		if !done[i] && g.drop[i] == "" {
			start = i
			break
		}
	}
	if start < 0 {
		return false
	}
	// Every job left waits for one that is left: following that leads round.
	var path []int
	at := make(map[int]int)
	for i := start; ; {
		if p, ok := at[i]; ok {
			path = path[p:]
			break
		}
		at[i] = len(path)
		path = append(path, i)
		for _, n := range roots[i] {
			if isJob[n] && !done[n] && g.drop[n] == "" {
				i = n
				break
			}
		}
	}
	names := make([]string, 0, len(path)+1)
	for _, i := range path {
		names = append(names, g.doc.Nodes[i].CPV)
	}
	names = append(names, names[0])
	why := "a cycle of build-time needs, and none of it is installed: " + strings.Join(names, " needs ")
	for _, i := range path {
		g.drop[i] = why
	}
	return true
}

// job makes the plan's entry of a node whose root's jobs have keys already.
func (g *graph) job(i int, root []int, keys map[int]build.Key, files fileDigests, c conversion) (*build.Job, error) {
	n := &g.doc.Nodes[i]
	pre, err := preimage(n, &g.doc.Env, c.prefix, files)
	if err != nil {
		return nil, err
	}
	key, err := build.KeyOf(pre)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", n.CPV, err)
	}
	j := &build.Job{
		Key: key, Builder: build.BuilderPortage, CPV: g.entry[i].CPV, Slot: g.entry[i].Slot, Repo: n.Repo,
		USE: sorted(n.USE), IUSE: sorted(n.IUSE), Preimage: pre, Needs: []build.Edge{}, Tree: c.tree,
	}
	in := make(map[int]bool, len(root))
	seen := make(map[build.CPV]bool, len(root))
	list := make([]build.RootEntry, 0, len(root))
	for _, r := range root {
		in[r] = true
		e := g.entry[r]
		if seen[e.CPV] {
			continue
		}
		seen[e.CPV] = true
		e.Key = keys[r] // empty: the base has it
		list = append(list, e)
	}
	j.Root = build.NewRoot(list...)
	for _, op := range n.Deps.SlotOps {
		if op.To != nil && in[*op.To] && op.Bound != "" && op.Kind != "PDEPEND" {
			j.Bound = append(j.Bound, op.Bound)
		}
	}
	slices.Sort(j.Bound)
	j.Bound = slices.Compact(j.Bound)
	return j, nil
}

// needs adds the typed edges between jobs, once all keys are known.
func (g *graph) needs(plan *build.Plan, order []int, keys map[int]build.Key) {
	at := make(map[build.Key]int, len(plan.Jobs))
	for i := range plan.Jobs {
		at[plan.Jobs[i].Key] = i
	}
	for _, i := range order {
		j := &plan.Jobs[at[keys[i]]]
		for _, e := range g.next[i] {
			to, ok := keys[e.to]
			if !ok || to == j.Key || slices.ContainsFunc(j.Needs, func(x build.Edge) bool { return x.Key == to }) {
				continue
			}
			j.Needs = append(j.Needs, build.Edge{Key: to, Kind: e.kind})
		}
		slices.SortFunc(j.Needs, func(a, b build.Edge) int { return strings.Compare(string(a.Key), string(b.Key)) })
	}
}

func sorted(s []string) []string {
	out := slices.Clone(s)
	slices.Sort(out)
	return slices.Compact(out)
}

func notes(in []note) []build.Note {
	var out []build.Note
	for _, n := range in {
		if len(out) == 1000 {
			break
		}
		out = append(out, build.Note{Atom: build.OneLine(n.Atom, 200), Reason: build.OneLine(n.Reason, 500)})
	}
	return out
}

// header keeps of Portage's index header what describes the target; time,
// places and this machine's features stay at home.
func header(in map[string]string) []build.Pair {
	keep := func(k string) bool {
		switch k {
		case "ACCEPT_KEYWORDS", "ACCEPT_LICENSE", "ACCEPT_PROPERTIES", "ACCEPT_RESTRICT", "ARCH", "CBUILD",
			"CHOST", "CONFIG_PROTECT", "CONFIG_PROTECT_MASK", "ELIBC", "IUSE_IMPLICIT", "KERNEL", "PROFILE",
			"USE", "VERSION":
			return true
		}
		return strings.HasPrefix(k, "USE_EXPAND")
	}
	var out []build.Pair
	for k, v := range in {
		if keep(k) && v != "" && len(k) < 100 && len(v) < 64<<10 {
			out = append(out, build.Pair{Name: build.OneLine(k, 100), Value: build.OneLine(v, 64<<10)})
		}
	}
	slices.SortFunc(out, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
	return out
}
