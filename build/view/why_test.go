package view

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

const wall = 1_800_000_000_000

// seenBy makes a replica and lets it hear of drones by their own Beats.
func seenBy(t *testing.T, now claims.Now, drones ...claims.Beat) (*claims.Replica, []*claims.Replica) {
	t.Helper()
	var all []*claims.Replica
	for n := range len(drones) + 1 {
		all = append(all, claims.NewReplica(claims.Config{Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n + 1)}, 32)), Instance: uint64(n + 1),
			Rand: rand.New(rand.NewPCG(1, 1))}, nil, claims.Now{Wall: now.Wall - 20_000, Boot: now.Boot - 20_000}))
		all[n].Step(now, claims.Tick{}) // alone for long enough to speak
	}
	me := all[0]
	for n, b := range drones {
		tell(me, all[n+1], now, claims.Report{Beat: b})
	}
	return me, all[1:]
}

// tell steps another peer and gives me what it says.
func tell(me, r *claims.Replica, now claims.Now, ev claims.Event) {
	for _, e := range r.Step(now, ev) {
		if p, ok := e.(claims.Publish); ok {
			me.Step(now, claims.Received{From: r.Self(), Records: []wire.Opened{p.Record}})
		}
	}
}

func job(name string, work int64, needs ...*build.Job) *build.Job {
	pre := []build.Facet{{Name: "n", Value: name}}
	k, err := build.KeyOf(pre)
	if err != nil {
		panic(err) // facets of one name
	}
	j := &build.Job{Key: k, Builder: build.BuilderSample, CoreMillis: work, Preimage: pre, Slot: "0", CPV: build.CPV{Category: "c", Name: name, Version: "1"}}
	for _, n := range needs {
		j.Needs = append(j.Needs, build.Edge{Key: n.Key, Kind: build.Buildtime})
	}
	return j
}

func TestWhyNamesEveryDronesReasonAndTheNextEvent(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 20_000}
	able := claims.Beat{Nick: "fast", Slots: 1, Speed: 4000, Accepting: true, Steady: true, Builders: []build.Builder{build.BuilderSample}}
	busy := able
	busy.Nick, busy.Accepting, busy.Why = "laptop", false, "somebody is at the machine"
	nas := claims.Beat{Nick: "nas", Stores: true}
	old := able
	old.Nick, old.Builders = "old", []build.Builder{build.BuilderPortage}
	me, _ := seenBy(t, now, able, busy, nas, old)
	lib := *job("lib", 60_000)
	app := *job("app", 60_000, &lib)
	lib.CPV.Category, app.CPV.Category = "dev-libs", "app-misc"
	me.Step(now, claims.Post{Body: claims.NewRound(build.Round{ID: "r", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
		Created: uint64(hlc.New(wall)), Plan: &build.Plan{Target: "t", Jobs: []build.Job{lib, app}}})})
	w, ok := Explain(me, lib.Key, now)
	if !ok || w.State != "ready" || w.HoldsUp != 1 || !strings.Contains(w.Next, "fast") {
		t.Errorf("lib: %+v", w)
	}
	for nick, part := range map[string]string{"fast": "gives it to this drone now", "laptop": "somebody is at the machine", "nas": "not a drone", "old": "no builder for sample"} {
		found := false
		for _, d := range w.Drones {
			found = found || d.Nick == nick && strings.Contains(d.Reason, part)
		}
		if !found {
			t.Errorf("%s does not say %q: %+v", nick, part, w.Drones)
		}
	}
	w, _ = Explain(me, app.Key, now)
	if w.State != "waiting" || len(w.WaitsFor) != 1 || !strings.Contains(w.Next, "dev-libs/lib-1 is built") || w.NextMS < 10_000 {
		t.Errorf("app: %+v", w)
	}
	if _, ok := Explain(me, job("other", 1).Key, now); ok {
		t.Error("a job nobody asked for is explained")
	}
}

func TestWhyDroneSaysWhatItIsOrWhatHoldsIt(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 20_000}
	able := claims.Beat{Nick: "fast", Slots: 1, Speed: 4000, Accepting: true, Builders: []build.Builder{build.BuilderSample}}
	me, others := seenBy(t, now, able)
	w, ok := ExplainDrone(me, others[0].Self(), now)
	if !ok || w.Sentence != "nothing is ready to be built" {
		t.Errorf("%+v", w)
	}
	later := claims.Now{Wall: wall + 600_000, Boot: 620_000}
	if w, _ = ExplainDrone(me, others[0].Self(), later); !strings.HasPrefix(w.Sentence, "not heard of for 10m") {
		t.Errorf("%+v", w)
	}
	me.Step(now, claims.Post{Body: claims.Directive{Verb: claims.VerbPause, Scope: others[0].Self()}})
	if w, _ = ExplainDrone(me, others[0].Self(), now); !strings.Contains(w.Sentence, "pause by") {
		t.Errorf("%+v", w)
	}
}
