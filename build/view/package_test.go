package view

import (
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

func TestABuildShowsItsPhasesAndThatItIsProvisional(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 100_000}
	me, drones := seenBy(t, now, claims.Beat{Nick: "nas", Slots: 1, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}})
	j := job("app", 1000)
	me.Step(now, claims.Post{Body: claims.NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, Requester: me.Self(), State: build.RoundOpen, Counter: 1,
		Created: uint64(me.Stamp(now)), Jobs: 1, Plan: &build.Plan{Target: "t", Jobs: []build.Job{*j}}})})
	a := cas.Sum([]byte("app"))
	d, err := cas.Digest(a)
	if err != nil {
		t.Fatal(err)
	}
	tell(me, drones[0], now, claims.Post{Body: claims.Holdings{Shard: int(d[0]) % claims.HoldShards, CIDs: [][]byte{d[:]}}})
	tell(me, drones[0], now, claims.Post{Body: claims.NewOutcome(build.Outcome{
		Key: j.Key, CPV: j.CPV, Target: "t", Class: build.Good, Started: uint64(hlc.New(wall - 9000)), Millis: 9000, RootMillis: 4000, Provisional: true,
		Phases:   []build.Phase{{Name: "root", Millis: 4000}, {Name: "compile\x1b[31m", Millis: 5000}},
		Artifact: &build.Artifact{CID: a.String(), Size: 3, MD5: strings.Repeat("0", 32), SHA1: strings.Repeat("0", 40)},
	})})
	p, ok := PackageOf(me, "c/app", now)
	if !ok || len(p.Builds) != 1 || len(p.Jobs) != 1 {
		t.Fatalf("%+v, %t", p, ok)
	}
	b := p.Builds[0]
	if !b.Provisional || b.RootMS != 4000 || len(b.Phases) != 2 || b.Phases[0] != (build.Phase{Name: "root", Millis: 4000}) || strings.Contains(b.Phases[1].Name, "\x1b") {
		t.Errorf("%+v", b)
	}
	if !p.Jobs[0].Provisional {
		t.Error("the job does not say that it is provisional")
	}
	w, ok := Explain(me, j.Key, now)
	if !ok || !w.Provisional || len(w.Phases) != 2 || !strings.Contains(w.Sentence, "provisional") {
		t.Errorf("why: %+v", w)
	}
}
