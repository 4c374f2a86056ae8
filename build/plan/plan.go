package plan

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

const (
	// DefaultWork is the estimate of a job that nobody has built, in
	// core-milliseconds: the median of the packages of a desktop.
	DefaultWork = 480_000
	// defaultSpeed is a drone that has not measured itself: one core.
	defaultSpeed = 1000
	// waitPercent is by how much waiting for a busy drone must win.
	waitPercent = 10
	// passBeats is for how many Beats a drone is passed over.
	passBeats = 10
)

// View is what a schedule is computed from. Jobs are in an order in which they
// can be built (claims.Replica.Survey).
type View struct {
	Jobs  []claims.JobInfo
	Peers []claims.Peer
	// Work estimates a job in core-milliseconds; nil means Estimate.
	Work func(*build.Job) int64
	// Excluded says that a drone will not take a job now: it declined, it
	// failed it before, or it was passed over.
	Excluded func(k build.Key, peer string) bool
}

// Estimate is the job's own estimate, or the prior.
func Estimate(j *build.Job) int64 {
	if j.CoreMillis > 0 {
		return j.CoreMillis
	}
	return DefaultWork
}

// drone is one peer with the time at which each of its slots is free.
type drone struct {
	id    string
	beat  *claims.Beat
	speed int64   // core-milliseconds per second
	free  []int64 // milliseconds from now, per slot, sorted
	until int64   // expected availability in ms; 0 = steady
}

// millis is how long this drone needs for work.
func (d *drone) millis(work int64) int64 { return work*1000/d.speed + 1 }

// Assignment gives a job to a drone.
type Assignment struct {
	Key    build.Key
	Peer   string
	Start  int64 // milliseconds from now
	Finish int64
}

// Next returns the job that self should claim now: the first that the schedule
// of all ready jobs gives to it on a slot that is free. ok is false if none.
// The whole list of assignments considered is returned as well, for Memory.
func Next(v View, self string) (k build.Key, ok bool, all []Assignment) {
	drones := v.drones()
	me := slices.IndexFunc(drones, func(d drone) bool { return d.id == self })
	if me < 0 || !drones[me].beat.Accepting || len(drones[me].free) == 0 || drones[me].free[0] > 0 {
		return "", false, nil
	}
	ready := v.ready()
	limit := 4*len(drones) + 64
	if len(ready) > limit {
		ready = ready[:limit]
	}
	for _, j := range ready {
		a, found := v.place(drones, j, 0)
		if !found {
			continue
		}
		all = append(all, a)
		if a.Peer == self && a.Start == 0 && !ok {
			k, ok = a.Key, true
		}
	}
	return k, ok, all
}

// drones lists the live peers that build, with what occupies them.
func (v *View) drones() []drone {
	var out []drone
	for i := range v.Peers {
		p := &v.Peers[i]
		if !p.Live || p.Beat.Slots == 0 || !p.Beat.Accepting && len(p.Beat.Jobs) == 0 {
			continue
		}
		d := drone{id: p.ID, beat: &p.Beat, speed: max(1, cmp.Or(p.Beat.Speed, int64(defaultSpeed))/int64(p.Beat.Slots))}
		if !p.Beat.Steady && p.Beat.UntilS > 0 {
			d.until = p.Beat.UntilS * 1000
		}
		d.free = make([]int64, p.Beat.Slots)
		for n, b := range p.Beat.Jobs {
			left := b.LeftMS
			if left == 0 {
				left = b.InvestedMS/4 + 1000 // overdue, or not estimated yet
			}
			if n < len(d.free) {
				d.free[n] = max(1, left-p.AgeMS)
			}
		}
		slices.Sort(d.free)
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b drone) int { return cmp.Compare(a.id, b.id) })
	return out
}

// item is a job in the order of the schedule.
type item struct {
	info *claims.JobInfo
	rank int64
	work int64
}

func (v *View) work(j *build.Job) int64 {
	if v.Work != nil {
		return max(1, v.Work(j))
	}
	return Estimate(j)
}

