package claims

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// The incremental list must say what a fresh look at the whole board says.
func TestReadyAgreesWithASurveyOfTheWholeBoard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := Now{Wall: testWall, Boot: 1000}
		peers := []*Replica{synced(1, now), synced(2, now), synced(3, now)}
		var jobs []build.Job
		for i := range rapid.IntRange(1, 8).Draw(t, "jobs") {
			var needs []build.Key
			for _, j := range jobs {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					needs = append(needs, j.Key)
				}
			}
			jobs = append(jobs, testJob(fmt.Sprintf("j%d", i), needs...))
		}
		me := peers[0]
		say := func(r *Replica, ev Event) {
			for _, e := range r.Step(now, ev) {
				if p, ok := e.(Publish); ok && r != me {
					me.Step(now, Received{r.self, []wire.Opened{p.Record}})
				}
			}
		}
		for _, p := range peers {
			p.nextBeat = 0
			say(p, Tick{})
		}
		say(me, Post{testRound(jobs...)})
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			p := peers[rapid.IntRange(0, 2).Draw(t, "peer")]
			j := jobs[rapid.IntRange(0, len(jobs)-1).Draw(t, "job")]
			switch rapid.IntRange(0, 8).Draw(t, "what") {
			case 0:
				say(p, Take{j.Key})
			case 1:
				say(p, GiveBack{j.Key, "test"})
			case 2:
				out := good(j, string(j.Key))
				d := cidDigest(out.Artifact.CID)
				say(p, Post{Holdings{Shard: int(d[0]) % HoldShards, CIDs: [][]byte{d}}})
				say(p, Finished{out})
			case 3:
				say(p, Finished{build.Outcome{Key: j.Key, CPV: j.CPV, Class: build.BadPackage, Started: uint64(hlc.New(now.Wall))}})
			case 4:
				step := rapid.Int64Range(1, 200_000).Draw(t, "time")
				now.Wall += step
				now.Boot += step
				say(p, Tick{})
			case 5:
				say(p, Post{Directive{Verb: VerbUnblock, Scope: "all"}})
			case 6:
				say(p, Post{Directive{Verb: VerbBump, Scope: string(j.Key)}})
			case 7:
				say(p, Progress{BeatJob{Key: j.Key, Phase: "compile", Compiling: true, LeftMS: 1}})
			case 8:
				say(p, Post{Directive{Verb: VerbReset, Scope: "t", Off: rapid.Bool().Draw(t, "off")}})
			}
			now.Boot += recheckMillis // so that what the clock alone changes is looked at
			now.Wall += recheckMillis
			say(me, Tick{})
			var want, got []build.Key
			for _, i := range me.Survey(now) {
				if i.State == JobReady || i.State == JobUnfit {
					want = append(want, i.Job.Key)
				}
			}
			for _, c := range me.Ready(nil, 100, now) {
				got = append(got, c.Job.Key)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("Ready says %d jobs, a survey %d", len(got), len(want))
			}
			for i := 1; i < len(me.idx.ready); i++ {
				if before(me.idx.ready[i-1], me.idx.ready[i]) >= 0 {
					t.Fatal("the candidates are out of order")
				}
			}
		}
	})
}

func TestWhatWasBuiltHandsNoBlockOn(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a := testJob("a")
	b := testJob("b", a.Key)
	c := testJob("c", b.Key)
	r := synced(1, now)
	r.Step(now, Post{testRound(a, b, c)})
	out := good(b, "x") // an artifact from before, whose dependency fails now
	d := cidDigest(out.Artifact.CID)
	r.Step(now, Post{Holdings{Shard: int(d[0]) % HoldShards, CIDs: [][]byte{d}}})
	r.Step(now, Post{NewOutcome(out)})
	r.Step(now, Take{a.Key})
	r.Step(now, Finished{build.Outcome{Key: a.Key, CPV: a.CPV, Class: build.BadPackage, Started: uint64(hlc.New(now.Wall))}})
	if got := r.Ready(nil, 10, now); len(got) != 1 || got[0].Job.Key != c.Key {
		t.Errorf("%d jobs are ready, want what needs the built one", len(got))
	}
}

func TestABackgroundRoundRisesAfterSixHours(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	job := testJob("a")
	r.Step(now, Post{NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Background, State: build.RoundOpen, Counter: 1,
		Created: uint64(hlc.New(now.Wall)), Plan: &build.Plan{Target: "t", Jobs: []build.Job{job}}})})
	if p, ok := r.Wanted(job.Key); !ok || p != build.Background {
		t.Fatalf("priority %v, %v", p, ok)
	}
	now.Wall += RiseMillis
	now.Boot += RiseMillis
	r.Step(now, Tick{})
	if p, _ := r.Wanted(job.Key); p != build.Normal {
		t.Errorf("after six hours: %v", p)
	}
}

func TestAnEstimateIsLearntFromOutcomes(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	job := testJob("a")
	if r.Work(&job) != DefaultWork {
		t.Errorf("a job nobody built is estimated at %d", r.Work(&job))
	}
	for _, ms := range []int64{9000, 1000, 2000} {
		out := good(job, fmt.Sprint(ms))
		out.CoreMillis, out.PeakMiB = ms, ms/10
		r.Step(now, Finished{out})
	}
	if got := r.Work(&job); got != 2000 {
		t.Errorf("estimate %d, want the median 2000", got)
	}
	if got := r.idx.memory(&job); got != 900 {
		t.Errorf("memory %d, want the greatest peak 900", got)
	}
}

func TestBalanceGivesBackWhatIsNotBegunAndResetEndsWhatWasClaimed(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := testJob("a"), testJob("b")
	r := synced(1, now)
	r.Step(now, Post{testRound(a, b)})
	r.Step(now, Take{a.Key})
	r.Step(now, Take{b.Key})
	r.Step(now, Progress{BeatJob{Key: b.Key, Compiling: true, Phase: "compile"}})
	r.Step(now, Post{Directive{Verb: VerbBalance, Scope: "all"}})
	if len(r.own) != 1 || r.own[b.Key] == nil {
		t.Fatalf("after balance this drone holds %d claims", len(r.own))
	}
	now.Wall += 10
	stopped := false
	for _, e := range r.Step(now, Post{Directive{Verb: VerbReset, Scope: "t"}}) {
		if s, ok := e.(Stop); ok && s.Key == b.Key {
			stopped = true
		}
	}
	if _, held := r.Holder(b.Key, now); held || !stopped {
		t.Errorf("after reset the build is held %v, stopped %v", held, stopped)
	}
	if _, ok := r.Wanted(a.Key); ok {
		t.Error("a round before the reset still wants its jobs")
	}
}
