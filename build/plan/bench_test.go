package plan_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
)

// The size that the bars are set for.
const (
	benchJobs   = 20_000
	benchDrones = 100
	nextBar     = time.Millisecond
	forecastBar = 50 * time.Millisecond
	benchWall   = 1_800_000_000_000
)

func benchKey(tb testing.TB, n int) build.Key {
	tb.Helper()
	k, err := build.KeyOf([]build.Facet{{Name: "n", Value: fmt.Sprint(n)}})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// benchPlan is a plan of n jobs: a third waits for nothing, the others for up
// to three earlier ones; work is spread over four orders of magnitude.
func benchPlan(tb testing.TB, n int, rng *rand.Rand) *build.Plan {
	tb.Helper()
	p := &build.Plan{Target: "t"}
	for i := range n {
		j := build.Job{Key: benchKey(tb, i), Builder: build.BuilderSample, CoreMillis: 1000 << rng.IntN(14), MemoryMiB: 512, DiskMiB: 100,
			CPV: build.CPV{Category: "bench", Name: fmt.Sprintf("p%d", i), Version: "1"}, Slot: "0",
			Preimage: []build.Facet{{Name: "n", Value: fmt.Sprint(i)}}}
		if i%3 != 0 {
			for range 1 + rng.IntN(3) {
				j.Needs = append(j.Needs, build.Edge{Key: p.Jobs[rng.IntN(i)].Key, Kind: build.Buildtime})
			}
		}
		p.Jobs = append(p.Jobs, j)
	}
	return p
}

// benchCPU are as many CPU features as a processor of today tells.
func benchCPU(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("feature%03d", i))
	}
	return list
}

// benchBeat is one of 100 drones: four speeds, every other one busy, every
// tenth a laptop.
func benchBeat(i int, busy build.Key) claims.Beat {
	b := claims.Beat{Nick: fmt.Sprintf("drone%d", i), PeriodMS: claims.BeatMillis, Slots: 1 + i%2, Cores: 8, Accepting: true,
		Speed: []int64{24_000, 16_000, 14_000, 8_000}[i%4] + int64(i), Steady: i%10 != 9, FreeMemMiB: 8192, DiskMiB: 50_000,
		Builders: []build.Builder{build.BuilderSample}, Instance: uint64(i + 1), Arch: "amd64", Features: benchCPU(130)}
	if !b.Steady {
		b.UntilS = 3600
	}
	if i%2 == 0 {
		b.Jobs = []claims.BeatJob{{Key: busy, Phase: "compile", Compiling: true, InvestedMS: 10_000, LeftMS: int64(1000 * (i + 1))}}
	}
	return b
}

// benchSwarm is the board of one of 100 drones with a round of 20,000 jobs.
func benchSwarm(tb testing.TB) (*claims.Replica, claims.Now) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	now := claims.Now{Wall: benchWall, Boot: 1_000_000}
	p := benchPlan(tb, benchJobs, rng)
	key := func(i int) ed25519.PrivateKey {
		var seed [ed25519.SeedSize]byte
		binary.BigEndian.PutUint64(seed[:], uint64(i+1))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	// A peer that met nobody in its first ten seconds may claim.
	started := claims.Now{Wall: now.Wall - 11_000, Boot: now.Boot - 11_000}
	drone := func(i int) *claims.Replica {
		r := claims.NewReplica(claims.Config{Key: key(i), Instance: uint64(i + 1), Rand: rng}, nil, started)
		r.Step(now, claims.Tick{})
		return r
	}
	r := drone(1)
	r.Step(now, claims.Post{Body: claims.NewTarget(build.Target{Name: "t", Version: 1, State: build.TargetLive, Arch: "amd64", CPU: benchCPU(40), Bundle: "b"})})
	round := build.Round{ID: "r1", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1, Jobs: len(p.Jobs), PlanCID: "in-a-blob"}
	r.Step(now, claims.Post{Body: claims.NewRound(round)})
	r.Step(now, claims.PlanLoaded{Round: "r1", Plan: p})
	r.Step(now, claims.Report{Beat: benchBeat(1, "")})
	for i := range benchDrones {
		if i == 1 {
			continue
		}
		// Each drone is a replica of its own for as long as its Beat takes.
		o := drone(i)
		for _, e := range o.Step(now, claims.Report{Beat: benchBeat(i, p.Jobs[3*i].Key)}) {
			if pub, ok := e.(claims.Publish); ok {
				r.Step(now, claims.Received{From: o.Self(), Records: []wire.Opened{pub.Record}})
			}
		}
	}
	if n := len(r.Peers(now)); n != benchDrones {
		tb.Fatalf("%d peers, want %d", n, benchDrones)
	}
	return r, now
}

