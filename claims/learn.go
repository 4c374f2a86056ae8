package claims

import (
	"slices"

	"github.com/build-swarm/swarm/build"
)

// DefaultWork is the estimate of a job that nobody has built, in
// core-milliseconds: the median of the packages of a desktop.
const DefaultWork = 480_000

// history is what earlier builds of one package, in any version, came to. It
// is a function of the outcomes on the board, so every peer learns the same.
type history struct {
	core []int64 // core-milliseconds, sorted
	peak []int64 // MiB, sorted
}

func (x *index) learn(o build.Outcome) {
	h := x.learned[o.CPV.CP()]
	if h == nil {
		h = &history{}
		x.learned[o.CPV.CP()] = h
	}
	insert := func(list []int64, v int64) []int64 {
		n, _ := slices.BinarySearch(list, v)
		return slices.Insert(list, n, v)
	}
	if o.CoreMillis > 0 {
		h.core = insert(h.core, o.CoreMillis)
		x.relearn = true
	}
	if o.PeakMiB > 0 {
		h.peak = insert(h.peak, o.PeakMiB)
	}
}

// Work estimates a job in core-milliseconds.
func (r *Replica) Work(j *build.Job) int64 { return r.idx.estimate(j) }

// estimate of a job's work: the median of what was measured, else what its
// planner said, else the prior.
func (x *index) estimate(j *build.Job) int64 {
	if h := x.learned[j.CPV.CP()]; h != nil && len(h.core) > 0 {
		return max(1, h.core[len(h.core)/2])
	}
	if j.CoreMillis > 0 {
		return j.CoreMillis
	}
	return DefaultWork
}

// memory that a job is expected to want: the greatest peak that was measured,
// or what its planner said; 0 = unknown.
func (x *index) memory(j *build.Job) int64 {
	if h := x.learned[j.CPV.CP()]; h != nil && len(h.peak) > 0 {
		return max(j.MemoryMiB, h.peak[len(h.peak)-1])
	}
	return j.MemoryMiB
}

// Memory is what a build of a job is expected to want, in MiB; 0 = unknown.
func (r *Replica) Memory(j *build.Job) int64 { return r.idx.memory(j) }
