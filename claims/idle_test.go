package claims

import (
	"testing"

	"github.com/build-swarm/swarm/claims/wire"
)

// beats steps a peer and gives its Beats to another.
func beats(now Now, from, to *Replica, ev Event) (period int64) {
	for _, e := range from.Step(now, ev) {
		p, ok := e.(Publish)
		if !ok {
			continue
		}
		if p.Record.Type() == TypeBeat {
			b, err := Validate(p.Record)
			if err != nil {
				panic(err)
			}
			period = b.(Beat).PeriodMS
		}
		to.Step(now, Received{from.self, []wire.Opened{p.Record}})
	}
	return period
}

func TestAWillingPeerSpeaksSeldomWhileThereIsNothingToBuild(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := synced(1, now), synced(2, now)
	a.nextBeat = 0
	if p := beats(now, a, b, Tick{}); p != IdleBeatMillis {
		t.Fatalf("an idle peer speaks every %d ms", p)
	}
	job := testJob("a")
	beats(now, b, a, Post{testRound(job)})
	now.Boot, now.Wall = now.Boot+BeatMillis, now.Wall+BeatMillis
	if p := beats(now, a, b, Tick{}); p != BeatMillis {
		t.Errorf("a working period after work appeared it speaks every %d ms", p)
	}
}

// A peer that dies while all are idle is missed within a working lease of the
// work's appearing, not within an idle one.
func TestADeathInQuietTimesIsNoticedWhenWorkAppears(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := synced(1, now), synced(2, now)
	a.nextBeat = 0
	beats(now, a, b, Tick{})
	pass := func(ms int64) {
		now.Boot, now.Wall = now.Boot+ms, now.Wall+ms
		beats(now, b, a, Tick{})
	}
	pass(100_000) // a is silent
	if !b.live(a.self, now) {
		t.Fatal("an idle lease is over too early")
	}
	beats(now, b, a, Post{testRound(testJob("a"))})
	pass(LeasePeriods*BeatMillis - 1000)
	if !b.live(a.self, now) {
		t.Error("a lease is cut short")
	}
	pass(2000)
	if b.live(a.self, now) {
		t.Error("a dead peer counts as live long after work appeared")
	}
}

// Right after two peers have met, neither may be on the other's gossip yet.
func TestAChangedBeatReachesNeighboursWithoutGossip(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := synced(1, now), synced(2, now)
	tell := func(effects []Effect) (told int) {
		for _, e := range effects {
			s, ok := e.(Send)
			if !ok || s.Peer != b.self {
				continue
			}
			for _, raw := range s.Msg.Records {
				o, err := wire.Open(raw)
				if err != nil {
					t.Fatal(err)
				}
				if o.Type() == TypeBeat {
					told++
				}
				b.Step(now, Received{a.self, []wire.Opened{o}})
			}
		}
		return told
	}
	tell(a.Step(now, Connected{b.self}))
	now.Boot, now.Wall = now.Boot+1000, now.Wall+1000
	if n := tell(a.Step(now, Report{Beat{Nick: "a", Slots: 1, Accepting: false, Why: "somebody is at the keyboard"}})); n != 1 {
		t.Errorf("a changed Beat is told %d times", n)
	}
	if got := b.peers[a.self].beat.Why; got != "somebody is at the keyboard" {
		t.Errorf("the neighbour believes %q", got)
	}
	now.Boot, now.Wall = now.Boot+IdleBeatMillis, now.Wall+IdleBeatMillis
	a.sync.next = now.Boot + syncEvery
	if n := tell(a.Step(now, Tick{})); n != 0 {
		t.Error("a Beat that says nothing new is sent to each neighbour")
	}
	// What was lost all the same comes with the next comparison.
	a.sync.next = 0
	if n := tell(a.Step(now, Tick{})); n != 1 {
		t.Errorf("a comparison brings %d Beats", n)
	}
}
