package claims

import (
	"testing"

	"github.com/build-swarm/swarm/claims/wire"
)

const (
	// replanMost is when a drone with a free slot looks at the board at the
	// latest (build/worker: every 5 s +-20 %).
	replanMost  = 6_000
	lateBar     = 190_000
	lateInvests = 600_000
)

// takeLate has one drone build for ten minutes and die, in virtual time, and
// returns after how many milliseconds another has the claim.
func takeLate(tb testing.TB) int64 {
	tb.Helper()
	now := Now{Wall: testWall, Boot: 1}
	a, b := synced(1, now), synced(2, now)
	say := func(from, to *Replica, ev Event) {
		for _, e := range from.Step(now, ev) {
			if p, ok := e.(Publish); ok {
				to.Step(now, Received{from.self, []wire.Opened{p.Record}})
			}
		}
	}
	pass := func(ms int64) { now.Boot, now.Wall = now.Boot+ms, now.Wall+ms }
	job := testJob("giant")
	say(b, a, Post{testRound(job)})
	say(a, b, Take{job.Key})
	for began := now.Boot; now.Boot-began < lateInvests; {
		pass(1000)
		say(a, b, Progress{BeatJob{Key: job.Key, Phase: "compile", Compiling: true, InvestedMS: now.Boot - began, LeftMS: 3_600_000}})
		say(b, a, Tick{})
	}
	a.nextBeat = 0
	say(a, b, Tick{}) // its last words, at the worst moment
	died := now.Boot
	for now.Boot-died < 2*lateBar {
		pass(replanMost)
		say(b, a, Take{job.Key})
		if h, ok := b.Holder(job.Key, now); ok && h.Peer == b.self {
			return now.Boot - died
		}
	}
	tb.Fatalf("nobody takes the job of a dead drone in %d s", (now.Boot-died)/1000)
	return 0
}

// BenchmarkTakeover is a drone killed after ten minutes of a build: the lease,
// a quarter of the work invested, and the longest wait for the next look.
func BenchmarkTakeover(b *testing.B) {
	var ms int64
	for b.Loop() {
		ms = takeLate(b)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ms)/1000, "s")
	b.ReportMetric(float64(ms)/lateBar, "x-bar")
}

func TestABuildOfTenMinutesIsTakenOverInTime(t *testing.T) {
	if ms := takeLate(t); ms > lateBar {
		t.Errorf("taken over after %d s", ms/1000)
	}
}
