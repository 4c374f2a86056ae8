package view

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
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

// Each line is a board, and what a person who asks "why?" has to be told.
func TestWhyInTheSituationsThatPeopleAskAbout(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 20_000}
	able := claims.Beat{Nick: "tower", Slots: 1, Speed: 4000, Accepting: true, Steady: true, FreeMemMiB: 4096, DiskMiB: 10_000, Arch: "amd64",
		Features: []string{"sse2"}, Builders: []build.Builder{build.BuilderSample}}
	for _, c := range []struct {
		name     string
		change   func(lib *build.Job, b *claims.Beat)
		do       func(me, drone *claims.Replica, lib *build.Job)
		of       string // lib, or app that needs it
		later    int64
		state    string
		sentence string
		drone    string // what tower says
		next     string
		action   string
	}{
		{name: "waiting for a dependency", of: "app", state: "waiting", sentence: "it waits for c/lib-1", next: "c/lib-1 is built"},
		{name: "claimed and settling", do: func(me, d *claims.Replica, lib *build.Job) { tell(me, d, now, claims.Take{Key: lib.Key}) },
			state: "claimed", sentence: "tower has claimed it and prepares the build (fetch)", drone: "it has it", next: "it compiles"},
		{name: "memory", change: func(lib *build.Job, _ *claims.Beat) { lib.MemoryMiB = 16_384 }, state: "unfit",
			sentence: "no drone that is here can build it; tower: it has 4096 MiB of memory free, the build wants 16384", next: "joins", action: "swarm peers"},
		{name: "disk", change: func(lib *build.Job, _ *claims.Beat) { lib.DiskMiB = 20_000 }, state: "unfit", sentence: "it has 10000 MiB of disk to build in, the build wants 20000"},
		{name: "builder", change: func(_ *build.Job, b *claims.Beat) { b.Builders = []build.Builder{build.BuilderPortage} }, state: "unfit", sentence: "it has no builder for sample packages"},
		{name: "architecture", change: func(_ *build.Job, b *claims.Beat) { b.Arch = "arm64" }, do: aims, state: "unfit", sentence: "it is arm64, the target amd64"},
		{name: "CPU feature", do: aims, state: "unfit", sentence: "its processor lacks avx2"},
		{name: "declined", do: func(me, d *claims.Replica, lib *build.Job) {
			tell(me, d, now, claims.Post{Body: claims.Decline{Key: lib.Key, Peer: d.Self(), Until: hlc.New(wall + 600_000), Reason: "no user namespaces here"}})
		}, state: "ready", sentence: "every drone has a reason", drone: "it declined: no user namespaces here"},
		{name: "blocked by a root cause", do: fails, of: "app", state: "blocked", sentence: "it waits for c/lib-1, which is blocked: failed on tower: configure: no zlib", action: "swarm unblock"},
		{name: "blocked itself", do: fails, state: "blocked", sentence: "it is blocked: failed on tower: configure: no zlib", action: "swarm logs"},
		{name: "paused", do: func(me, _ *claims.Replica, _ *build.Job) {
			me.Step(now, claims.Post{Body: claims.Directive{Verb: claims.VerbPause, Scope: claims.ScopeAll}})
		}, state: "ready", sentence: "every drone has a reason", drone: "pause by", action: "swarm resume"},
		{name: "drained by its name", do: func(me, d *claims.Replica, _ *build.Job) {
			me.Step(now, claims.Post{Body: claims.Directive{Verb: claims.VerbDrain, Scope: d.Self(), Reason: "clean the\nfan"}})
		}, state: "ready", sentence: "every drone has a reason", drone: ": clean the fan", action: "swarm resume tower"},
		{name: "held as unsteady", change: func(_ *build.Job, b *claims.Beat) {
			b.Accepting, b.Why = false, "3 builds in a row failed here; tries a small one at 10:31 UTC"
		}, state: "ready", sentence: "every drone has a reason", drone: "it takes nothing: 3 builds in a row failed here; tries a small one at 10:31 UTC"},
		{name: "away copies", do: func(me, d *claims.Replica, lib *build.Job) {
			tell(me, d, now, claims.Finished{Outcome: build.Outcome{Key: lib.Key, CPV: lib.CPV, Target: "t", Class: build.Good,
				Artifact: &build.Artifact{CID: cas.Sum([]byte("lib")).String(), Size: 3}}})
			digest, err := cas.Digest(cas.Sum([]byte("lib")))
			if err != nil {
				panic(err) // a CID of ours
			}
			tell(me, d, now, claims.Post{Body: claims.Holdings{Shard: int(digest[0]) % claims.HoldShards, CIDs: [][]byte{digest[:]}}})
		}, later: 400_000, state: "away", sentence: "it is built, and the peers that hold it are away", drone: "not heard of for", next: "they come back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lib := job("lib", 60_000)
			beat := able
			if c.change != nil {
				c.change(lib, &beat)
			}
			app := job("app", 60_000, lib)
			me, drones := seenBy(t, now, beat)
			round := claims.Post{Body: claims.NewRound(build.Round{ID: "r", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
				Created: uint64(hlc.New(wall)), Plan: &build.Plan{Target: "t", Jobs: []build.Job{*lib, *app}}})}
			me.Step(now, round)
			drones[0].Step(now, round) // of its own making: what it says of it is the same
			if c.do != nil {
				c.do(me, drones[0], lib)
			}
			k, then := lib.Key, claims.Now{Wall: now.Wall + c.later, Boot: now.Boot + c.later}
			if c.of == "app" {
				k = app.Key
			}
			me.Step(then, claims.Tick{})
			w, ok := Explain(me, k, then)
			if !ok || w.State != c.state || !strings.Contains(w.Sentence, c.sentence) || !strings.Contains(w.Next, c.next) || !strings.Contains(w.Do, c.action) {
				t.Errorf("%s: %q; next: %q; do: %q", w.State, w.Sentence, w.Next, w.Do)
			}
			for _, d := range w.Drones {
				if d.Nick == "tower" && !strings.Contains(d.Reason, c.drone) {
					t.Errorf("tower says %q", d.Reason)
				}
			}
		})
	}
}

func aims(me, _ *claims.Replica, _ *build.Job) {
	me.Step(claims.Now{Wall: wall, Boot: 20_000}, claims.Post{Body: claims.NewTarget(build.Target{Name: "t", Version: 1, State: build.TargetLive, Arch: "amd64", CPU: []string{"avx2"}, Bundle: "b"})})
}

func fails(me, d *claims.Replica, lib *build.Job) {
	tell(me, d, claims.Now{Wall: wall, Boot: 20_000}, claims.Finished{Outcome: build.Outcome{Key: lib.Key, CPV: lib.CPV, Target: "t", Class: build.BadPackage,
		Reason: "configure: no zlib", Started: uint64(hlc.New(wall))}})
}
