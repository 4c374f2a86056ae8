package plan

import (
	"cmp"
	"math"
	"slices"

	"github.com/build-swarm/swarm/claims"
)

// wall is how long a build took, and what its work would have taken at the speed
// that its drone measured, in ms.
type wall struct {
	took, computed float64
	ended          int64
	peer           string
}

const (
	slowerOwn, slowerUnsure = 0.05, 0.15
	leastSlope, mostSlope   = 0.1, 20.
	wallsSampled            = 40   // for their slope
	driftUnsure             = 0.35 // before any build tells, and what that counts as
	driftPrior              = 2
	pacePrior               = 2    // builds that a drone's pace is thought to be that of all
	driftEach, driftLeast   = 2, 4 // the newest builds of each drone, at the least so many in all, show how it is now
	apart                   = 1.2  // times as long, for a pair to have one
	enoughPairs             = 10
	longBuild               = 8   // times its set-up
	overdueBy               = 0.5 // deviations that an overdue build takes longer yet, about
)

// learnMachines learns what builds take besides their work: each the same for its
// set-up and what no core makes faster, and all together a factor, where somebody
// else uses the machines or builds do not use all cores.
//
// Who else uses a machine changes: as far as the newest builds took longer or less
// than all did, that goes on, and may as well change again.
func (m *model) learnMachines(walls []wall) {
	slices.SortFunc(walls, func(a, b wall) int { return cmp.Compare(a.computed, b.computed) })
	m.setup = setupOf(walls)
	// A build counts by its length, and where there are long ones those alone: the
	// short ones tell more of how their set-ups differ.
	all := slices.Clone(walls)
	if from := slices.IndexFunc(walls, func(w wall) bool { return w.computed >= longBuild*float64(m.setup) }); from >= 0 && len(walls)-from >= tallyPrior {
		walls = walls[from:]
	}
	var slower tally
	sum, square := 0.0, 0.0
	for _, w := range walls {
		sum += w.computed
		square += w.computed * w.computed
	}
	for _, w := range walls {
		slower.addAs(max(w.took/4, w.took-float64(m.setup)), w.computed, w.computed*sum/square)
	}
	m.slower = slower.wrong(slowerOwn, slowerUnsure)
	m.tried = slower.n > 0
	m.each = eachPace(all, m.setup, m.slower.bias)
	m.driftBias, m.drift = m.driftOf(all)
}

// eachPace is how much longer the builds of each drone take than those of all, as a
// factor: it measured its speed while somebody else used it, or nobody.
func eachPace(walls []wall, setup int64, slower float64) map[string]float64 {
	by := map[string]*tally{}
	for _, w := range walls {
		if by[w.peer] == nil {
			by[w.peer] = &tally{}
		}
		by[w.peer].add(w.took, float64(setup)+w.computed*math.Exp(slower))
	}
	out := make(map[string]float64, len(by))
	for id, t := range by {
		out[id] = math.Exp(t.sum / (t.n + pacePrior))
	}
	return out
}

// paceOf is that of one drone, 1 where nothing is known of it.
func (m *model) paceOf(peer string) float64 {
	if f, ok := m.each[peer]; ok {
		return f
	}
	return 1
}

// drift is how the newest builds differ from all, and by how much that may change
// again; in logarithms.
func (m *model) driftOf(walls []wall) (bias, dev float64) {
	n := float64(len(walls))
	expect := driftPrior * driftUnsure * driftUnsure / (driftPrior + n)
	newest := max(driftLeast, driftEach*len(m.each))
	if len(walls) < 2*newest {
		return 0, math.Sqrt(expect)
	}
	slices.SortStableFunc(walls, func(a, b wall) int { return cmp.Compare(a.ended, b.ended) })
	// Block means tell how much the pace changes; what of that is chance follows from
	// how the builds of a block differ.
	var blocks, within tally
	var last tally
	for to := len(walls); to >= newest; to -= newest {
		var t tally
		for _, w := range walls[to-newest : to] {
			t.add(w.took, (float64(m.setup)+w.computed*math.Exp(m.slower.bias))*m.paceOf(w.peer))
		}
		if to == len(walls) {
			last = t
		}
		blocks.note(t.sum / t.n)
		within.note((t.square - t.sum*t.sum/t.n) / max(1, t.n-1))
	}
	noise := max(0, within.sum/within.n) / float64(newest)
	change := max(0, (blocks.square-blocks.sum*blocks.sum/blocks.n)/max(1, blocks.n-1)-noise)
	return last.sum / last.n * change / (change + noise + 1e-9), math.Sqrt(expect + change)
}

// setupOf is where a line through all builds, sorted by their work, says that a
// build without work stands: that of the median slope (Theil 1950, Sen 1968),
// which no outlier moves.
func setupOf(walls []wall) int64 {
	var slopes []float64
	step := max(1, len(walls)/wallsSampled)
	for i := 0; i < len(walls); i += step {
		for k := i + step; k < len(walls); k += step {
			if a, b := walls[i], walls[k]; b.computed > apart*a.computed {
				slopes = append(slopes, (b.took-a.took)/(b.computed-a.computed))
			}
		}
	}
	if len(slopes) < enoughPairs {
		return 0
	}
	slices.Sort(slopes)
	slope := max(leastSlope, min(mostSlope, slopes[len(slopes)/2]))
	over := make([]float64, len(walls))
	for i, w := range walls {
		over[i] = w.took - slope*w.computed
	}
	slices.Sort(over)
	return max(0, int64(over[len(over)/2]))
}

// overdue learns from builds that run and should be over: machines are slower
// than they measured themselves, or these builds cost more than was expected. Each
// counts as little as its estimate is unsure.
func (m *model) overdue() {
	type late struct{ x, variance float64 }
	var list []late
	prior := m.slower.unsure * m.slower.unsure
	for i := range m.jobs {
		info := &m.jobs[i]
		s, took := m.speed[info.Holder], float64(info.Beat.InvestedMS-m.setup)
		if info.State != claims.JobBuilding || unknown(info) || s <= 0 || took <= 0 {
			continue
		}
		e, expect := m.errs[1], float64(info.Work)
		if !info.Estimate.Measured {
			e, expect = m.errs[0], expect*m.curse.factor(info)
		}
		d := m.spread(info)
		l := late{x: math.Log(took*s/max(1, expect)) - e.bias, variance: d*d + e.unsure*e.unsure + m.slower.own*m.slower.own}
		if l.x <= m.slower.bias {
			continue
		}
		l.x += overdueBy * math.Sqrt(l.variance)
		if !m.tried {
			prior = max(prior, l.x*l.x-l.variance) // as in tally.wrong
		}
		list = append(list, l)
	}
	mean, sure := m.slower.bias/prior, 1/prior
	for _, l := range list {
		mean += l.x / l.variance
		sure += 1 / l.variance
	}
	m.slower.bias, m.slower.unsure = mean/sure, math.Sqrt(1/sure)
}
