package claimstest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/build-swarm/swarm/build"
)

// Task is one package of a generated set. Times are in core-seconds for Work
// and seconds for Serial: T(task, drone) = Serial + Work / cores of the drone.
type Task struct {
	Name   string
	Work   float64
	Serial float64
	// Guess is what a planner thinks that Work is: wrong by a lognormal factor.
	Guess float64
	// Warp is how its log grows: a part x of the time is taken for x to the power
	// of it. 0 = its log tells nothing.
	Warp float64
	// Scale is by how much its log is longer than the one that it is held against.
	Scale  float64
	Before []int // indices of tasks that must be built first, all smaller
}

// The set is that of a desktop: most packages small, ten giants that are a
// fifth of the work.
const (
	medianWork  = 480.0 // core-seconds
	sigmaWork   = 1.2
	capWork     = 20_000.0
	sigmaGuess  = 0.3
	recent      = 250  // a dependency is one of these last packages, or
	byDegree    = 0.55 // with this chance one that much depends on already
	meanBefore  = 2.0
	minSerial   = 5.0
	serialRange = 20.0
)

// giant is a package that everybody knows. Place is where in the order it
// stands, as a fraction; packages before it may be needed by it.
type giant struct {
	name   string
	work   float64 // core-seconds
	place  float64
	before []string
	leaf   bool // nothing else needs it
}

func giants() []giant {
	return []giant{
		{name: "gcc", work: 29_000, place: 0.02},
		{name: "llvm", work: 29_000, place: 0.03},
		{name: "nodejs", work: 14_000, place: 0.05},
		{name: "rust", work: 43_000, place: 0.06, before: []string{"llvm"}},
		{name: "webkit", work: 58_000, place: 0.3, leaf: true},
		{name: "qtwebengine", work: 144_000, place: 0.3, before: []string{"nodejs"}, leaf: true},
		{name: "firefox", work: 40_000, place: 0.3, before: []string{"rust", "nodejs", "llvm"}, leaf: true},
		{name: "thunderbird", work: 40_000, place: 0.35, before: []string{"rust", "nodejs", "llvm"}, leaf: true},
		{name: "libreoffice", work: 58_000, place: 0.35, leaf: true},
		{name: "chromium", work: 172_000, place: 0.3, before: []string{"rust", "nodejs"}, leaf: true},
	}
}

// GenerateDAG draws a set of n packages. It follows from seed alone.
func GenerateDAG(seed uint64, n int, serial bool) []Task {
	rng := rand.New(rand.NewPCG(seed, 0xda6))
	big := map[int]giant{}
	for _, g := range giants() {
		at := int(g.place * float64(n))
		for big[at].name != "" {
			at++
		}
		big[at] = g
	}
	tasks := make([]Task, n)
	index := map[string]int{}
	var open []int    // packages that others may need
	var tickets []int // each of them once, and once more for whatever needs it
	for i := range tasks {
		t := &tasks[i]
		g, isBig := big[i]
		if isBig {
			t.Name, t.Work = g.name, g.work
			for _, b := range g.before {
				t.Before = append(t.Before, index[b])
			}
			index[g.name] = i
		} else {
			t.Name = fmt.Sprintf("p%d", i)
			t.Work = min(capWork, medianWork*math.Exp(sigmaWork*rng.NormFloat64()))
		}
		t.Guess = t.Work * math.Exp(sigmaGuess*rng.NormFloat64())
		if serial {
			t.Serial = minSerial + serialRange*rng.Float64()
		}
		for range poisson(rng, meanBefore) {
			if len(open) == 0 {
				break
			}
			var d int
			if rng.Float64() < byDegree {
				d = tickets[rng.IntN(len(tickets))]
			} else {
				d = open[len(open)-1-rng.IntN(min(recent, len(open)))]
			}
			t.Before = append(t.Before, d)
			tickets = append(tickets, d)
		}
		slices.Sort(t.Before)
		t.Before = slices.Compact(t.Before)
		if !g.leaf {
			open = append(open, i)
			tickets = append(tickets, i)
		}
	}
	return tasks
}

