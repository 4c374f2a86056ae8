package plan

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Forecast schedules everything that is not done and returns when each job
// ends, in milliseconds from now. jobs are in an order in which they can be
// built (claims.Replica.Survey). Jobs that nobody fits, or that are blocked,
// are missing from it, and so is what waits for them.
func Forecast(jobs []claims.JobInfo, peers []claims.Peer) map[build.Key]Assignment {
	f := newForecast(jobs, peers)
	out := make(map[build.Key]Assignment, len(jobs))
	f.run(remaining, func(i int32) int64 { return jobs[i].Work }, nil, 0, func(i int32, a Assignment) { out[jobs[i].Job.Key] = a })
	return out
}

// forecast is what all schedules of one set of jobs have in common.
type forecast struct {
	s      Scheduler
	jobs   []claims.JobInfo
	peers  []claims.Peer
	g      graph
	held   []int32 // jobs that a drone has
	todo   []int32 // jobs to place, in the order of the schedule
	finish []int64 // of what is scheduled; 0 = it is not
}

func newForecast(jobs []claims.JobInfo, peers []claims.Peer) *forecast {
	f := &forecast{jobs: jobs, peers: peers, g: graphOf(jobs), finish: make([]int64, len(jobs))}
	for i := range jobs {
		switch jobs[i].State {
		case claims.JobBuilding, claims.JobClaimed:
			f.held = append(f.held, int32(i))
		case claims.JobReady, claims.JobWaiting, claims.JobAway:
			f.todo = append(f.todo, int32(i))
		}
	}
	// As Replica.Ready orders them. A dependency is at least as urgent as what
	// waits for it, its rank is no lower, and it comes earlier in the list.
	g := &f.g
	slices.SortFunc(f.todo, func(a, b int32) int {
		return cmp.Or(cmp.Compare(g.prio[a], g.prio[b]), cmp.Compare(g.rank[b], g.rank[a]), cmp.Compare(a, b))
	})
	return f
}

// run computes one schedule: left is how long a build that is under way still
// takes, work what one that is not will cost, setup the time that each takes
// besides, in ms, and pace a factor of what they take on a drone; nil = none.
func (f *forecast) run(left func(*claims.BeatJob) int64, work func(i int32) int64, pace func(peer string) float64, setup int64, each func(i int32, a Assignment)) {
	f.s.loadWith(f.peers, left)
	if pace != nil {
		for i := range f.s.drones {
			f.s.drones[i].pace = int64(1000 * pace(f.s.drones[i].id))
		}
	}
	clear(f.finish)
	for _, i := range f.held {
		info := &f.jobs[i]
		f.finish[i] = max(1, left(&info.Beat))
		each(i, Assignment{Key: info.Job.Key, Peer: info.Holder, Finish: f.finish[i]})
	}
	var v View
	for _, i := range f.todo {
		notBefore, known := f.g.start(i, f.finish)
		if !known {
			continue
		}
		info := &f.jobs[i]
		t := f.s.taskOf(info.Job, info.For, work(i), info.MemoryMiB, info.DiskMiB)
		t.setup = setup
		t.costs, t.work = t.work, max(1, info.Work)
		if a, ok := f.s.place(&v, &t, notBefore); ok {
			f.finish[i] = a.Finish
			each(i, a)
		}
	}
}

// graph is the unfinished jobs by their place in the list: with 20,000 of them,
// looking keys up again and again is most of the work.
type graph struct {
	waits [][]int32 // for what each job waits; unlisted for a job not in the list
	rank  []int64   // own work and the longest chain of work behind it
	prio  []build.Priority
}

// unlisted stands for a job that is not in the list: nobody will build it.
const unlisted = -1

func graphOf(jobs []claims.JobInfo) graph {
	g := graph{waits: make([][]int32, len(jobs)), rank: make([]int64, len(jobs)), prio: make([]build.Priority, len(jobs))}
	index := make(map[build.Key]int32, len(jobs))
	edges := 0
	for i := range jobs {
		index[jobs[i].Job.Key] = int32(i)
		edges += len(jobs[i].WaitsFor)
	}
	all := make([]int32, 0, edges)
	for i := range jobs {
		from := len(all)
		for _, dep := range jobs[i].WaitsFor {
			n, ok := index[dep]
			if !ok {
				n = unlisted
			}
			all = append(all, n)
		}
		g.waits[i] = all[from:len(all):len(all)]
		g.prio[i] = jobs[i].Priority
	}
	// Whatever waits for a job comes later in the list, so that it has pushed
	// its rank and its urgency down here when the job's turn comes.
	for i := len(jobs) - 1; i >= 0; i-- {
		if jobs[i].State.Done() {
			continue
		}
		g.rank[i] += max(0, jobs[i].Work)
		for _, dep := range g.waits[i] {
			if dep != unlisted {
				g.rank[dep] = max(g.rank[dep], g.rank[i])
				g.prio[dep] = min(g.prio[dep], g.prio[i])
			}
		}
	}
	return g
}

// start is when the last of what job i waits for ends; known is false when
// that cannot be said.
func (g *graph) start(i int32, finish []int64) (at int64, known bool) {
	for _, dep := range g.waits[i] {
		if dep == unlisted || finish[dep] == 0 {
			return 0, false
		}
		at = max(at, finish[dep])
	}
	return at, true
}