// ranks computes each unfinished job's upward rank: its own work and the
// longest chain of work behind it.
func (v *View) ranks() map[build.Key]int64 {
	rank := make(map[build.Key]int64, len(v.Jobs))
	for i := len(v.Jobs) - 1; i >= 0; i-- {
		info := &v.Jobs[i]
		if info.State.Done() {
			continue
		}
		// Everything that waits for it comes later in the list and has
		// already pushed its rank down here.
		r := rank[info.Job.Key] + v.work(info.Job)
		rank[info.Job.Key] = r
		for _, dep := range info.Job.Before() {
			rank[dep] = max(rank[dep], r)
		}
	}
	return rank
}

func (v *View) ready() []item {
	rank := v.ranks()
	var out []item
	for i := range v.Jobs {
		if info := &v.Jobs[i]; info.State == claims.JobReady {
			out = append(out, item{info, rank[info.Job.Key], v.work(info.Job)})
		}
	}
	sortItems(out)
	return out
}

func sortItems(items []item) {
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.info.Priority, b.info.Priority), cmp.Compare(b.rank, a.rank), cmp.Compare(a.info.Job.Key, b.info.Job.Key))
	})
}

// place gives a job to the drone that finishes it first, not before notBefore,
// and occupies that drone's slot. A drone that is busy must win by waitPercent
// against the best that is idle; an unsteady drone whose time runs out does not
// fit while a steady one would finish within twice as long.
func (v *View) place(drones []drone, j item, notBefore int64) (Assignment, bool) {
	type choice struct {
		d             int
		start, finish int64
	}
	var idle, busy, late choice
	idle.d, busy.d, late.d = -1, -1, -1
	k := j.info.Job.Key
	better := func(c choice, than choice) bool {
		if than.d < 0 || c.finish != than.finish {
			return than.d < 0 || c.finish < than.finish
		}
		return claims.Rendezvous(string(k), drones[c.d].id) > claims.Rendezvous(string(k), drones[than.d].id)
	}
	for i := range drones {
		d := &drones[i]
		if ok, _ := claims.Fits(d.beat, j.info.Job); !ok || !d.beat.Accepting {
			continue
		}
		if v.Excluded != nil && v.Excluded(k, d.id) {
			continue
		}
		start := max(d.free[0], notBefore)
		c := choice{i, start, start + d.millis(j.work)}
		switch {
		case d.until > 0 && c.finish > d.until:
			if better(c, late) {
				late = c
			}
		case start <= notBefore:
			if better(c, idle) {
				idle = c
			}
		default:
			if better(c, busy) {
				busy = c
			}
		}
	}
	best := idle
	if busy.d >= 0 && (idle.d < 0 || (busy.finish-notBefore)*(100+waitPercent) < (idle.finish-notBefore)*100) {
		best = busy
	}
	if late.d >= 0 && (best.d < 0 || best.finish-notBefore > 2*(late.finish-notBefore)) {
		best = late
	}
	if best.d < 0 {
		return Assignment{}, false
	}
	d := &drones[best.d]
	d.free[0] = best.finish
	slices.Sort(d.free)
	return Assignment{Key: k, Peer: d.id, Start: best.start, Finish: best.finish}, true
}

// Forecast schedules everything that is not done and returns when each job
// ends, in milliseconds from now. Jobs that nobody fits, or that are blocked,
// are missing from it.
func Forecast(v View) map[build.Key]Assignment {
	drones := v.drones()
	rank := v.ranks()
	out := make(map[build.Key]Assignment, len(v.Jobs))
	var items []item
	for i := range v.Jobs {
		info := &v.Jobs[i]
		k := info.Job.Key
		switch info.State {
		case claims.JobBuilding, claims.JobClaimed:
			left := info.Beat.LeftMS
			if left == 0 {
				left = info.Beat.InvestedMS/4 + 1000
			}
			out[k] = Assignment{Key: k, Peer: info.Holder, Finish: left}
		case claims.JobReady, claims.JobWaiting, claims.JobAway:
			items = append(items, item{info, rank[k], v.work(info.Job)})
		}
	}
	// A dependency has a greater rank than what waits for it, in one class.
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(b.rank, a.rank) })
	for _, it := range items {
		notBefore, known := int64(0), true
		for _, dep := range it.info.WaitsFor {
			a, ok := out[dep]
			known = known && ok
			notBefore = max(notBefore, a.Finish)
		}
		if !known {
			continue
		}
		if a, ok := v.place(drones, it, notBefore); ok {
			out[it.info.Job.Key] = a
		}
	}
	return out
}
