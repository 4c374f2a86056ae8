package claims

import (
	"fmt"
	"testing"

	"github.com/build-swarm/swarm/claims/wire"
)

// written is a record of the n-th peer.
func written(t *testing.T, n int, now Now, b Body) wire.Opened {
	t.Helper()
	r := newPeer(n, now)
	o, err := r.seal(now, b)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// One member makes up one author after another, each within its own share.
func TestAFullBoardTakesNoMoreSaysSoAndGoesOn(t *testing.T) {
	now := Now{Wall: 1_800_000_000_000, Boot: 1}
	r := synced(1, now)
	honest := written(t, 2, now, Directive{Verb: VerbPause, Scope: "x", Reason: "to clean it"})
	r.Step(now, Received{From: "x", Records: []wire.Opened{honest}})
	r.board.most = r.board.bytes + 3*len(honest.Raw())
	alarms := 0
	for n := range 20 {
		o := written(t, 100+n, now, Directive{Verb: VerbPause, Scope: fmt.Sprintf("y%02d", n)})
		for _, e := range r.Step(now, Received{From: "x", Records: []wire.Opened{o}}) {
			if a, ok := e.(Alarm); ok && a.Code == "board" {
				alarms++
			}
		}
	}
	if r.board.bytes > r.board.most || r.Count() < 3 || r.Refused.Full == 0 || r.Refused.Full+uint64(r.Count()) != 21 || r.Refused.Quota != 0 {
		t.Errorf("%d records of %d bytes, of %d that there may be; refused %+v", r.Count(), r.board.bytes, r.board.most, r.Refused)
	}
	if alarms != 1 {
		t.Errorf("a person is told %d times", alarms)
	}
	// What is there goes on: a newer version in the place of an old one that is no
	// shorter, and the peer's own.
	later := Now{Wall: now.Wall + 1000, Boot: 1001}
	r.Step(later, Received{From: "x", Records: []wire.Opened{written(t, 2, later, Directive{Verb: VerbPause, Scope: "x", Off: true})}})
	if _, paused := r.idx.order(VerbPause, "x"); paused {
		t.Error("an order cannot be lifted on a full board")
	}
	have := r.Count()
	r.Step(later, Post{Directive{Verb: VerbDrain, Scope: "own"}})
	if r.Count() != have+1 {
		t.Error("a peer with a full board cannot write its own")
	}
}
