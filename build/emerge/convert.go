package emerge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
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
	// base is what builds start from, by CPV; nil = what is installed here.
	base    map[string]build.Installed
	baseRef build.BaseRef
	bundle  string // CID of the configuration
	strict  bool   // policy of keys
	// installed tells of packages installed here that could break a cycle, and
	// lend packs one of them and returns its CID; nil = there are none.
	installed func([]seedQuestion) ([]installedSeed, error)
	// source keeps a file that no program may download and returns its CID, ""
	// if nobody has it; nil = nobody looks.
	source func(build.Source) (string, error)
	// built says that the package of a key is to be had; nil = nobody knows.
	built func(build.Key) (bool, error)
	lend  func(build.CPV) (string, error)
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
	taken := make(map[int]bool)
	for _, b := range d.Bootstraps {
		if !in(b.Node) || !in(b.For) || b.Node == b.For || taken[b.Node] || taken[b.For] ||
			slices.Contains(d.Want, b.Node) || slices.Contains(d.Need, b.Node) {
			return bad("bootstrap %d for %d", b.Node, b.For)
		}
		taken[b.Node], taken[b.For] = true, true
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
	conv   conversion
	want   map[int]bool   // tasks of WANT
	drop   map[int]string // nodes that cannot be built, and why
	relief map[int]*relief
	seeds  map[int]*seedFor
	// bootstrap is the node with other flags that may be built in place of one.
	bootstrap   map[int]int
	isBootstrap map[int]bool
	kept        map[string]string // CIDs of sources that the round brings, by name and hash
}

// arc is an edge by its target.
type arc struct {
	to   int
	kind build.EdgeKind
}

