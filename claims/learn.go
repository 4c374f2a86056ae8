package claims

import (
	"cmp"
	"math"
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
	// disk is the most that a good build's work directory took, in MiB, and short
	// the most that is to be tried after one that failed for want of disk.
	disk, short int64
	// course is that of the build that began last of those that have one.
	course *build.Course
	began  uint64
	key    build.Key
}

func (x *index) learn(o build.Outcome) {
	h := x.learned[o.CPV.CP()]
	if h == nil {
		h = &history{}
		x.learned[o.CPV.CP()] = h
	}
	if o.Course != nil && o.Course.Valid() && cmp.Or(cmp.Compare(o.Started, h.began), cmp.Compare(o.Key, h.key)) >= 0 {
		h.course, h.began, h.key = o.Course, o.Started, o.Key
	}
	insert := func(list []int64, v int64) []int64 {
		n, _ := slices.BinarySearch(list, v)
		return slices.Insert(list, n, v)
	}
	if o.CoreMillis > 0 {
		h.core = insert(h.core, o.CoreMillis)
		x.deviation = 0
		x.relearn = true
	}
	if o.PeakMiB > 0 {
		h.peak = insert(h.peak, o.PeakMiB)
	}
	h.disk = max(h.disk, min(o.DiskMiB, maxDisk))
}

// learnShort takes in a build that failed for want of disk.
func (x *index) learnShort(o build.Outcome) {
	h := x.learned[o.CPV.CP()]
	if h == nil {
		h = &history{}
		x.learned[o.CPV.CP()] = h
	}
	h.short = max(h.short, min(o.ShortMiB, maxDisk))
}

// Estimate is what a job is expected to cost, in core-milliseconds: of ten such
// jobs one costs less than Low, and one more than High.
type Estimate struct {
	Low, Median, High int64
	// Measured says that it comes from builds of the package; else it is its
	// planner's word, or the prior.
	Measured bool
}

// How far the quantiles are from the median, in thousandths of it, by where the
// median comes from: a planner guesses by what its machine built before, or by the size of the source; of a package
// that nothing is known of, the whole distribution of packages is the prior
// (lognormal: 0.6 and 1.2 are the deviations of the logarithm).
const (
	plannedSpread = 2157
	priorSpread   = 4654
)

// Two builds of one package differ by its version, its flags and the machine.
// By how much is learned from all packages that were built more than once;
// until then this deviation counts, as much as so many builds.
const (
	againDeviation = 0.25
	againWeight    = 4
)

// quantile90 is the 90th percentile of the normal distribution.
const quantile90 = 1.2816

// enough measured builds give quantiles of their own.
const enough = 8

// Estimate of a job's work, by what is on the board.
func (r *Replica) Estimate(j *build.Job) Estimate { return r.idx.quantiles(j) }

func (x *index) quantiles(j *build.Job) Estimate {
	e := Estimate{Median: x.estimate(j)}
	spread := int64(priorSpread)
	h := x.learned[j.CPV.CP()]
	switch {
	case h != nil && len(h.core) >= enough:
		n := len(h.core)
		return Estimate{Low: min(e.Median, h.core[n/10]), Median: e.Median, High: max(e.Median, h.core[n-1-n/10]), Measured: true}
	case h != nil && len(h.core) > 0:
		e.Measured = true
		spread = int64(1000 * math.Exp(quantile90*x.again()*math.Sqrt(1+1/float64(len(h.core)))))
	case j.CoreMillis > 0:
		spread = plannedSpread
	}
	e.Low, e.High = e.Median*1000/spread, e.Median*spread/1000
	return e
}

// again is the deviation of the logarithm between builds of one package. It is
// shown and decides nothing, so it may be a float.
func (x *index) again() float64 {
	if x.deviation > 0 {
		return x.deviation
	}
	// In millionths, so that the order of the map does not show.
	square, weight := int64(againDeviation*againDeviation*againWeight*1e6), int64(againWeight)
	for _, h := range x.learned {
		n := len(h.core)
		if n < 2 {
			continue
		}
		var sum, sq float64
		for _, v := range h.core {
			l := math.Log(float64(v))
			sum += l
			sq += l * l
		}
		square += max(0, int64(1e6*(sq-sum*sum/float64(n))))
		weight += int64(n - 1)
	}
	x.deviation = math.Sqrt(float64(square) / 1e6 / float64(weight))
	return x.deviation
}

// Deviation of the logarithm of what a job costs.
func (e Estimate) Deviation() float64 {
	if e.Low <= 0 || e.High <= e.Low {
		return 0
	}
	return math.Log(float64(e.High)/float64(e.Low)) / (2 * quantile90)
}

// Course is how the log of the newest build of a job's package grew; nil = nobody
// knows.
func (r *Replica) Course(j *build.Job) *build.Course {
	if h := r.idx.learned[j.CPV.CP()]; h != nil {
		return h.course
	}
	return nil
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

// others is the median of what the other builds of an outcome's package took; 0 =
// there are none. Against it the outcome shows how wrong such estimates are.
func (x *index) others(o *build.Outcome) int64 {
	h := x.learned[o.CPV.CP()]
	if h == nil || len(h.core) < 2 {
		return 0
	}
	own, found := slices.BinarySearch(h.core, o.CoreMillis)
	if !found {
		return 0
	}
	mid := (len(h.core) - 1) / 2
	if mid >= own {
		mid++
	}
	return h.core[mid]
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

// disk is the work space that a job is expected to want: the most that a build of
// the package took and an eighth more, since a work directory is measured now and
// then only; without one, what its planner said. After a build that was short of
// space, what is to be tried next. 0 = unknown.
func (x *index) disk(j *build.Job) int64 {
	h := x.learned[j.CPV.CP()]
	if h == nil {
		return j.DiskMiB
	}
	want := j.DiskMiB
	if h.disk > 0 {
		want = h.disk + h.disk/8
	}
	// A good build that took more than the one that was short of space had (two
	// thirds of short) has shown what it really wants.
	if h.short/3*2 >= h.disk {
		want = max(want, h.short)
	}
	return want
}

// maxDisk bounds what others may make a package seem to want, in MiB.
const maxDisk = 1 << 40

// Disk is the work space that a build of a job is expected to want, in MiB; 0 =
// unknown.
func (r *Replica) Disk(j *build.Job) int64 { return r.idx.disk(j) }

// buildTime is how long a build of a job is expected to take here, in
// milliseconds; 0 = unknown.
func (r *Replica) buildTime(k build.Key) int64 {
	ks := r.idx.keys[k]
	if ks == nil || ks.job == nil || r.report.Speed <= 0 {
		return 0
	}
	return r.idx.estimate(ks.job) * 1000 * int64(max(1, r.report.Slots)) / r.report.Speed
}
