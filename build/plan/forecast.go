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
// are missing from it.
func Forecast(jobs []claims.JobInfo, peers []claims.Peer) map[build.Key]Assignment {
	var s Scheduler
	s.load(peers)
	out := make(map[build.Key]Assignment, len(jobs))
	rank := ranks(jobs)
	var todo []*claims.JobInfo
	for i := range jobs {
		info := &jobs[i]
		switch info.State {
		case claims.JobBuilding, claims.JobClaimed:
			out[info.Job.Key] = Assignment{Key: info.Job.Key, Peer: info.Holder, Finish: remaining(&info.Beat)}
		case claims.JobReady, claims.JobWaiting, claims.JobAway:
			todo = append(todo, info)
		}
	}
	// A dependency has a greater rank than what waits for it.
	slices.SortStableFunc(todo, func(a, b *claims.JobInfo) int { return cmp.Compare(rank[b.Job.Key], rank[a.Job.Key]) })
	var v View
	for _, info := range todo {
		notBefore, known := int64(0), true
		for _, dep := range info.WaitsFor {
			a, ok := out[dep]
			known = known && ok
			notBefore = max(notBefore, a.Finish)
		}
		if !known {
			continue
		}
		t := taskOf(info.Job, info.Work, info.Job.MemoryMiB)
		if a, ok := s.place(&v, &t, notBefore); ok {
			out[info.Job.Key] = a
		}
	}
	return out
}

// ranks computes each unfinished job's upward rank: its own work and the
// longest chain of work behind it.
func ranks(jobs []claims.JobInfo) map[build.Key]int64 {
	rank := make(map[build.Key]int64, len(jobs))
	for i := len(jobs) - 1; i >= 0; i-- {
		info := &jobs[i]
		if info.State.Done() {
			continue
		}
		// Everything that waits for it comes later in the list and has
		// already pushed its rank down here.
		r := rank[info.Job.Key] + info.Work
		rank[info.Job.Key] = r
		for _, dep := range info.Job.Before() {
			rank[dep] = max(rank[dep], r)
		}
	}
	return rank
}
