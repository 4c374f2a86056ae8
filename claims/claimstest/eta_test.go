package claimstest

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/build/plan/replay"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// knowledge is what is known of packages before a round.
type knowledge struct {
	name    string
	guess   float64 // deviation of the planner's guesses; 0 = it has none
	bias    float64 // what they are all wrong by
	history float64 // deviation between this build and an earlier one; 0 = there was none
	serial  bool    // every build has a part that no core makes faster
}

const etaSeeds = 8

// How evenly logs grow: see Task.Warp. Of packages that were built before the
// course of the earlier log is known; of others only the steps that some of
// their build tools count, which are not all of one size.
const warpMeasured, scaleMeasured, warpCounted = 0.12, 0.03, 0.25

// countsSteps reports whether a package's build tool prints how many of how many
// steps are done: ninja does, make, cargo and mach do not.
func countsSteps(name string, rng *rand.Rand) bool {
	chance := rng.Float64()
	switch name {
	case "llvm", "webkit", "qtwebengine", "chromium":
		return true
	case "gcc", "rust", "firefox", "thunderbird", "nodejs", "libreoffice":
		return false
	}
	return chance < 0.3
}

var known = []knowledge{
	{name: "guess=0.3", guess: 0.3, bias: 1},
	{name: "guess=0.6x1.5", guess: 0.6, bias: 1.5},
	{name: "nothing"},
	{name: "built-before", guess: 0.6, bias: 1, history: 0.15},
	{name: "built-before,serial", guess: 0.6, bias: 1, history: 0.15, serial: true},
}

// watchETA runs a round and looks at its forecast at each twentieth of it.
func watchETA(k knowledge, drones, jobs int, seed uint64) ([]replay.Look, error) {
	rng := rand.New(rand.NewPCG(seed, 0xe7a))
	tasks := GenerateDAG(seed, jobs, k.serial)
	for i := range tasks {
		tasks[i].Guess = 0
		if k.guess > 0 {
			tasks[i].Guess = tasks[i].Work * k.bias * math.Exp(k.guess*rng.NormFloat64())
		}
		switch {
		case k.history > 0:
			tasks[i].Warp, tasks[i].Scale = math.Exp(warpMeasured*rng.NormFloat64()), math.Exp(scaleMeasured*rng.NormFloat64())
		case countsSteps(tasks[i].Name, rng):
			tasks[i].Warp, tasks[i].Scale = math.Exp(warpCounted*rng.NormFloat64()), 1
		}
	}
	c := Cell{Drones: drones, Jobs: jobs}
	opt := cellOptions(c)
	opt.NoLearning = false
	w, err := c.world(seed, tasks, opt)
	if err != nil {
		return nil, err
	}
	if k.history > 0 {
		w.At(makespanRound-2000, func() { w.remember(tasks, k.history, rng) })
	}
	w.At(makespanRound, func() { w.PostRound(w.Nodes[0]) })
	bound := int64(1000 * Bound(tasks, Fleet(drones)))
	var looks []replay.Look
	var watch func()
	watch = func() {
		n := w.Nodes[0]
		if r, ok := plan.Ends(n.rep.Survey(n.now()), n.rep.Peers(n.now()))["r1"]; ok {
			looks = append(looks, replay.Look{Low: r.Low, High: r.High, Truth: w.now})
		}
		if !w.Done() {
			w.At(w.now+bound/20, watch)
		}
	}
	w.At(makespanRound+bound/20, watch)
	w.RunUntil(makespanRound+10*bound, w.Done)
	if !w.Done() {
		return nil, fmt.Errorf("%s, seed %d: not built", k.name, seed)
	}
	took := w.Stats.Makespan - makespanRound
	for i := range looks {
		at := looks[i].Truth
		looks[i].Share = float64(at-makespanRound) / float64(took)
		looks[i].Truth = w.Stats.Makespan - at
	}
	return slices.DeleteFunc(looks, func(l replay.Look) bool { return l.Truth <= 0 }), nil
}

// remember puts an earlier build of each package on the board.
func (w *World) remember(tasks []Task, deviation float64, rng *rand.Rand) {
	n := w.Nodes[0]
	for i := range tasks {
		s := w.specs[w.order[i]]
		cpv := s.Job.CPV
		cpv.Version = "0"
		key, err := build.KeyOf([]build.Facet{{Name: "CPV", Value: cpv.String()}})
		if err != nil {
			panic(err) // of a constant form
		}
		n.step(claims.Post{Body: claims.NewOutcome(build.Outcome{
			Key: key, CPV: cpv, Target: "t", Class: build.Good, Started: uint64(hlc.New(epochWall)), Epoch: 1, Millis: 1000,
			CoreMillis: max(1, int64(tasks[i].Work*1000*math.Exp(deviation*rng.NormFloat64()))),
			Artifact:   &build.Artifact{CID: cas.Sum([]byte(key)).String(), Size: 1},
		})})
	}
}

