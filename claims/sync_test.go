package claims

import (
	"bytes"
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/wire"
)

// talk carries the exchange's messages between two peers until nothing more is
// said, and returns how often each record travelled.
func talk(t *testing.T, now Now, a, b *Replica, fromA, fromB []Effect) map[*byte]int {
	t.Helper()
	sent := map[*byte]int{}
	type letter struct {
		to, from *Replica
		msg      SyncMessage
	}
	var queue []letter
	post := func(from, to *Replica, effects []Effect) {
		for _, e := range effects {
			if s, ok := e.(Send); ok && s.Peer == to.self {
				queue = append(queue, letter{to, from, s.Msg})
			}
		}
	}
	post(a, b, fromA)
	post(b, a, fromB)
	for n := 0; len(queue) > 0; n++ {
		if n > 1000 {
			t.Fatal("the peers talk without end")
		}
		l := queue[0]
		queue = queue[1:]
		var recs []wire.Opened
		for _, raw := range l.msg.Records {
			o, err := wire.Open(raw)
			if err != nil {
				t.Fatal(err)
			}
			if o.Type() != TypeBeat {
				sent[&raw[0]]++
			}
			recs = append(recs, o)
		}
		l.msg.Records = nil
		post(l.to, l.from, l.to.Step(now, Received{l.from.self, recs}))
		post(l.to, l.from, l.to.Step(now, Synced{l.from.self, l.msg}))
	}
	return sent
}

func TestAJoinerGetsEveryRecordOnceAndMayClaim(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	old, joiner := synced(8, now), newPeer(9, now)
	old.Step(now, Received{"x", someRecords(t, now)})
	sent := talk(t, now, old, joiner, old.Step(now, Connected{joiner.self}), joiner.Step(now, Connected{old.self}))
	if old.Digest() != joiner.Digest() || len(sent) != old.Count() {
		t.Fatalf("%d of %d records came", len(sent), old.Count())
	}
	for _, n := range sent {
		if n != 1 {
			t.Fatalf("a record travelled %d times", n)
		}
	}
	if ok, why := joiner.MayClaim(); !ok {
		t.Errorf("the joiner may not claim: %s", why)
	}
}

func TestTwoThatCompareAtOnceSendNoRecordTwice(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	recs := someRecords(t, now)
	a, b := newPeer(8, now), newPeer(9, now)
	a.Step(now, Received{"x", recs[:len(recs)*2/3]})
	b.Step(now, Received{"x", recs[len(recs)/3:]})
	sent := talk(t, now, a, b, a.Step(now, Connected{b.self}), b.Step(now, Connected{a.self}))
	if a.Digest() != b.Digest() {
		t.Fatal("the boards differ")
	}
	for _, n := range sent {
		if n != 1 {
			t.Errorf("a record travelled %d times", n)
		}
	}
}

// A peer that lists what it never sends holds this one up for ten seconds, and
// nobody else for long.
func TestAPeerThatListsWhatItDoesNotHaveIsLeftForOthers(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r, honest := newPeer(8, now), newPeer(9, now)
	honest.Step(now, Received{"x", someRecords(t, now)})
	liar := newPeer(7, now).self
	r.Step(now, Connected{liar})
	fake := SyncMessage{Items: []Bucket{{N: 1, IDs: [][]byte{bytes.Repeat([]byte{1}, 16)}}}, Final: true}
	r.Step(now, Synced{liar, fake})
	fromR := r.Step(now, Connected{honest.self})
	for range 30 {
		now.Boot += 1000
		fromR = append(fromR, r.Step(now, Tick{})...)
		talk(t, now, r, honest, fromR, nil)
		fromR = r.Step(now, Synced{liar, SyncMessage{Sums: make([]uint64, Buckets)}})
	}
	if r.Digest() != honest.Digest() {
		t.Error("the honest peer was never asked")
	}
}

func TestWhatIsRefusedIsNotAskedForAgainAndAgain(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	ahead := Now{Wall: testWall + 3_600_000, Boot: 1}
	a, r := newPeer(8, ahead), newPeer(9, now)
	a.Step(ahead, Post{Directive{Verb: VerbPause, Scope: "all"}})
	r.Step(now, Post{Directive{Verb: VerbPause, Scope: "x"}})
	talk(t, now, a, r, a.Step(ahead, Connected{r.self}), r.Step(now, Connected{a.self}))
	if !r.synced {
		t.Error("what this peer refuses keeps it from claiming for ever")
	}
}

func TestALonePeerDoesNotWakeWithoutCause(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := synced(1, now)
	for range 100 {
		wake := r.NextWake(now)
		if wake-now.Boot < 1000 {
			t.Fatalf("woken after %d ms", wake-now.Boot)
		}
		now.Boot, now.Wall = wake, now.Wall+wake-now.Boot
		r.Step(now, Tick{})
	}
}

func TestWhatIsBuiltBlocksNothingThoughItFailedElsewhere(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := synced(1, now)
	a := testJob("a")
	b := testJob("b", a.Key)
	r.Step(now, Post{testRound(a, b)})
	out := good(a, "blob")
	d := cidDigest(out.Artifact.CID)
	r.Step(now, Post{Holdings{Shard: int(d[0]) % HoldShards, CIDs: [][]byte{d}}})
	r.Step(now, Finished{out})
	r.Step(now, Finished{build.Outcome{Key: a.Key, CPV: a.CPV, Class: build.BadPackage, Started: uint64(r.Stamp(now))}})
	if !slices.ContainsFunc(r.Ready(nil, 10, now), func(c Candidate) bool { return c.Job.Key == b.Key }) {
		t.Error("a job whose dependency is built is not ready")
	}
}
