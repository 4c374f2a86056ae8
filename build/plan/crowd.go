package plan

import (
	"cmp"
	"math"
	"slices"

	"github.com/build-swarm/swarm/claims"
)

// unknown reports a job of which nothing at all is known: it may be any package
// of a desktop.
func unknown(info *claims.JobInfo) bool { return !info.Estimate.Measured && info.Job.CoreMillis <= 0 }

// crowd is what packages cost of which nothing is known: how the costs of those
// that turned out so far lie, with a prior. Most packages are small, and one in
// sixty is a giant that takes a hundred times as long.
//
// Of the small ones all that were begun tell, also those that still run: they
// take longer than they have taken (Kaplan and Meier 1958), or the short ones,
// which end first, would count too much. The giants do not follow from the small:
// most are leaves of the graph, browsers and office suites, and come last. So
// what is still to come of them is what a round of this size has, less those that
// were seen.
type crowd struct {
	points             []cost // small ones, by cost
	jobs, open, giants int    // all, those not known yet, and the giants among the others
	luck               []float64
	body, all          []cost // of this draw
}

// cost is a point of the distribution: of ln core-milliseconds.
type cost struct {
	x      float64
	weight float64
	key    uint64  // of the job; 0 = prior
	more   bool    // it still runs, and costs more than that
	upTo   float64 // the share of all that costs no more
}

const (
	crowdPrior  = 10.0 // jobs that the prior counts as much as
	crowdOwn    = 1.2  // deviation of the small ones
	crowdPoints = 60
	giantShare  = 1. / 60
	giantTimes  = 100. // the median of all
	giantOwn    = 0.7
	giantPoints = 12
	giantFrom   = 3 * crowdOwn // above the median; nothing small takes so long
	toldEnough  = 100          // permille; by then its steps tell what a build costs
)

func (m *model) newCrowd() crowd {
	median := math.Log(claims.DefaultWork)
	c := crowd{}
	for i := range m.jobs {
		info := &m.jobs[i]
		if info.Job.CoreMillis > 0 || info.Estimate.Measured && info.Others > 0 {
			continue
		}
		c.jobs++
		p := cost{weight: 1, key: hashKey(info.Job.Key)}
		worked := float64(info.Beat.InvestedMS-m.setup) * m.speed[info.Holder]
		switch {
		case info.State.Done() && info.Good != nil && info.Good.CoreMillis > 0:
			p.x = math.Log(float64(info.Good.CoreMillis))
		case info.State == claims.JobBuilding && worked > 0 && info.Beat.Done >= toldEnough:
			p.x = math.Log(worked * 1000 / float64(info.Beat.Done))
		case info.State == claims.JobBuilding && worked > 0:
			p.x, p.more = math.Log(worked), true
		default:
			c.open++
			continue
		}
		switch {
		case p.x > median+giantFrom:
			c.giants++
			continue
		case p.more:
			c.open++
		}
		c.points = append(c.points, p)
	}
	if c.jobs == 0 {
		return c
	}
	for i := range crowdPoints {
		c.points = append(c.points, cost{x: median + crowdOwn*normalAt((float64(i)+0.5)/crowdPoints), weight: crowdPrior / crowdPoints})
	}
	slices.SortStableFunc(c.points, func(a, b cost) int { return cmp.Compare(a.x, b.x) })
	c.luck = m.common[0]
	return c
}

// draw draws the distribution itself: how much each job that was seen tells of
// the others (the Bayesian bootstrap, Rubin 1981), and how many giants there are.
func (c *crowd) draw(n int) {
	if c.jobs == 0 {
		return
	}
	c.body, c.all = c.body[:0], c.all[:0]
	beyond := 0.0
	for _, p := range c.points {
		if p.key != 0 {
			p.weight = -math.Log(uniform(p.key, uint64(n)))
		}
		beyond += p.weight
		c.body = append(c.body, p)
	}
	// What runs is as likely to be any of those that cost more.
	times, sum, known := 1.0, 0.0, c.body[:0]
	for _, p := range c.body {
		beyond -= p.weight
		switch {
		case !p.more:
			p.weight *= times
			sum += p.weight
			known = append(known, p)
		case beyond > 0:
			times *= (beyond + p.weight) / beyond
		}
	}
	expect := float64(c.jobs) * giantShare
	share := max(0, expect+math.Sqrt(expect)*normalAt(c.luck[n])-float64(c.giants)) / float64(max(1, c.open))
	share = min(0.9, share)
	upTo, giant := 0.0, 0
	giants := func(below float64) {
		for ; giant < giantPoints; giant++ {
			x := math.Log(claims.DefaultWork*giantTimes) + giantOwn*normalAt((float64(giant)+0.5)/giantPoints)
			if x >= below {
				return
			}
			upTo += share / giantPoints
			c.all = append(c.all, cost{x: x, upTo: upTo})
		}
	}
	for _, p := range known {
		giants(p.x)
		upTo += p.weight / sum * (1 - share)
		c.all = append(c.all, cost{x: p.x, upTo: upTo})
	}
	giants(math.Inf(1))
}

// quantile of what a job costs, in core-milliseconds.
func (c *crowd) quantile(u float64) float64 {
	i, _ := slices.BinarySearchFunc(c.all, u, func(p cost, u float64) int { return cmp.Compare(p.upTo, u) })
	i = min(i, len(c.all)-1)
	b := c.all[i]
	if i == 0 {
		return math.Exp(b.x)
	}
	a := c.all[i-1]
	if b.upTo <= a.upTo {
		return math.Exp(b.x)
	}
	return math.Exp(a.x + (b.x-a.x)*min(1, (u-a.upTo)/(b.upTo-a.upTo)))
}

// beyond is quantile of those that cost more than so much already.
func (c *crowd) beyond(worked, u float64) float64 {
	if worked <= 1 {
		return c.quantile(u)
	}
	x := math.Log(worked)
	i, _ := slices.BinarySearchFunc(c.all, x, func(p cost, x float64) int { return cmp.Compare(p.x, x) })
	over := 0.0
	switch {
	case i == len(c.all):
		// More than any: half of what takes so long takes twice as long (Pareto).
		return worked / (1 - u)
	case i > 0:
		a, b := c.all[i-1], c.all[i]
		over = a.upTo
		if b.x > a.x {
			over += (b.upTo - a.upTo) * (x - a.x) / (b.x - a.x)
		}
	}
	return max(worked, c.quantile(over+(1-over)*u))
}
