package claims

import (
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
)

func testTarget(version uint64, chost string) build.Target {
	return build.Target{Name: "desktop", Version: version, State: build.TargetLive, Arch: "amd64", CHOST: chost, Bundle: cas.Sum([]byte(chost)).String()}
}

func TestTheNewestVersionOfATargetWinsEverywhere(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{NewTarget(testTarget(1, "one"))}))
	exchange(t, now, peers, b, b.Step(now, Post{NewTarget(testTarget(2, "two"))}))
	// A version that is not newer loses, though it is written later.
	exchange(t, now, peers, a, a.Step(now, Post{NewTarget(testTarget(1, "late"))}))
	for _, r := range peers {
		got := r.Target("desktop")
		if got == nil || got.CHOST != "two" || got.Author != b.Self() || len(r.Targets()) != 1 {
			t.Errorf("%s has %+v", r.Self(), got)
		}
	}
	gone := testTarget(3, "")
	gone.State, gone.Bundle = build.TargetGone, ""
	exchange(t, now, peers, a, a.Step(now, Post{NewTarget(gone)}))
	for _, r := range peers {
		if got := r.Target("desktop"); got == nil || got.State != build.TargetGone || len(r.Targets()) != 0 {
			t.Errorf("%s has %+v after it was removed", r.Self(), got)
		}
	}
	if a.Digest() != b.Digest() {
		t.Error("the boards differ")
	}
}

func TestATargetThatCannotBeIsRefused(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	bad := map[string]build.Target{"no version": testTarget(0, "x"), "a path": testTarget(1, "x"), "no bundle": testTarget(1, "x"), "features that are not sorted": testTarget(1, "x")}
	for what, tg := range bad {
		switch what {
		case "a path":
			tg.Name = "../etc"
		case "no bundle":
			tg.Bundle = ""
		case "features that are not sorted":
			tg.CPU = []string{"sse2", "avx"}
		}
		o, err := r.seal(now, NewTarget(tg))
		if err == nil {
			_, err = Validate(o)
		}
		if err == nil || !strings.Contains(err.Error(), "invalid") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestADroneThatATargetExcludesFitsNoneOfItsJobs(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	r.Step(now, Report{Beat{Nick: "arm", Slots: 1, Accepting: true, Builders: []build.Builder{build.BuilderSample}, Arch: "arm64"}})
	job := testJob("a")
	r.Step(now, Post{testRound(job)})
	state := func() JobState { return r.Survey(now)[0].State }
	if s := state(); s != JobReady {
		t.Fatalf("without a target on the board it is %s", s)
	}
	target := testTarget(1, "x")
	target.Name = "t"
	r.Step(now, Post{NewTarget(target)})
	if s := state(); s != JobUnfit {
		t.Errorf("for another architecture it is %s", s)
	}
	if ok, why := r.Fits(&Beat{Slots: 1, Builders: []build.Builder{build.BuilderSample}, Arch: "arm64"}, r.Job(job.Key)); ok || why != "it is arm64, the target amd64" {
		t.Errorf("%v %q", ok, why)
	}
	target.Version, target.Arch = 2, "arm64"
	r.Step(now, Post{NewTarget(target)})
	if s := state(); s != JobReady {
		t.Errorf("when the target became its own it is %s", s)
	}
}