func newGraph(d *document, c conversion) *graph {
	g := &graph{
		doc: d, conv: c, next: make([][]arc, len(d.Nodes)), seen: make([]int, len(d.Nodes)), rank: make([]int, len(d.Nodes)),
		want: make(map[int]bool, len(d.Want)), drop: make(map[int]string), relief: make(map[int]*relief), seeds: make(map[int]*seedFor),
		bootstrap: make(map[int]int), isBootstrap: make(map[int]bool), kept: make(map[string]string),
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
	for _, b := range d.Bootstraps {
		g.bootstrap[b.For], g.isBootstrap[b.Node] = b.Node, true
		g.rank[b.Node] = g.rank[b.For]
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
func (g *graph) base(i int) bool {
	n := &g.doc.Nodes[i]
	switch {
	case g.want[i] || g.isBootstrap[i]:
		return false
	case g.conv.base != nil:
		have, ok := g.conv.base[n.CPV]
		slot, err := build.ParseSlot(have.Slot) // a manifest has "0/0" where an entry has "0"
		return ok && err == nil && slot.String() == g.entry[i].Slot && have.Repo == n.Repo && slices.Equal(have.USE, sorted(n.USE))
	}
	return n.Installed && !g.conv.noBase
}

// item is one member of a root: a node, or its seed.
type item struct {
	node int
	seed bool
}

// root lists what must be in the root before node i is built: its build-time
// needs and whatever these need to run, in merge order, under the relief of i.
func (g *graph) root(i int) []item {
	g.turn++
	r := g.relief[i]
	var out []item
	visit := func(n int) {
		if g.seen[n] == g.turn {
			return
		}
		g.seen[n] = g.turn
		switch {
		case g.isJob(n) && r.takesSeed(n):
			if g.seeds[n] != nil {
				out = append(out, item{n, true})
			} else {
				out = append(out, item{g.bootstrap[n], false})
			}
		case n != i: // it runs with itself: that is no reason to wait
			out = append(out, item{n, false})
		}
	}
	for _, e := range g.next[i] {
		if e.kind&build.Buildtime != 0 {
			visit(e.to)
		}
	}
	for at := 0; at < len(out); at++ {
		for _, e := range g.next[out[at].node] {
			if e.kind&(build.Runtime|build.RuntimePost) != 0 && !r.skips(e.kind, e.to) {
				visit(e.to)
			}
		}
	}
	slices.SortFunc(out, func(a, b item) int { return cmp.Compare(g.rank[a.node], g.rank[b.node]) })
	return out
}

// isJob reports whether a node would be built if anything needs it.
func (g *graph) isJob(n int) bool { return !g.base(n) }

// convert makes a plan of the planner's answer: jobs with keys, edges and
// roots, in an order in which they can be built one after another.
func convert(d *document, files fileDigests, c conversion) (*build.Plan, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if c.base != nil {
		d.Env.takeToolchain(c.base)
	}
	g := newGraph(d, c)
	jobs := g.jobs()
	if cyclic := g.cyclic(jobs); len(cyclic) > 0 {
		if c.installed != nil {
			answers, err := c.installed(g.questions(cyclic))
			if err != nil {
				return nil, err
			}
			if err := g.chooseSeeds(cyclic, answers); err != nil {
				return nil, err
			}
		}
		g.breakCycles(jobs)
		jobs = g.jobs() // a seed may stand for what nobody else needs
	}
	for _, i := range jobs {
		why := refused(&d.Nodes[i])
		if why == "" && c.source != nil {
			var err error
			if why, err = g.bought(i); err != nil {
				return nil, err
			}
			if why != "" && c.built != nil {
				// What is built needs no file.
				key, _, err := g.key(i, files)
				if err != nil {
					return nil, err
				}
				built, err := c.built(key)
				if err != nil {
					return nil, err
				}
				if built {
					why = ""
				}
			}
		}
		if why != "" {
			g.drop[i] = why
		}
	}
	plan := &build.Plan{
		Target: c.target, Bundle: c.bundle, Base: c.baseRef, Tree: c.tree, Jobs: []build.Job{}, Want: []build.Key{}, Header: header(d.Header),
	}
	if err := g.write(plan, g.useful(g.sort(jobs)), files, c); err != nil {
		return nil, err
	}
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
func (g *graph) jobs() (jobs []int) {
	in := make([]bool, len(g.doc.Nodes))
	todo := slices.Clone(g.doc.Want)
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if in[i] {
			continue
		}
		in[i] = true
		jobs = append(jobs, i)
		for _, n := range g.root(i) {
			if !n.seed && g.isJob(n.node) && !in[n.node] {
				todo = append(todo, n.node)
			}
		}
	}
	slices.SortFunc(jobs, func(a, b int) int { return cmp.Compare(g.rank[a], g.rank[b]) })
	return jobs
}

// sort puts jobs into an order in which every root's jobs come first, leaving
// out (into g.drop) what waits for something left out. Jobs that still wait for
// themselves (a bootstrap build may) are left out too.
func (g *graph) sort(jobs []int) []int {
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, len(g.doc.Nodes))
	out := make([]int, 0, len(jobs))
	type frame struct {
		job  int
		next []item
	}
	for _, start := range jobs {
		if state[start] != unseen {
			continue
		}
		stack := []frame{{start, g.root(start)}}
		state[start] = open
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if len(f.next) == 0 {
				state[f.job] = done
				if g.drop[f.job] == "" {
					out = append(out, f.job)
				}
				stack = stack[:len(stack)-1]
				continue
			}
			n := f.next[0]
			if n.seed || !g.isJob(n.node) {
				f.next = f.next[1:]
				continue
			}
			switch state[n.node] {
			case unseen:
				state[n.node] = open
				stack = append(stack, frame{n.node, g.root(n.node)})
				continue
			case open:
				g.leave(f.job, "its build needs "+g.doc.Nodes[n.node].CPV+", which waits for it")
			default:
				if why := g.drop[n.node]; why != "" {
					g.leave(f.job, fmt.Sprintf("its build needs %s, which cannot be built here: %s", g.doc.Nodes[n.node].CPV, why))
				}
			}
			f.next = f.next[1:]
		}
	}
	return out
}

// useful leaves out what only jobs need that are left out.
func (g *graph) useful(order []int) []int {
	need := make([]bool, len(g.doc.Nodes))
	for _, i := range slices.Backward(order) { // users come last
		if !need[i] && !g.want[i] {
			continue
		}
		need[i] = true
		for _, n := range g.root(i) {
			need[n.node] = need[n.node] || !n.seed
		}
	}
	return slices.DeleteFunc(order, func(i int) bool { return !need[i] })
}

// leave leaves a job out, for the first reason that is found.
func (g *graph) leave(i int, why string) {
	if g.drop[i] == "" {
		g.drop[i] = why
	}
}

// write makes the jobs of a plan in their order.
func (g *graph) write(plan *build.Plan, order []int, files fileDigests, c conversion) error {
	// The table that all roots share: the nodes in merge order, then seeds.
	place := make([]uint32, len(g.doc.Nodes))
	table := make([]build.RootEntry, 0, len(g.doc.Nodes)+len(g.seeds))
	byRank := make([]int, len(g.doc.Nodes))
	for i := range byRank {
		byRank[i] = i
	}
	slices.SortFunc(byRank, func(a, b int) int { return cmp.Or(cmp.Compare(g.rank[a], g.rank[b]), cmp.Compare(a, b)) })
	for _, i := range byRank {
		place[i] = uint32(len(table))
		table = append(table, g.entry[i])
	}
	lists := make([][]uint32, 0, len(order))
	keys := make(map[int]build.Key, len(order))
	byKey := make(map[build.Key]bool, len(order))
	for _, i := range order {
		root := g.root(i)
		j, err := g.job(i, root, files, c)
		if err != nil {
			return err
		}
		keys[i] = j.Key
		table[place[i]].Key = j.Key
		if byKey[j.Key] {
			continue // one ebuild for two roots of the machine
		}
		byKey[j.Key] = true
		at := make([]uint32, 0, len(root))
		seen := make(map[build.CPV]bool, len(root))
		for _, n := range root {
			to := place[n.node]
			if n.seed {
				s := g.seeds[n.node]
				if s.at == 0 {
					cid, err := c.lend(s.cpv)
					if err != nil {
						return err
					}
					s.at = uint32(len(table))
					table = append(table, build.RootEntry{CPV: s.cpv, Slot: s.slot, Seed: cid})
				}
				to = s.at
			}
			if cpv := table[to].CPV; !seen[cpv] {
				seen[cpv] = true
				at = append(at, to)
			}
		}
		lists = append(lists, at)
		plan.Jobs = append(plan.Jobs, *j)
		if g.want[i] {
			plan.Want = append(plan.Want, j.Key)
		}
	}
	for n := range plan.Jobs {
		plan.Jobs[n].Root = build.RootOf(table, lists[n])
	}
	g.needs(plan, order, keys)
	return nil
}

// key is the build key of a node, and what it is made of.
func (g *graph) key(i int, files fileDigests) (build.Key, []build.Facet, error) {
	n := &g.doc.Nodes[i]
	pre, err := preimage(n, &g.doc.Env, policy{g.conv.prefix, g.conv.strict}, files)
	if err != nil {
		return "", nil, err
	}
	key, err := build.KeyOf(pre)
	if err != nil {
		return "", nil, fmt.Errorf("key of %s: %w", n.CPV, err)
	}
	return key, pre, nil
}

// job makes the plan's entry of a node, but for its root and needs.
func (g *graph) job(i int, root []item, files fileDigests, c conversion) (*build.Job, error) {
	n := &g.doc.Nodes[i]
	key, pre, err := g.key(i, files)
	if err != nil {
		return nil, err
	}
	j := &build.Job{
		Key: key, Builder: build.BuilderPortage, CPV: g.entry[i].CPV, Slot: g.entry[i].Slot, Repo: n.Repo,
		USE: sorted(n.USE), IUSE: sorted(n.IUSE), Preimage: pre, Needs: []build.Edge{}, Tree: c.tree, Sources: g.sourcesOf(i), Keywords: n.Keywords, Seed: g.isBootstrap[i],
	}
	j.CoreMillis, j.DiskMiB = guessWork(j.Sources), guessDisk(j.Sources)
	in := make(map[int]bool, len(root))
	for _, r := range root {
		in[r.node] = true
	}
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
		r := g.relief[i]
		for _, e := range g.next[i] {
			to, ok := keys[e.to]
			if !ok || to == j.Key || slices.ContainsFunc(j.Needs, func(x build.Edge) bool { return x.Key == to }) {
				continue
			}
			kind := e.kind
			if r.takesSeed(e.to) {
				// The build is done with the seed; what runs needs the package.
				if kind &^= build.Buildtime; kind&(build.Runtime|build.RuntimePost) == 0 {
					continue
				}
			}
			j.Needs = append(j.Needs, build.Edge{Key: to, Kind: kind})
		}
		slices.SortFunc(j.Needs, func(a, b build.Edge) int { return strings.Compare(string(a.Key), string(b.Key)) })
		j.Against = g.against(i, keys)
	}
}

