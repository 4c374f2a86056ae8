package claimstest

import (
	"maps"
	"testing"
)

// A check that cannot fail checks nothing. This node forgets a move of the channel
// as no honest one does: by an older journal of which nobody is told.
func TestTheLawsSeeAChannelGoBack(t *testing.T) {
	spec, err := NewSpec("j0", 1000, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(1, Options{Net: NetOptions{MinDelay: 1, MaxDelay: 5}}, []Spec{spec})
	n := w.AddNode("a", 1000, 1, 50)
	n.Start()
	w.RunUntil(20_000, nil)
	l := newLaws(w)
	look := func() {
		t.Helper()
		if l.quiet(); l.first != nil {
			t.Fatalf("a channel that only goes on: %v", l.first)
		}
	}
	n.postChannel(1)
	look()
	older := maps.Clone(n.journal)
	w.RunUntil(40_000, nil)
	n.postChannel(2)
	look()
	n.Crash("for an older disk")
	n.journal = older
	n.Start()
	if l.quiet(); l.first == nil || l.first.Law != "I4" {
		t.Errorf("a channel went back, and the laws see %v", l.first)
	}
}
