package plan

import (
	"cmp"
	"math"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Range is when something ends, in milliseconds from now: of ten such forecasts
// one ends before Low and one after High.
type Range struct{ Low, High int64 }

// How many schedules Ends computes: as many as fit into drawCost job-drone
// pairs, so that a look at a large round stays quick.
const (
	leastDraws = 6
	mostDraws  = 32
	drawCost   = 4_000_000
)

// Ends forecasts when each round ends, by round ID. A round in which nothing
// can be built any more is missing.
//
// It draws what each job will cost from its estimate's distribution, schedules
// everything, and looks at how the ends of many such schedules lie (the Monte
// Carlo method of PERT, Van Slyke 1963). Two errors are drawn: each job's own,
// which cancel over hundreds of jobs, and one that all estimates have in common,
// which does not. How great they are is learned from what these rounds have
// built so far.
//
// It decides nothing, so it may use floats. The draws follow from the keys, so
// that the same board gives the same range, and the range does not jump about
// while nothing happens.
func Ends(jobs []claims.JobInfo, peers []claims.Peer) map[string]Range {
	f := newForecast(jobs, peers)
	m := newModel(jobs, peers)
	rounds := map[string][]float64{}
	n := min(mostDraws, max(leastDraws, drawCost/max(1, len(jobs)*len(peers))))
	for draw := range n {
		end := map[string]int64{}
		m.draw(draw)
		f.run(m.left, m.work, m.setup, func(i int32, a Assignment) {
			for _, id := range jobs[i].Rounds {
				end[id] = max(end[id], a.Finish)
			}
		})
		for id, at := range end {
			rounds[id] = append(rounds[id], math.Log(float64(max(1, at))))
		}
	}
	out := make(map[string]Range, len(rounds))
	for id, logs := range rounds {
		out[id] = rangeOf(logs)
	}
	return out
}

// rangeOf takes the ends for lognormal, and widens the range for how few there
// are.
func rangeOf(logs []float64) Range {
	mean, dev := meanOf(logs)
	z := normal90 * (1 + 1/float64(len(logs)))
	return Range{Low: int64(math.Exp(mean - z*dev)), High: int64(math.Exp(mean + z*dev))}
}

func meanOf(v []float64) (mean, dev float64) {
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	for _, x := range v {
		dev += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(dev / max(1, float64(len(v)-1)))
}

// normal90 is the 90th percentile of the normal distribution.
const normal90 = 1.2816

// model says how the cost of builds lies about what is expected of it.
type model struct {
	jobs   []claims.JobInfo
	at     map[build.Key]int32
	errs   [2]wrong // of planned and of measured estimates
	curse  curse
	slower wrong              // of builds against the cores' measured speed
	speed  map[string]float64 // of each drone's slots, core-ms per ms
	setup  int64              // ms that each build takes whatever it costs
	number uint64
	factor [3]float64 // of the common errors, in this draw; the last of what nothing is known of
}

// wrong is how a kind of estimate is wrong, in logarithms: all together by
// bias, which is known up to unsure, and each by itself with a deviation.
type wrong struct{ bias, unsure, own float64 }

// tally fits that to what was seen, with a prior that weighs as much as
// tallyPrior builds.
type tally struct{ n, sum, square float64 }

const tallyPrior = 4

func (t *tally) add(truth, expected float64) {
	if truth <= 0 || expected <= 0 {
		return
	}
	x := math.Log(truth / expected)
	t.n++
	t.sum += x
	t.square += x * x
}

func (t *tally) wrong(own, unsure float64) wrong {
	// The variance of the common error is a prior; n builds tell it apart from
	// their own errors as well as their mean does.
	e := wrong{own: own}
	if t.n > 0 {
		mean := t.sum / t.n
		e.own = math.Sqrt((max(0, t.square-t.n*mean*mean) + tallyPrior*own*own) / (t.n + tallyPrior))
		noise := e.own * e.own / t.n
		e.bias = mean * unsure * unsure / (unsure*unsure + noise)
		unsure = math.Sqrt(unsure * unsure * noise / (unsure*unsure + noise))
	}
	e.unsure = unsure
	return e
}

// Priors: the deviation of a planner's guesses, by how much they are wrong
// together, and the same of packages that were built before.
const (
	plannedOwn, plannedUnsure   = 0.6, 0.4
	unknownOwn                  = 1.2
	measuredOwn, measuredUnsure = 0.25, 0.1
	leastUnsure                 = 0.03 // no schedule comes out as it was forecast
	slowerOwn, slowerUnsure     = 0.1, 0.05
)

func newModel(jobs []claims.JobInfo, peers []claims.Peer) *model {
	m := &model{jobs: jobs, at: make(map[build.Key]int32, len(jobs)), speed: make(map[string]float64, len(peers))}
	for i := range peers {
		b := &peers[i].Beat
		m.speed[peers[i].ID] = float64(b.Speed) / float64(max(1, b.Slots)) / 1000
	}
	own := unknownOwn
	var guesses []float64 // logarithms
	for i := range jobs {
		if g := jobs[i].Job.CoreMillis; g > 0 {
			own = plannedOwn
			guesses = append(guesses, math.Log(float64(g)))
		}
	}
	var raw, planned tally
	type wall struct{ took, computed float64 } // ms
	var walls []wall
	for i := range jobs {
		info := &jobs[i]
		m.at[info.Job.Key] = int32(i)
		if !info.State.Done() || info.Good == nil || info.Good.CoreMillis <= 0 {
			continue
		}
		raw.add(float64(info.Good.CoreMillis), guessOf(info))
		if s := m.speed[info.Good.Peer]; s > 0 && info.Good.Millis > 0 {
			walls = append(walls, wall{float64(info.Good.Millis), float64(info.Good.CoreMillis) / s})
		}
	}
	own = raw.wrong(own, plannedUnsure).own
	m.curse = newCurse(guesses, own)
	for i := range jobs {
		if info := &jobs[i]; info.State.Done() && info.Good != nil {
			planned.add(float64(info.Good.CoreMillis), guessOf(info)*m.curse.factor(info))
		}
	}
	var measured tally
	for i := range jobs {
		if info := &jobs[i]; info.State.Done() && info.Good != nil {
			measured.add(float64(info.Good.CoreMillis), float64(info.Others))
		}
	}
	m.errs = [2]wrong{planned.wrong(own, plannedUnsure), measured.wrong(measuredOwn, measuredUnsure)}
	m.errs[1].unsure = max(m.errs[1].unsure, leastUnsure)
	// A build takes the time of its set-up and of what no core makes faster,
	// and that of its work: the small ones tell the first, all the second.
	slices.SortFunc(walls, func(a, b wall) int { return cmp.Compare(a.computed, b.computed) })
	if small := walls[:len(walls)/2]; len(small) >= tallyPrior {
		over := make([]float64, len(small))
		for i, w := range small {
			over[i] = w.took - w.computed
		}
		slices.Sort(over)
		m.setup = max(0, int64(over[len(over)/2]))
	}
	var slower tally
	for _, w := range walls {
		slower.add(w.took-float64(m.setup), w.computed)
	}
	m.slower = slower.wrong(slowerOwn, slowerUnsure)
	return m
}

// guessOf is what was expected of a job before anybody built the package.
func guessOf(info *claims.JobInfo) float64 {
	if info.Job.CoreMillis > 0 {
		return float64(info.Job.CoreMillis)
	}
	return claims.DefaultWork
}

// curse is the winner's: of guesses with errors the great ones are mostly too
// great, and it is the great ones that decide when a round ends. How much too
// great follows from how the guesses lie (Tweedie's formula, Efron 2011): where
// most others are smaller, the truth is smaller.
type curse struct {
	least float64
	log   []float64 // correction per bin
}

const (
	curseBin   = 0.1 // of the logarithm
	curseWidth = 0.5 // of the kernel that smooths the density
)

func newCurse(guesses []float64, own float64) (c curse) {
	if len(guesses) == 0 {
		return c
	}
	c.least = slices.Min(guesses)
	bin := func(x float64) int { return int((x - c.least) / curseBin) }
	count := make([]float64, bin(slices.Max(guesses))+1)
	for _, x := range guesses {
		count[bin(x)]++
	}
	c.log = make([]float64, len(count))
	for i := range count {
		var density, slope float64
		for j, n := range count {
			d := float64(j-i) * curseBin / curseWidth
			w := n * math.Exp(-d*d/2)
			density += w
			slope += w * d / curseWidth
		}
		if density > 0 {
			c.log[i] = own * own * slope / density
		}
	}
	return c
}

// factor by which a guess is to be corrected.
func (c *curse) factor(info *claims.JobInfo) float64 {
	if info.Job.CoreMillis <= 0 || len(c.log) == 0 {
		return 1
	}
	i := int((math.Log(float64(info.Job.CoreMillis)) - c.least) / curseBin)
	return math.Exp(c.log[min(max(0, i), len(c.log)-1)])
}

// factorOf is what an estimate is to be multiplied with in this draw, but for
// the job's own error.
func (m *model) factorOf(info *claims.JobInfo) float64 {
	switch {
	case info.Estimate.Measured:
		return m.factor[1]
	case unknown(info):
		return m.factor[2]
	}
	return m.factor[0] * m.curse.factor(info)
}

func (m *model) draw(n int) {
	m.number = uint64(n)
	common := m.slower.bias + m.slower.unsure*m.normal(2)
	m.factor[2] = math.Exp(common)
	for k, e := range m.errs {
		m.factor[k] = math.Exp(common + e.bias + e.unsure*m.normal(uint64(k)))
	}
}

// spread is the deviation of the logarithm of a job's cost.
func (m *model) spread(info *claims.JobInfo) float64 {
	switch {
	case info.Estimate.Measured:
		return info.Estimate.Deviation()
	case unknown(info):
		return unknownOwn
	}
	return m.errs[0].own
}

// unknown reports a job of which nothing at all is known: it may be any package
// of a desktop. Most are small, and one in sixty is a giant that takes fifty
// times the median, which no normal distribution of logarithms foresees. Nothing
// is learned of such jobs from those that are built already, either: the small
// ones end first.
func unknown(info *claims.JobInfo) bool { return !info.Estimate.Measured && info.Job.CoreMillis <= 0 }

// unknownWide makes of Student's distribution with two degrees of freedom one
// whose middle is that of a normal one; unknownMost cuts its ends.
const unknownWide, unknownMost = 2. / 3, 6.

// quantile of how many deviations the logarithm of a job's cost is off, share its
// inverse.
func quantile(info *claims.JobInfo, u float64) float64 {
	if !unknown(info) {
		return normalAt(u)
	}
	return max(-unknownMost, min(unknownMost, unknownWide*(2*u-1)/math.Sqrt(2*u*(1-u))))
}

func share(info *claims.JobInfo, z float64) float64 {
	if !unknown(info) {
		return normalShare(z)
	}
	z /= unknownWide
	return 0.5 + z/(2*math.Sqrt(2+z*z))
}

// work draws what a job costs in all, in core-milliseconds.
func (m *model) work(i int32) int64 {
	info := &m.jobs[i]
	z := quantile(info, uniform(hashKey(info.Job.Key), m.number))
	return max(1, int64(float64(info.Work)*m.factorOf(info)*math.Exp(m.spread(info)*z)))
}

// left draws how long a build that is under way still takes. One that has gone
// on for some time is none of those that would be over by now, so the draw is
// from the tail of the distribution.
func (m *model) left(j *claims.BeatJob) int64 {
	i, ok := m.at[j.Key]
	if !ok || j.LeftMS <= 0 {
		return remaining(j)
	}
	info := &m.jobs[i]
	// What its drone expects of the whole build. Of one that is overdue it says a
	// quarter more at once (claims.Left), since a schedule needs one figure; here
	// the tail of the distribution tells, about what was expected at first.
	whole := float64(j.InvestedMS + j.LeftMS)
	told := j.Done > 0 && j.Done < 1000 && j.InvestedMS > 0
	if s := m.speed[info.Holder]; s > 0 {
		first := float64(info.Work)/s + float64(m.setup)
		switch {
		case told:
			whole = first // what the log tells is in LeftMS, and counts below
		case float64(j.InvestedMS) >= first:
			whole = min(whole, first)
		}
	}
	whole *= m.factorOf(info)
	d := m.spread(info)
	if told {
		// Two words on the logarithm of the whole: the estimate's and the log's.
		far := claims.DoneDeviation(j.Done, info.Estimate.Measured)
		weight := d * d / (d*d + far*far)
		whole = math.Exp((1-weight)*math.Log(max(1, whole)) + weight*math.Log(float64(j.InvestedMS)*1000/float64(j.Done)))
		d *= math.Sqrt(1 - weight)
	}
	if d < 0.01 {
		return max(1, int64(whole)-j.InvestedMS)
	}
	over := 0.0 // the share of builds that would be over
	if j.InvestedMS > 0 {
		over = share(info, math.Log(float64(j.InvestedMS)/whole)/d)
	}
	u := over + (1-over)*uniform(hashKey(j.Key), m.number)
	return max(1, int64(whole*math.Exp(d*quantile(info, min(u, 1-1e-9))))-j.InvestedMS)
}

// normal draws from the normal distribution, the same for the same key and draw.
func (m *model) normal(key uint64) float64 { return normalAt(uniform(key, m.number)) }

func uniform(key, number uint64) float64 {
	h := mix(mix(key, 0x9e3779b97f4a7c15), (number+1)*0xbf58476d1ce4e5b9)
	return (float64(h>>11) + 0.5) / (1 << 53)
}

// normalAt is the quantile of a share, normalShare its inverse.
func normalAt(share float64) float64 { return math.Sqrt2 * math.Erfinv(2*share-1) }
func normalShare(z float64) float64  { return 0.5 * math.Erfc(-z/math.Sqrt2) }
