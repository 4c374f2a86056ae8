package agent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// drained steps everything that waits, as the loop does, and reads the counters
// as whoever asks the loop does.
func (a *Agent) drained() claims.Counters {
	for m, ok := a.intake.next(); ok; m, ok = a.intake.next() {
		for _, ev := range m.evs {
			a.replica.Step(a.cfg.Clock.Now(), ev)
		}
		a.intake.release(m.from, m.size)
	}
	a.intake.count(&a.replica.Refused)
	return a.replica.Refused
}

func TestWhatABadMemberSendsIsRefusedAndCountedAndStopsNothing(t *testing.T) {
	id := p2ptest.Identity(2)
	key, self := id.PrivateKey(), id.ID()
	stamp := hlc.New(time.Now().UnixMilli())
	job, err := build.KeyOf([]build.Facet{{Name: "n", Value: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	// seal signs a claim with whatever is changed in its envelope or body.
	claim := claims.Claim{Key: job, Peer: self, Epoch: 1, Stamp: stamp, State: claims.ClaimHeld}
	honest := func() wire.Record {
		o, err := wire.Open(sealed(t, key, claims.Directive{Verb: claims.VerbPause, Scope: "x"})[0])
		if err != nil {
			t.Fatal(err)
		}
		return o.Record()
	}
	seal := func(change func(*wire.Record)) []byte {
		r := honest()
		r.Stamp = uint64(stamp)
		change(&r)
		o, err := wire.Seal(key, r)
		if err != nil {
			t.Fatal(err)
		}
		return o.Raw()
	}
	body := func(v any) []byte {
		b, err := build.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	forged := append([]byte(nil), sealed(t, key, claims.Directive{Verb: claims.VerbPause, Scope: "x"})[0]...)
	forged[len(forged)-1] ^= 1
	another := claim
	another.Peer = p2ptest.Identity(3).ID()
	for _, c := range []struct {
		name    string
		raw     []byte
		verdict gossip.Verdict
		kept    int
		counted claims.Counters
	}{
		{"a bad signature", forged, gossip.Reject, 0, claims.Counters{Malformed: 1}},
		{"no record", []byte("rubbish"), gossip.Reject, 0, claims.Counters{Malformed: 1}},
		{"an oversized record", make([]byte, wire.MaxRecord+1), gossip.Reject, 0, claims.Counters{Malformed: 1}},
		{"a claim in another's name", seal(func(r *wire.Record) {
			r.Type, r.Key, r.Body = claims.TypeClaim, claims.ClaimKey(job), body(another)
		}), gossip.Ignore, 0, claims.Counters{Invalid: 1}},
		{"the key of another record", seal(func(r *wire.Record) { r.Key = claims.ClaimKey(job) }), gossip.Ignore, 0, claims.Counters{Invalid: 1}},
		{"an order that does not follow from the body", seal(func(r *wire.Record) { r.Order = append(r.Order, 0xff) }), gossip.Ignore, 0, claims.Counters{Invalid: 1}},
		{"a body that cannot be read", seal(func(r *wire.Record) { r.Body = []byte{0xff} }), gossip.Ignore, 0, claims.Counters{Invalid: 1}},
		{"the far future", sealedAt(t, key, time.Now().Add(time.Hour), claims.Directive{Verb: claims.VerbPause, Scope: "x"}), gossip.Accept, 0, claims.Counters{Future: 1}},
		{"an unknown type in the place of a known one", seal(func(r *wire.Record) { r.Type, r.Key = "newer", claims.ClaimKey(job) }), gossip.Ignore, 0, claims.Counters{Invalid: 1}},
		{"an unknown type", seal(func(r *wire.Record) { r.Type, r.Key = "newer", "newer/x" }), gossip.Accept, 1, claims.Counters{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := idle(t)
			if v := a.validate("bad", message(t, [][]byte{c.raw})); v != c.verdict {
				t.Errorf("verdict %v, want %v", v, c.verdict)
			}
			if got := a.drained(); got != c.counted || a.replica.Count() != c.kept {
				t.Errorf("%d kept, counted %+v; want %d and %+v", a.replica.Count(), got, c.kept, c.counted)
			}
			// The exchange takes no more than gossip does.
			sync, err := claims.EncodeSync(claims.SyncMessage{Records: [][]byte{c.raw}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.onRequest(context.Background(), "bad", sync); (err != nil) != (c.verdict == gossip.Reject) {
				t.Errorf("by the exchange: %v", err)
			}
			if a.drained(); a.replica.Count() != c.kept {
				t.Errorf("%d kept after the exchange", a.replica.Count())
			}
			// And the next good one is merged.
			if v := a.validate("bad", message(t, [][]byte{sealedAt(t, key, time.Now(), claims.Directive{Verb: claims.VerbDrain, Scope: "x"})})); v != gossip.Accept {
				t.Errorf("a good record after it: %v", v)
			}
			if a.drained(); a.replica.Count() != c.kept+1 {
				t.Errorf("the loop merged nothing after it")
			}
		})
	}
}

func TestAnExchangeOfRubbishIsRefusedAndCounted(t *testing.T) {
	a := idle(t)
	for _, b := range [][]byte{nil, []byte("rubbish"), make([]byte, claims.MaxSyncBytes+1)} {
		if _, err := a.onRequest(context.Background(), "bad", b); err == nil {
			t.Errorf("%d bytes were taken", len(b))
		}
	}
	if got := a.drained(); got != (claims.Counters{Malformed: 3}) {
		t.Errorf("counted %+v", got)
	}
}

func TestAnAuthorSaysNoMoreThanItsShareByGossip(t *testing.T) {
	var r rates
	took := func(from, author string, n int, now int64) (ok int) {
		for range n {
			if r.take(from, author, 1, now) {
				ok++
			}
		}
		return ok
	}
	if n := took("a", "flooder", 2*authorBurst, 0); n != authorBurst {
		t.Errorf("a burst of %d, want %d", n, authorBurst)
	}
	if n := took("a", "flooder", authorBurst, 1000); n != authorPerSec {
		t.Errorf("%d a second later, want %d", n, authorPerSec)
	}
	if n := took("a", "honest", 10, 1000) + took("b", "flooder", 10, 1000); n != 20 {
		t.Error("one author's flood uses up another's share, or another neighbour's")
	}
	// One who makes up authors is held as a neighbour, and leaves nothing behind.
	if n := took("a", "", 2*peerBurst, 1000); n != peerBurst {
		t.Errorf("a neighbour's burst of %d, want %d", n, peerBurst)
	}
	for i := range 3 * rateEntries {
		r.take("a", fmt.Sprint(i), 1, int64(1000+i))
	}
	if len(r.meters) > rateEntries {
		t.Errorf("%d meters are kept", len(r.meters))
	}
}

// The loop is played by one that takes a millisecond for each message; the link
// takes five. Were messages served in the order in which they come, the honest
// one would wait for the flooder's whole share, half a second.
func TestAFloodLeavesAnHonestMembersLatencyWithinTwice(t *testing.T) {
	const serves, link, honestly = time.Millisecond, 5 * time.Millisecond, 100
	synctest.Test(t, func(t *testing.T) {
		worst := func(flood bool) (worst time.Duration, refused uint64) {
			a := idle(t)
			msg := message(t, sealed(t, p2ptest.Identity(2).PrivateKey(), claims.Directive{Verb: claims.VerbPause, Scope: "x"}))
			own := message(t, sealed(t, p2ptest.Identity(3).PrivateKey(), claims.Directive{Verb: claims.VerbPause, Scope: "y"}))
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer func() { cancel(); wg.Wait() }()
			served := make(chan struct{})
			wg.Go(func() {
				for {
					select {
					case <-ctx.Done():
						return
					case <-a.intake.ready:
					}
					for m, ok := a.intake.next(); ok; m, ok = a.intake.next() {
						time.Sleep(serves)
						a.intake.release(m.from, m.size)
						if m.from == "honest" {
							served <- struct{}{}
						}
						if ctx.Err() != nil {
							return
						}
					}
				}
			})
			if flood {
				wg.Go(func() {
					for ctx.Err() == nil {
						a.validate("flooder", msg)
						time.Sleep(serves / 5)
					}
				})
			}
			for range honestly {
				time.Sleep(2 * serves)
				began := time.Now()
				time.Sleep(link)
				if v := a.validate("honest", own); v != gossip.Accept {
					t.Fatalf("verdict %v", v)
				}
				<-served
				worst = max(worst, time.Since(began))
			}
			return worst, a.intake.flood.Load()
		}
		calm, _ := worst(false)
		flooded, refused := worst(true)
		if flooded > 2*calm || refused == 0 {
			t.Errorf("an honest message takes %s, beside a flood %s; %d of the flood were refused", calm, flooded, refused)
		}
	})
}