// against is a digest of the packages that building a node needs directly: of jobs
// the keys, of what the base or a seed brings the slot and the flags.
func (g *graph) against(i int, keys map[int]build.Key) string {
	var lines []string
	for _, e := range g.next[i] {
		if e.kind&build.Buildtime == 0 || e.to == i {
			continue
		}
		n, what := &g.doc.Nodes[e.to], string(keys[e.to])
		if what == "" || g.relief[i].takesSeed(e.to) {
			what = strings.Join(sorted(n.USE), " ")
		}
		lines = append(lines, fmt.Sprintf("%s %s %s\n", n.CPV, g.entry[e.to].Slot, what))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "")))
	return hex.EncodeToString(sum[:16])
}

// moduleEclasses are inherited by packages that build for the running kernel.
var moduleEclasses = []string{"linux-mod", "linux-mod-r1"}

// refused says why a package is never built for others, "" if it is.
func refused(n *node) string {
	switch {
	case slices.Contains(n.Properties, "live"):
		return "a live ebuild has no fixed content"
	case slices.ContainsFunc(n.Eclasses, func(e eclass) bool { return slices.Contains(moduleEclasses, e.Name) }):
		return "kernel modules are built for one kernel: each machine builds its own"
	}
	return ""
}

// sourcesOf are the files that a node's build unpacks.
func (g *graph) sourcesOf(i int) (out []build.Source) {
	for _, d := range g.doc.Nodes[i].Distfiles {
		s := build.SourceOf(d.Name, d.Size, d.Hashes)
		s.Restricted, s.CID = d.Restricted, g.kept[d.Name+" "+s.Hash]
		if s.Valid() {
			out = append(out, s)
		}
	}
	return out
}

// bought has the files of a node that no program may download kept, and says which
// one nobody has.
func (g *graph) bought(i int) (why string, err error) {
	for _, s := range g.sourcesOf(i) {
		if !s.Restricted {
			continue
		}
		cid, err := g.conv.source(s)
		if err != nil {
			return "", fmt.Errorf("keep %s: %w", s.Name, err)
		}
		if cid == "" {
			return s.Name + " may not be downloaded by a program (RESTRICT=fetch): put it into DISTDIR here, then plan again", nil
		}
		g.kept[s.Name+" "+s.Hash] = cid
	}
	return "", nil
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
