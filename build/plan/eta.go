package plan

import (
	"math"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Range is when something ends, in milliseconds from now: of ten such forecasts
// one ends before Low, five before Median, and one after High.
type Range struct{ Low, Median, High int64 }

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
// built so far. A drone is chosen by what is expected of a job and not by what is
// drawn, or the schedule would know of the giants before anybody does.
//
// It decides nothing, so it may use floats. The draws follow from the keys, so
// that the same board gives the same range, and the range does not jump about
// while nothing happens.
func Ends(jobs []claims.JobInfo, peers []claims.Peer) map[string]Range {
	f := newForecast(jobs, peers)
	n := min(mostDraws, max(leastDraws, drawCost/max(1, len(jobs)*len(peers))))
	m := newModel(jobs, peers, n)
	rounds := map[string][]float64{}
	for draw := range n {
		end := map[string]int64{}
		m.begin(draw)
		f.run(m.left, m.work, m.paceOf, int64(float64(m.setup)*m.pace), func(i int32, a Assignment) {
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

// rangeOf takes the ends for lognormal.
func rangeOf(logs []float64) Range {
	mean, dev := meanOf(logs)
	return Range{Low: int64(math.Exp(mean - endReach*dev)), Median: int64(math.Exp(mean)), High: int64(math.Exp(mean + endReach*dev))}
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

// endReach is how many deviations of the drawn ends the range reaches. That of a
// normal distribution is 1.28; this holds 82 of 100 simulated looks (doc.go).
const endReach = 1.1

// model says how the cost of builds lies about what is expected of it.
type model struct {
	jobs             []claims.JobInfo
	at               map[build.Key]int32
	errs             [2]wrong // of planned and of measured estimates
	curse            curse
	slower           wrong              // of builds against the cores' measured speed
	speed            map[string]float64 // of each drone's slots, core-ms per ms
	each             map[string]float64 // how much longer the builds of each drone take than those of all
	tried            bool               // builds have ended, so that the machines' pace is known
	setup            int64              // ms that each build takes whatever it costs
	drift, driftBias float64            // by how much all of it changes, in logarithms
	pace             float64            // that, in this draw
	factor           [3]float64         // of the common errors, in this draw; the last of what nothing is known of

	draw   int         // which one it is
	shares [][]float64 // of each job, per draw
	drawn  []estimated // as far as it was needed
	common [4][]float64
	crowd  crowd
}

// wrong is how a kind of estimate is wrong, in logarithms: all together by
// bias, which is known up to unsure, and each by itself with a deviation.
type wrong struct{ bias, unsure, own float64 }

// tally fits that to what was seen, with a prior that weighs as much as
// tallyPrior builds.
type tally struct{ n, sum, square float64 }

const tallyPrior = 4

func (t *tally) add(truth, expected float64) { t.addAs(truth, expected, 1) }

// addAs counts what was seen as so many builds.
func (t *tally) addAs(truth, expected, n float64) {
	if truth <= 0 || expected <= 0 {
		return
	}
	x := math.Log(truth / expected)
	t.n += n
	t.sum += n * x
	t.square += n * x * x
}

// note adds a figure as it is.
func (t *tally) note(x float64) {
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
		// What is seen may be far from what was thought possible: then it was
		// thought too small (empirical Bayes).
		unsure = math.Sqrt(max(unsure*unsure, mean*mean-noise))
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
)

func newModel(jobs []claims.JobInfo, peers []claims.Peer, draws int) *model {
	m := &model{jobs: jobs, at: make(map[build.Key]int32, len(jobs)), speed: make(map[string]float64, len(peers)), shares: make([][]float64, len(jobs)), drawn: make([]estimated, len(jobs))}
	order, all := make([]int, draws), make([]float64, len(jobs)*draws)
	for i := range jobs {
		if !jobs[i].State.Done() {
			m.shares[i] = all[i*draws : (i+1)*draws : (i+1)*draws]
			stratify(m.shares[i], hashKey(jobs[i].Job.Key), order)
		}
	}
	for k := range m.common {
		m.common[k] = make([]float64, draws)
		stratify(m.common[k], uint64(k), order)
	}
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
	var walls []wall
	for i := range jobs {
		info := &jobs[i]
		m.at[info.Job.Key] = int32(i)
		if !info.State.Done() || info.Good == nil || info.Good.CoreMillis <= 0 {
			continue
		}
		raw.add(float64(info.Good.CoreMillis), guessOf(info))
		if s := m.speed[info.Good.Peer]; s > 0 && info.Good.Millis > 0 {
			walls = append(walls, wall{took: float64(info.Good.Millis), computed: float64(info.Good.CoreMillis) / s, peer: info.Good.Peer, ended: hlc.Time(info.Good.Started).Millis() + info.Good.Millis})
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
	m.learnMachines(walls)
	m.overdue()
	m.crowd = m.newCrowd()
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
// most others are smaller, the truth is smaller. That others lie there also makes
// it surer.
type curse struct {
	least float64
	log   []float64 // correction per bin
	dev   []float64 // factor of the deviation per bin
}

const (
	curseBin   = 0.1 // of the logarithm
	curseWidth = 0.5 // of the kernel that smooths the density
	curseSure  = 0.4 // of the variance is left at the least
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
	c.log, c.dev = make([]float64, len(count)), make([]float64, len(count))
	for i := range count {
		var density, slope, bend float64
		for j, n := range count {
			d := float64(j-i) * curseBin / curseWidth
			w := n * math.Exp(-d*d/2)
			density += w
			slope += w * d / curseWidth
			bend += w * (d*d - 1) / (curseWidth * curseWidth)
		}
		slope, bend = slope/density, bend/density // the bin's own neighbours make the density more than 0
		c.log[i] = own * own * slope
		c.dev[i] = math.Sqrt(max(curseSure, min(1, 1+own*own*(bend-slope*slope))))
	}
	return c
}

// bin of a job's guess; ok is false where there is none.
func (c *curse) bin(info *claims.JobInfo) (i int, ok bool) {
	if info.Job.CoreMillis <= 0 || len(c.log) == 0 {
		return 0, false
	}
	i = int((math.Log(float64(info.Job.CoreMillis)) - c.least) / curseBin)
	return min(max(0, i), len(c.log)-1), true
}

// factor by which a guess is to be corrected.
func (c *curse) factor(info *claims.JobInfo) float64 {
	if i, ok := c.bin(info); ok {
		return math.Exp(c.log[i])
	}
	return 1
}

// sure is the factor of a guess's deviation.
func (c *curse) sure(info *claims.JobInfo) float64 {
	if i, ok := c.bin(info); ok {
		return c.dev[i]
	}
	return 1
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

func (m *model) begin(n int) {
	m.draw = n
	m.pace = math.Exp(m.driftBias + m.drift*normalAt(m.common[3][n]))
	common := m.slower.bias + m.slower.unsure*normalAt(m.common[2][n])
	common += math.Log(m.pace)
	m.factor[2] = math.Exp(common)
	for k, e := range m.errs {
		m.factor[k] = math.Exp(common + e.bias + e.unsure*normalAt(m.common[k][n]))
	}
	m.crowd.draw(n)
}

// spread is the deviation of the logarithm of a job's cost.
func (m *model) spread(info *claims.JobInfo) float64 {
	if info.Estimate.Measured {
		return info.Estimate.Deviation()
	}
	return m.errs[0].own * m.curse.sure(info)
}

// estimated is what is the same of a job in all draws: what it is expected to
// cost, how unsure that is, and which common error it has.
type estimated struct {
	work, dev float64
	kind      int
}

// work draws what a job costs in all, in core-milliseconds.
func (m *model) work(i int32) int64 {
	info, u := &m.jobs[i], m.shares[i][m.draw]
	if unknown(info) {
		return max(1, int64(m.crowd.quantile(u)*m.factor[2]))
	}
	e := &m.drawn[i]
	if e.dev == 0 {
		*e = estimated{float64(info.Work), math.Hypot(m.spread(info), m.slower.own), 1}
		if !info.Estimate.Measured {
			e.work, e.kind = e.work*m.curse.factor(info), 0
		}
	}
	return max(1, int64(e.work*m.factor[e.kind]*math.Exp(e.dev*normalAt(u))))
}

// left draws how long a build that is under way still takes. One that has gone
// on for some time is none of those that would be over by now, so the draw is
// from the tail of the distribution.
func (m *model) left(j *claims.BeatJob) int64 {
	i, ok := m.at[j.Key]
	if !ok || j.LeftMS <= 0 || m.shares[i] == nil {
		return remaining(j)
	}
	info, u := &m.jobs[i], m.shares[i][m.draw]
	s, told := m.speed[info.Holder], j.Done > 0 && j.Done < 1000 && j.InvestedMS > 0
	if unknown(info) && !told && s > 0 {
		// Any package of a desktop that takes longer than this one has taken.
		worked := float64(j.InvestedMS-m.setup) * s / m.factor[2]
		return max(1, int64(m.crowd.beyond(worked, u)*m.factor[2]/s)+m.setup-j.InvestedMS)
	}
	// What its drone expects of the whole build. Of one that is overdue it says a
	// quarter more at once (claims.Left), since a schedule needs one figure; here
	// the tail of the distribution tells, about what was expected at first.
	whole := float64(j.InvestedMS + j.LeftMS)
	if s > 0 {
		first := float64(info.Work)/s + float64(m.setup)
		switch {
		case told:
			whole = first // what the log tells is in LeftMS, and counts below
		case float64(j.InvestedMS) >= first:
			whole = min(whole, first)
		}
	}
	// The set-up is no part of what the estimate is wrong by.
	setup := min(whole, float64(m.setup))
	whole = (setup*m.pace + (whole-setup)*m.factorOf(info)) * m.paceOf(info.Holder)
	d := math.Hypot(m.spread(info), m.slower.own)
	if told {
		// Two words on the logarithm of the whole: the estimate's and the log's. Of
		// a package of which nothing is known the log's alone.
		far := claims.DoneDeviation(j.Done, info.Estimate.Measured)
		weight := d * d / (d*d + far*far)
		if unknown(info) {
			weight = 1
		}
		whole = math.Exp((1-weight)*math.Log(max(1, whole)) + weight*math.Log(float64(j.InvestedMS)*1000/float64(j.Done)))
		d = far * math.Sqrt(weight)
	}
	if d < 0.01 {
		return max(1, int64(whole)-j.InvestedMS)
	}
	over := 0.0 // the share of builds that would be over
	if j.InvestedMS > 0 {
		over = normalShare(math.Log(float64(j.InvestedMS)/whole) / d)
	}
	u = over + (1-over)*u
	return max(1, int64(whole*math.Exp(d*normalAt(min(u, 1-1e-9))))-j.InvestedMS)
}

// stratify draws as many numbers between 0 and 1 as out has room for, one of each
// nth part and in an order that follows from the key (a Latin hypercube, McKay et
// al. 1979): one build that decides the end has all of its distribution in 32
// draws, where independent ones would be a tenth wider or narrower than it, and the
// same at every look. order is scratch of the same length.
func stratify(out []float64, key uint64, order []int) {
	for i := range out {
		out[i], order[i] = uniform(key, uint64(i)), i
		for k := i; k > 0 && out[order[k]] < out[order[k-1]]; k-- { // few: insertion is quickest
			order[k], order[k-1] = order[k-1], order[k]
		}
	}
	for rank, i := range order {
		out[i] = (float64(rank) + uniform(^key, uint64(i))) / float64(len(out))
	}
}

func uniform(key, number uint64) float64 {
	h := mix(mix(key, 0x9e3779b97f4a7c15), (number+1)*0xbf58476d1ce4e5b9)
	return (float64(h>>11) + 0.5) / (1 << 53)
}

// normalAt is the quantile of a share, normalShare its inverse.
func normalAt(share float64) float64 { return math.Sqrt2 * math.Erfinv(2*share-1) }
func normalShare(z float64) float64  { return 0.5 * math.Erfc(-z/math.Sqrt2) }