func watchETAs(k knowledge, drones, jobs, seeds int) ([]replay.Look, error) {
	all := make([][]replay.Look, seeds)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range all {
		g.Go(func() (err error) {
			all[i], err = watchETA(k, drones, jobs, uint64(i+1))
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(all...), err
}

// recorded are rounds of real builds: see ../../build/plan/replay/testdata.
func recorded(t testing.TB) map[string][]replay.Look {
	t.Helper()
	files, err := filepath.Glob("../../build/plan/replay/testdata/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded rounds: %v", err)
	}
	out := map[string][]replay.Look{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		rec, err := replay.Read(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, round := range rec.Rounds() {
			if looks := rec.Looks(round, 20); len(looks) > 0 {
				out[strings.TrimSuffix(filepath.Base(name), ".jsonl")+"-"+round] = looks
			}
		}
	}
	return out
}

// BenchmarkETA asks, in simulated and in recorded rounds, how often the range that
// is shown for a round's end holds it, and how wide it is. The bars are 70 to 90 %
// and 40 % of the time that is left.
func BenchmarkETA(b *testing.B) {
	var every []replay.Look
	real := recorded(b)
	var reals []replay.Look
	for _, name := range slices.Sorted(maps.Keys(real)) {
		b.Run("recorded="+name, func(b *testing.B) { reportETA(b, real[name]) })
		reals = append(reals, real[name]...)
	}
	b.Run("recorded", func(b *testing.B) { reportETA(b, reals) })
	for _, drones := range []int{4, 20} {
		var some []replay.Look
		for _, k := range known {
			b.Run(fmt.Sprintf("drones=%d/known=%s", drones, k.name), func(b *testing.B) {
				looks, err := watchETAs(k, drones, 600, etaSeeds)
				if err != nil {
					b.Fatal(err)
				}
				some, every = append(some, looks...), append(every, looks...)
				reportETA(b, looks)
			})
		}
		b.Run(fmt.Sprintf("drones=%d/all", drones), func(b *testing.B) { reportETA(b, some) })
	}
	b.Run("simulated", func(b *testing.B) { reportETA(b, every) })
	b.Run("all", func(b *testing.B) { reportETA(b, append(every, reals...)) })
}

// BenchmarkBestETA is what no forecast can beat with 20 drones, where llvm, rust
// and chromium one after another decide: one that knows the estimates' deviation
// and how long each build has gone on, and cannot look into one. The width is of
// ranges that hold the truth in 70 and in 80 of 100 cases.
func BenchmarkBestETA(b *testing.B) {
	for _, deviation := range []float64{0.1, 0.15, 0.3} {
		b.Run(fmt.Sprintf("deviation=%.2f", deviation), func(b *testing.B) {
			for _, hold := range []int{70, 80} {
				b.ReportMetric(100*bestWidth(deviation, float64(hold)/100), fmt.Sprintf("width-%%-for-%d-%%", hold))
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func bestWidth(deviation, hold float64) float64 {
	chain := []float64{29_000 / 24., 43_000 / 24., 172_000 / 24.} // s, as estimated
	rng := rand.New(rand.NewPCG(1, 0xbe57))
	const rounds, draws = 200, 200
	var widths []float64
	for range rounds {
		truth, total := make([]float64, len(chain)), 0.0
		for i, estimate := range chain {
			truth[i] = estimate * math.Exp(deviation*rng.NormFloat64())
			total += truth[i]
		}
		for look := 2; look < 20; look++ { // each twentieth, from a tenth on
			left, over := make([]float64, draws), total*float64(look)/20
			for i, estimate := range chain {
				invested := min(max(0, over), truth[i])
				if over -= truth[i]; over >= 0 {
					continue // it has been built
				}
				for n := range left {
					whole := 0.0
					for whole <= invested {
						whole = estimate * math.Exp(deviation*rng.NormFloat64())
					}
					left[n] += whole - invested
				}
			}
			slices.Sort(left)
			low, high := left[int(draws*(1-hold)/2)], left[int(draws*(1+hold)/2)]
			widths = append(widths, (high-low)/(total*(1-float64(look)/20)))
		}
	}
	slices.Sort(widths)
	return widths[len(widths)/2]
}

func reportETA(b *testing.B, looks []replay.Look) {
	b.Helper()
	holds, width := replay.Figures(looks)
	b.ReportMetric(100*holds, "holds-%")
	late := 0
	for _, l := range looks {
		if l.Truth > l.High {
			late++
		}
	}
	b.ReportMetric(100*float64(late)/float64(len(looks)), "later-%")
	b.ReportMetric(100*width, "width-%")
	b.ReportMetric(float64(len(looks)), "forecasts")
	b.ReportMetric(0, "ns/op")
}

// Ten giants rule a set of 200, so that its end is less sure than that of the
// larger sets of the benchmark.
func TestTheRangeOfARoundsEndMostlyHoldsIt(t *testing.T) {
	looks, err := watchETAs(known[3], 4, 200, 10)
	if err != nil {
		t.Fatal(err)
	}
	if holds, width := replay.Figures(looks); holds < 0.7 || width > 0.6 {
		t.Errorf("of %d ranges %.0f %% hold the truth, and half are wider than %.0f %% of what is left", len(looks), 100*holds, 100*width)
	}
}
