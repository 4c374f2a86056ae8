package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// idle makes an agent whose loop does not run: what is let in stays waiting.
func idle(t *testing.T) *Agent {
	t.Helper()
	j, err := OpenJournal(filepath.Join(t.TempDir(), "board.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	id := p2ptest.Identity(1)
	a, err := New(Config{Key: id.PrivateKey(), Net: p2ptest.NewNet(1).Host(id.ID()), Journal: j, Clock: StepClock(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sealed(t testing.TB, key ed25519.PrivateKey, bodies ...claims.Body) (raws [][]byte) {
	t.Helper()
	return sealedBy(t, key, claims.Now{Wall: 1_800_000_000_000, Boot: 1}, bodies...)
}

// sealedAt is one record as a peer writes it whose clock shows that time.
func sealedAt(t testing.TB, key ed25519.PrivateKey, at time.Time, b claims.Body) []byte {
	t.Helper()
	return sealedBy(t, key, claims.Now{Wall: at.UnixMilli(), Boot: 1}, b)[0]
}

func sealedBy(t testing.TB, key ed25519.PrivateKey, now claims.Now, bodies ...claims.Body) (raws [][]byte) {
	t.Helper()
	r := claims.NewReplica(claims.Config{Key: key, Instance: 1}, nil, now)
	for _, b := range bodies {
		for _, e := range r.Step(now, claims.Post{Body: b}) {
			if p, ok := e.(claims.Publish); ok && p.Record.Type() != claims.TypeBeat {
				raws = append(raws, p.Record.Raw())
			}
		}
	}
	if len(raws) != len(bodies) {
		t.Fatalf("%d of %d records sealed", len(raws), len(bodies))
	}
	return raws
}

func message(t testing.TB, raws [][]byte) []byte {
	t.Helper()
	b, err := build.Marshal(raws)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFloodFillsItsOwnShareAlone(t *testing.T) {
	a := idle(t)
	msg := message(t, sealed(t, p2ptest.Identity(2).PrivateKey(), claims.Directive{Verb: claims.VerbPause, Scope: "x"}))
	accepted := 0
	for range 2 * peerShare / leastCharge {
		if a.validate("flooder", msg) == gossip.Accept {
			accepted++
		}
	}
	if most := peerShare / leastCharge; accepted != most {
		t.Errorf("%d messages of one peer wait, want %d", accepted, most)
	}
	if v := a.validate("other", msg); v != gossip.Accept {
		t.Errorf("another peer's message: verdict %v", v)
	}
	sync, err := claims.EncodeSync(claims.SyncMessage{Final: true})
	if err != nil {
		t.Fatal(err)
	}
	// Of the exchange, a few messages wait for room; more are refused.
	waiting := make(chan error)
	for range mostWaiting + 1 {
		go func() {
			_, err := a.onRequest(context.Background(), "flooder", sync)
			waiting <- err
		}()
	}
	if err := <-waiting; !errors.Is(err, errBusy) {
		t.Errorf("one message too many of the exchange: %v", err)
	}
	for range accepted {
		a.loopless()
	}
	for range mostWaiting {
		if err := <-waiting; err != nil {
			t.Errorf("a message that waited for room: %v", err)
		}
		a.loopless()
	}
	if n := len(a.intake.peers); n != 1 { // the other's message still waits
		t.Errorf("%d peers have something waiting", n)
	}
	if v := a.validate("flooder", msg); v != gossip.Accept {
		t.Errorf("after the loop took everything: verdict %v", v)
	}
}

// loopless takes one letter as the loop does, without stepping it.
func (a *Agent) loopless() {
	m, _ := a.intake.next()
	a.intake.release(m.from, m.size)
}

// A page is checked while its sender goes on; what comes after it waits its turn.
func TestMessagesOfTheExchangeComeToTheLoopInTheirOrder(t *testing.T) {
	a := idle(t)
	key := p2ptest.Identity(2).PrivateKey()
	var scopes []claims.Body
	for i := range 4 * checkPart {
		scopes = append(scopes, claims.Directive{Verb: claims.VerbPause, Scope: fmt.Sprintf("x%d", i)})
	}
	raws := sealed(t, key, scopes...)
	bad := append(slices.Clone(raws[:3*checkPart]), append([]byte(nil), raws[0]...))
	bad[len(bad)-1][len(raws[0])-1] ^= 1
	for _, m := range []claims.SyncMessage{{Records: raws}, {Records: bad}, {Final: true}} {
		b, err := claims.EncodeSync(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.onRequest(context.Background(), "peer", b); err != nil {
			t.Fatal(err)
		}
	}
	// The last one was short, so it has had its turn, and those before it theirs.
	first, _ := a.intake.next()
	second, _ := a.intake.next()
	if len(first.evs) != 2 || len(first.evs[0].(claims.Validated).Records) != len(raws) {
		t.Errorf("first came %+v, want the page", first.evs)
	}
	if len(second.evs) != 1 || !second.evs[0].(claims.Synced).Msg.Final {
		t.Errorf("then came %+v, want the message after the page with a bad signature", second.evs)
	}
	if n := a.intake.malformed.Load(); n != 1 {
		t.Errorf("%d messages are counted as malformed, want the one page", n)
	}
	a.intake.release(first.from, first.size)
	a.intake.release(second.from, second.size)
	if len(a.intake.peers) != 0 {
		t.Errorf("something is still counted as waiting")
	}
	a.intake.close()
}

func TestGossipIsRelayedOnlyWhenAllOfItHolds(t *testing.T) {
	a := idle(t)
	key := p2ptest.Identity(2).PrivateKey()
	ok := sealed(t, key, claims.Directive{Verb: claims.VerbPause, Scope: "x"})
	forged := append([]byte(nil), ok[0]...)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		want gossip.Verdict
	}{
		{"good", message(t, ok), gossip.Accept},
		{"a bad signature among good ones", message(t, [][]byte{ok[0], forged}), gossip.Reject},
		{"no list", []byte("rubbish"), gossip.Reject},
		{"an empty list", message(t, [][]byte{}), gossip.Reject},
		{"nothing", nil, gossip.Reject},
	} {
		if v := a.validate("peer", c.data); v != c.want {
			t.Errorf("%s: verdict %v, want %v", c.name, v, c.want)
		}
	}
	if n := a.intake.peers["peer"].used; n != leastCharge {
		t.Errorf("%d bytes are counted as waiting, want those of the good one", n)
	}
}

func TestAnOutboxThatNobodyEmptiesIsDropped(t *testing.T) {
	box := newMailbox[int]()
	for i := range 10 {
		if !box.put(i, 10) {
			t.Fatalf("full at %d", i)
		}
	}
	if box.put(10, 10) {
		t.Error("more than the bound went in")
	}
	if got := box.take(); len(got) != 0 {
		t.Errorf("%d messages of a broken sequence are left", len(got))
	}
}