// BenchmarkPlanNext is one look of a drone at the schedule: Scheduler.Next over
// the candidates, and Replica.Ready, which lists them. The bar is for Next.
func BenchmarkPlanNext(b *testing.B) {
	r, now := benchSwarm(b)
	peers := r.Peers(now)
	self := r.Self()
	b.Run("next", func(b *testing.B) {
		v := plan.View{Ready: r.Ready(nil, plan.Limit(len(peers)), now), Peers: peers}
		benchNext(b, &v, self)
	})
	// As if every candidate had been declined or failed by somebody.
	b.Run("scarred", func(b *testing.B) {
		v := plan.View{Ready: r.Ready(nil, plan.Limit(len(peers)), now), Peers: peers}
		for i := range v.Ready {
			v.Ready[i].Scarred = true
		}
		v.Excluded = func(k build.Key, peer string) bool { return k[0] == peer[len(peer)-1] }
		benchNext(b, &v, self)
	})
	b.Run("ready", func(b *testing.B) {
		out := r.Ready(nil, plan.Limit(len(peers)), now)
		against(b, nextBar, func() { out = r.Ready(out[:0], plan.Limit(len(peers)), now) })
		b.ReportMetric(float64(len(out)), "candidates")
	})
}

// against reports f against a bar, by the wall clock and by the CPU that the
// process took: on a machine that others load too, only the latter says much.
func against(b *testing.B, bar time.Duration, f func()) {
	b.Helper()
	b.ReportAllocs()
	from := cpuTime(b)
	for b.Loop() {
		f()
	}
	n := float64(b.N) * float64(bar)
	b.ReportMetric(float64(b.Elapsed())/n, "x-bar")
	b.ReportMetric(float64(cpuTime(b)-from)/n, "cpu-x-bar")
}

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchNext(b *testing.B, v *plan.View, self string) {
	var s plan.Scheduler
	k, ok, all := s.Next(v, self)
	if !ok || len(all) != plan.Limit(benchDrones) {
		b.Fatalf("this drone takes %q, %v, of %d placed", k, ok, len(all))
	}
	against(b, nextBar, func() { s.Next(v, self) })
}

// BenchmarkForecast schedules all 20,000 jobs on 100 drones; survey is what it
// is computed from.
func BenchmarkForecast(b *testing.B) {
	r, now := benchSwarm(b)
	peers := r.Peers(now)
	jobs := r.Survey(now)
	b.Run("forecast", func(b *testing.B) {
		if n := len(plan.Forecast(jobs, peers)); n != benchJobs {
			b.Fatalf("%d jobs in the forecast", n)
		}
		against(b, forecastBar, func() { plan.Forecast(jobs, peers) })
	})
	b.Run("survey", func(b *testing.B) {
		against(b, forecastBar, func() { r.Survey(now) })
	})
}

// The bar says no allocation; unlike its time, that can be asserted anywhere.
func TestNextAllocatesNothing(t *testing.T) {
	r, now := benchSwarm(t)
	peers := r.Peers(now)
	v := plan.View{Ready: r.Ready(nil, plan.Limit(len(peers)), now), Peers: peers}
	var s plan.Scheduler
	s.Next(&v, r.Self())
	if n := testing.AllocsPerRun(5, func() { s.Next(&v, r.Self()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkEnds is the range of a round's end, of 20,000 jobs on 100 drones;
// the bar is that of Forecast.
func BenchmarkEnds(b *testing.B) {
	r, now := benchSwarm(b)
	peers := r.Peers(now)
	jobs := r.Survey(now)
	against(b, forecastBar, func() { plan.Ends(jobs, peers) })
}
