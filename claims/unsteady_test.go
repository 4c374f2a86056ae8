package claims

import (
	"fmt"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

func TestADroneThatFailsOthersSuccessesIsHeldAndNobodyElse(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 3)
	hole, fine, other := peers[0], peers[1], peers[2]
	end := func(r *Replica, name string, c build.Class) {
		now.Wall, now.Boot = now.Wall+100, now.Boot+100
		j := testJob(name)
		out := build.Outcome{Key: j.Key, CPV: j.CPV, Class: c, Started: uint64(hlc.New(now.Wall))}
		if c == build.Good {
			out = good(j, name)
		}
		exchange(t, now, peers, r, r.Step(now, Finished{out}))
	}
	held := func(r *Replica) Trial { return fine.Trial(r.self, now) }

	// Packages that fail everywhere are not the drone's fault.
	for i := range 5 {
		end(hole, fmt.Sprint("bad", i), build.BadPackage)
		end(fine, fmt.Sprint("bad", i), build.BadPackage)
	}
	if held(hole).Held() || held(fine).Held() {
		t.Errorf("held for packages that fail everywhere: %+v, %+v", held(hole), held(fine))
	}
	// Nor is what it gave up because it was told to.
	for i := range 5 {
		end(hole, fmt.Sprint("taken", i), build.Cancelled)
	}
	if n := held(hole).Failures; n != 0 {
		t.Errorf("%d builds that were taken away count as failures", n)
	}
	for i := range 3 {
		end(hole, fmt.Sprint("app", i), build.BadPackage)
	}
	first := held(hole)
	if !first.Held() || first.WaitMS <= 0 || first.WaitMS > trialFirst {
		t.Errorf("after three failures of what nobody else has tried yet: %+v", first)
	}
	for i := range 3 {
		end(fine, fmt.Sprint("app", i), build.Good)
	}
	end(hole, "app9", build.BadMachine)
	if again := held(hole); again.Failures != 4 || again.WaitMS <= trialFirst {
		t.Errorf("the pause does not grow: %+v", again)
	}
	// All see it alike, time passes, a success ends it.
	for _, r := range peers {
		if r.Trial(hole.self, now) != held(hole) {
			t.Error("peers differ on who is held")
		}
	}
	now.Wall, now.Boot = now.Wall+2*trialFirst, now.Boot+2*trialFirst
	if tr := held(hole); !tr.Held() || tr.WaitMS != 0 {
		t.Errorf("after the pause it may try a small job: %+v", tr)
	}
	end(hole, "small", build.Good)
	if tr := held(hole); tr.Held() {
		t.Errorf("after a success: %+v", tr)
	}
	// A person who forgives the failures forgives the drone.
	for i := range 3 {
		end(other, fmt.Sprint("x", i), build.Stuck)
	}
	if !held(other).Held() {
		t.Fatal("three stuck builds in a row are nothing")
	}
	now.Wall += 10
	exchange(t, now, peers, fine, fine.Step(now, Post{Directive{Verb: VerbUnblock, Scope: ScopeAll}}))
	if held(other).Held() {
		t.Error("it is held though somebody unblocked everything")
	}
}

func TestADroneThatIsAloneIsNotHeldForItsPackages(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	for i := range 5 {
		j := testJob(fmt.Sprint("bad", i))
		r.Step(now, Finished{build.Outcome{Key: j.Key, CPV: j.CPV, Class: build.BadPackage, Started: uint64(hlc.New(now.Wall))}})
	}
	if tr := r.Trial(r.self, now); tr.Held() {
		t.Errorf("%+v", tr)
	}
}
