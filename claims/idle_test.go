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
	now.Boot, now.Wall = now.Boot+speakWithin, now.Wall+speakWithin
	if p := beats(now, a, b, Tick{}); p != BeatMillis {
		t.Errorf("a second after work appeared it speaks every %d ms", p)
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