// poisson draws by Knuth's method.
func poisson(rng *rand.Rand, mean float64) int {
	limit, p, k := math.Exp(-mean), rng.Float64(), 0
	for p > limit {
		p *= rng.Float64()
		k++
	}
	return k
}

// Specs makes the jobs of a set.
func Specs(tasks []Task) ([]Spec, error) {
	specs := make([]Spec, len(tasks))
	for i, t := range tasks {
		var before []build.Key
		for _, b := range t.Before {
			before = append(before, specs[b].Job.Key)
		}
		s, err := NewSpec(t.Name, int64(t.Guess*1000), int64(t.Work*1000), int64(t.Serial*1000), before...)
		if err != nil {
			return nil, err
		}
		s.Warp, s.Scale = t.Warp, t.Scale
		specs[i] = s
	}
	return specs, nil
}

// Fleet is the cores of n drones: 16, 14, 24 and 8, repeated.
func Fleet(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = []float64{16, 14, 24, 8}[i%4]
	}
	return out
}

// Bound is a time in seconds that no schedule of the tasks on drones of these
// cores can beat, whatever it knows: the largest of three.
//
//   - The critical path, every task of it on the fastest drone.
//   - Load. Without serial parts: all work over all cores. With them a drone of
//     c cores needs s + w/c for a task, and for any weights l >= 0 of the
//     drones that sum to 1, the makespan is at least the weighted mean of the
//     drones' loads, so at least the sum over tasks of the least l_d (s + w/c_d)
//     (the Lagrangian relaxation of "each drone's load is at most the
//     makespan"). The best weights found are used; any would be a bound.
//   - The k largest tasks on the k fastest drones, for every k: a task runs on
//     one drone at a time, so k tasks never use more than the k fastest.
//
// A task with Work and Serial 0 is finished and counts for nothing.
func Bound(tasks []Task, cores []float64) float64 {
	fastest := slices.Max(cores)
	longest := 0.0
	until := make([]float64, len(tasks))
	for i, t := range tasks {
		for _, b := range t.Before {
			until[i] = max(until[i], until[b])
		}
		until[i] += t.Serial + t.Work/fastest
		longest = max(longest, until[i])
	}
	return max(longest, loadBound(tasks, cores), largestBound(tasks, cores))
}

func largestBound(tasks []Task, cores []float64) float64 {
	work := make([]float64, len(tasks))
	for i, t := range tasks {
		work[i] = t.Work
	}
	slices.SortFunc(work, func(a, b float64) int { return compareFloats(b, a) })
	fast := slices.Clone(cores)
	slices.SortFunc(fast, func(a, b float64) int { return compareFloats(b, a) })
	best, w, c := 0.0, 0.0, 0.0
	for k := range min(len(work), len(fast)) {
		w += work[k]
		c += fast[k]
		best = max(best, w/c)
	}
	return best
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// loadBound climbs to good weights: drones of equal cores have equal weights,
// and each round moves weight towards the drones that the relaxed problem
// loads most (a subgradient step).
func loadBound(tasks []Task, cores []float64) float64 {
	kinds := slices.Clone(cores)
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	count := make([]float64, len(kinds))
	for _, c := range cores {
		count[slices.Index(kinds, c)]++
	}
	weight := make([]float64, len(kinds)) // of one drone of the kind
	total := 0.0
	for _, c := range cores {
		total += c
	}
	for i, c := range kinds {
		weight[i] = c / total // the best weights when nothing is serial
	}
	best := 0.0
	for round := range 300 {
		sum := 0.0
		load := make([]float64, len(kinds))
		for _, t := range tasks {
			at, least := 0, math.Inf(1)
			for i, c := range kinds {
				if v := weight[i] * (t.Serial + t.Work/c); v < least {
					at, least = i, v
				}
			}
			sum += least
			load[at] += t.Serial + t.Work/kinds[at]
		}
		best = max(best, sum)
		step, norm := 0.5/math.Sqrt(float64(round+1))/sum, 0.0
		for i := range weight {
			weight[i] *= math.Exp(max(-0.3, min(0.3, step*(load[i]/count[i]-sum))))
			norm += weight[i] * count[i]
		}
		for i := range weight {
			weight[i] /= norm
		}
	}
	return best
}
