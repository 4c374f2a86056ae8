package claims

import (
	"math/rand/v2"
	"testing"

	"github.com/build-swarm/swarm/claims/wire"
)

func TestAFrozenBuildIsLeftAloneUntilItsDeadlineThoughItsMachineSleeps(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	pass := func(ms int64) { now.Boot += ms; now.Wall += ms }
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	pass(100)
	const keep = 12 * 60_000
	exchange(t, now, peers, a, a.Step(now, Progress{BeatJob{Key: job.Key, Phase: "frozen", Compiling: true, InvestedMS: 60_000, FrozenMS: keep}}))
	pass(1_100)
	exchange(t, now, peers, a, a.Step(now, Tick{})) // the Beat that says so; then silence
	pass(keep)
	if _, held := b.Holder(job.Key, now); !held {
		t.Error("it is taken from its holder before the deadline")
	}
	pass(LeasePeriods*BeatMillis + 1)
	if _, held := b.Holder(job.Key, now); held {
		t.Error("it is held for ever by a machine that does not wake")
	}
}

// restart makes a peer anew from what its journal would hold.
func restart(r *Replica, n int, now Now, adopt ...*own) *Replica {
	cfg := Config{Key: testKey(n), Instance: uint64(n) + 100, Rand: rand.New(rand.NewPCG(uint64(n), 2))}
	for _, o := range adopt {
		cfg.Adopt = append(cfg.Adopt, o.claim.Key)
	}
	var journal []wire.Opened
	journal = append(journal, r.Records()...)
	return NewReplica(cfg, journal, now)
}

func TestARestartedPeerHoldsOnToTheBuildsThatOutlivedIt(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	now.Boot, now.Wall = now.Boot+2_000, now.Wall+2_000
	exchange(t, now, peers, a, a.Step(now, Progress{BeatJob{Key: job.Key, Phase: "compile", Compiling: true, InvestedMS: 1_000}}))
	for _, adopted := range []bool{true, false} {
		var keep []*own
		if adopted {
			keep = append(keep, a.own[job.Key])
		}
		again := restart(a, 1, now, keep...)
		if held := len(again.Held()) == 1; held != adopted {
			t.Fatalf("adopted %v, held %v", adopted, held)
		}
		other := restart(b, 2, now)
		both := []*Replica{again, other}
		exchange(t, now, both, again, again.Step(now, Report{Beat{Nick: "again", Slots: 1, Accepting: true}}))
		if _, held := other.Holder(job.Key, now); held != adopted {
			t.Errorf("adopted %v: the others take it for held: %v", adopted, held)
		}
	}
}
