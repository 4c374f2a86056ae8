package view

import (
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// A drone runs out of disk. What it had is known to all from then on: it takes such
// a package no more and says why in numbers, and the one with more disk takes it
// though it is slower.
func TestAPackageThatWantsMuchDiskGoesToWhereThatIs(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 20_000}
	beat := func(nick string, speed, disk int64) claims.Beat {
		return claims.Beat{Nick: nick, Slots: 1, Speed: speed, Accepting: true, Steady: true, DiskMiB: disk, Builders: []build.Builder{build.BuilderSample}}
	}
	me, drones := seenBy(t, now, beat("small", 16_000, 4_000), beat("large", 1_000, 40_000))
	small, large := drones[0].Self(), drones[1].Self()
	browser := *job("browser", 60_000)
	post := func(ev claims.Event) {
		for _, r := range append([]*claims.Replica{me}, drones...) {
			r.Step(now, ev)
		}
	}
	post(claims.Post{Body: claims.NewRound(build.Round{ID: "r", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
		Created: uint64(hlc.New(wall)), Plan: &build.Plan{Target: "t", Jobs: []build.Job{browser}}})})
	takes := func(peer string) bool {
		var s plan.Scheduler
		peers := me.Peers(now)
		for i := range peers {
			peers[i].Self = peers[i].ID == peer
		}
		_, ok, _ := s.Next(&plan.View{Ready: me.Ready(nil, plan.Limit(len(peers)), now), Peers: peers, Excluded: func(build.Key, string) bool { return false }}, peer)
		return ok
	}
	if !takes(small) || takes(large) {
		t.Fatal("before anybody built it, the faster one does not take it")
	}
	tell(me, drones[0], now, claims.Finished{Outcome: build.Outcome{Key: browser.Key, CPV: browser.CPV, Target: "t", Class: build.BadMachine,
		Reason: "no space left on the device", DiskMiB: 3_900, ShortMiB: 5_850, Started: uint64(hlc.New(wall))}})
	if takes(small) || !takes(large) {
		t.Errorf("the small one takes it: %v; the large one: %v", takes(small), takes(large))
	}
	why, ok := Explain(me, browser.Key, now)
	if !ok || why.DiskMiB != 5_850 || why.State != "ready" || !strings.Contains(why.Next, "large") {
		t.Errorf("%+v", why)
	}
	const reason = "it has 4000 MiB of disk to build in, the build wants 5850"
	w, ok := ExplainDrone(me, small, now)
	if !ok || len(w.Unfit) != 1 || w.Unfit[0].Reason != reason || w.Unfit[0].CPV != "c/browser-1" {
		t.Errorf("the small one: %+v", w)
	}
	if w, _ := ExplainDrone(me, large, now); len(w.Unfit) != 0 || len(w.Jobs) != 1 {
		t.Errorf("the large one: %+v", w)
	}
	// A good build says what it really takes, and the next version goes by that.
	tell(me, drones[1], now, claims.Finished{Outcome: build.Outcome{Key: browser.Key, CPV: browser.CPV, Target: "t", Class: build.Good, DiskMiB: 4_400,
		Artifact: &build.Artifact{CID: "bafkr4ihkr4ld3m4gqkjf4reryxsy2s5tkbxprqkow6fin2iiyvreuzzab4", Size: 3}, Started: uint64(hlc.New(wall))}})
	next := *job("browser", 60_000)
	next.CPV.Version = "2"
	if got := me.Disk(&next); got != 4_950 {
		t.Errorf("the next version is expected to want %d MiB, want 4950", got)
	}
}
