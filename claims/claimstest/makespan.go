package claimstest

import (
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/claims"
)

// Cell is one case of the Makespan grid.
type Cell struct {
	Drones int
	Jobs   int
	WAN    bool
	Fault  string // none, serial, kill, partition
	// Slots is into how many a drone is split for each 8 cores; 0 = one slot.
	Slots int
	// Roots and Affinity are as in Options.
	Roots, Affinity bool
}

// Result is what one seed of a cell came to.
type Result struct {
	Ratio      float64 // makespan over the bound
	Wasted     float64 // percent of the useful CPU time
	Claims     float64 // opened, per job
	BuiltTwice float64 // compiles of what is compiled or built elsewhere, per 1,000 jobs
	Bound      float64 // hours
	Stats      Stats
}

const (
	faultAt       = 0.4 // of the bound
	partitionFor  = 30 * 60_000
	disturbedFor  = claims.AwayMillis + 5*60_000
	makespanRound = 20_000 // when the round is posted, ms
)

// world makes the swarm of a cell, which will build tasks.
func (c Cell) world(seed uint64, tasks []Task, opt Options) (*World, error) {
	specs, err := Specs(tasks)
	if err != nil {
		return nil, err
	}
	w := NewWorld(seed, opt, specs)
	settle := int64(claims.SettleLAN)
	if c.WAN {
		settle = claims.SettleWAN
	}
	for i, k := range Fleet(c.Drones) {
		n := w.AddNode(fmt.Sprintf("d%d", i), int64(k*1000), max(1, c.Slots*int(k)/8), settle)
		n.Site = i / 2 % 2
		if c.Drones > 4 {
			n.Site = (i + i/4) % 2 // half of each kind
		}
		n.skew = w.rng.Int64N(101) - 50
	}
	w.net.buildMesh()
	for _, n := range w.Nodes {
		w.At(w.rng.Int64N(1000), n.Start)
	}
	return w, nil
}

// Makespan runs one seed of a cell.
func Makespan(c Cell, seed uint64) (Result, error) {
	tasks := GenerateDAG(seed, c.Jobs, c.Fault == "serial")
	cores := Fleet(c.Drones)
	bound := Bound(tasks, cores)
	w, err := c.world(seed, tasks, cellOptions(c))
	if err != nil {
		return Result{}, err
	}
	w.At(makespanRound, func() { w.PostRound(w.Nodes[0]) })
	at := makespanRound + int64(bound*1000*faultAt)
	switch c.Fault {
	case "kill":
		w.At(at, func() { bound = max(bound, faultAt*bound+w.kill(tasks, cores)) })
	case "partition":
		w.At(at, func() { w.split(true) })
		w.At(at+partitionFor, func() { w.split(false) })
		w.At(at+partitionFor+disturbedFor, func() { w.net.disturbed = false })
	}
	w.RunUntil(makespanRound+int64(bound*1000*10), w.Done)
	if !w.Done() {
		return Result{}, fmt.Errorf("%+v seed %d: %d of %d jobs built in ten times the bound", c, seed, len(w.done), c.Jobs)
	}
	s := w.Stats
	return Result{
		Ratio: float64(s.Makespan-makespanRound) / 1000 / bound, Wasted: 100 * float64(s.Wasted) / float64(s.Useful),
		Claims: float64(s.Claims) / float64(c.Jobs), BuiltTwice: 1000 * float64(s.Twice) / float64(c.Jobs), Bound: bound / 3600, Stats: s,
	}, nil
}

func cellOptions(c Cell) Options {
	o := Options{Unpack: true, Progress: claims.BeatMillis, CopyDelay: 4000, LazyBeats: c.Drones > 4, NoLearning: true, Unsigned: true, Roots: c.Roots, Affinity: c.Affinity}
	o.Net = NetOptions{MinDelay: 1, MaxDelay: 5, Loss: 10, Miss: 1, Degree: 6, RepairDelay: 1000}
	if c.WAN {
		o.Net.MinDelay, o.Net.MaxDelay = 50, 200
	}
	if c.Fault == "kill" || c.Fault == "partition" {
		o.Copies = claims.CopiesWanted - 1
	}
	return o
}

// kill ends a quarter of the drones for good and returns, in seconds, the
// bound of what is left: on the survivors, everything unfinished; a build
// whose drone died from zero, one elsewhere from its remainder.
func (w *World) kill(tasks []Task, cores []float64) float64 {
	n := len(w.Nodes)
	dead := map[int]bool{}
	for len(dead) < max(1, n/4) {
		dead[w.rng.IntN(n)] = true
	}
	left := slices.Clone(tasks)
	var alive []float64
	running := map[int]bool{}
	for i, node := range w.Nodes {
		if dead[i] {
			continue
		}
		alive = append(alive, cores[i])
		for k, r := range node.drone.running {
			t := slices.Index(w.order, k)
			whole := float64(node.drone.millis(r.spec.Work, r.spec.Serial))
			rest := max(0, whole-float64(w.now-r.claimed)) / whole
			if running[t] {
				rest = min(rest, left[t].Work/tasks[t].Work)
			}
			running[t] = true
			left[t].Work, left[t].Serial = tasks[t].Work*rest, tasks[t].Serial*rest
		}
	}
	for i, k := range w.order {
		if _, ok := w.done[k]; ok {
			left[i].Work, left[i].Serial = 0, 0
		}
	}
	w.net.disturbed = true // until artifacts that died are built again
	w.At(w.now+disturbedFor, func() { w.net.disturbed = false })
	for i, node := range w.Nodes {
		if dead[i] {
			node.Crash("killed")
		}
	}
	return Bound(left, alive)
}

// split cuts the sites apart, or mends it.
func (w *World) split(cut bool) {
	w.net.disturbed = true
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			switch {
			case a.Site == b.Site:
			case cut:
				w.Cut(a, b)
			default:
				w.Mend(a, b)
			}
		}
	}
}
