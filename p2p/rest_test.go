package p2p_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
)

// until polls: no signal tells of a word that a peer was told.
func until(t *testing.T, what func() string) {
	t.Helper()
	ctx := within(t)
	for {
		problem := what()
		if problem == "" {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(problem)
		}
	}
}

// rest lets n rest, and looks at its connections as once a minute, until it has two
// and nobody else has one with it, or dials it.
func (n *node) rest(t *testing.T, prefer []string, others ...*node) {
	t.Helper()
	until(t, func() string {
		n.Rest(within(t), prefer)
		kept := n.Peers()
		if len(kept) != 2 {
			return fmt.Sprintf("%s is connected to %v; want two", n.Self(), kept)
		}
		for _, o := range others {
			p, _ := o.PeerInfo(n.Self())
			if !p.Rests || p.Connected != slices.Contains(kept, o.Self()) {
				return fmt.Sprintf("%s: %+v; want to know that it rests, and whether connected as in %v", o.Self(), p, kept)
			}
		}
		return ""
	})
}

func TestARestingHostKeepsTwoConnectionsAndNobodyDialsIt(t *testing.T) {
	nodes := swarm(t, 6)
	rests := nodes[5]
	prefer := []string{nodes[3].Self(), nodes[1].Self(), nodes[2].Self()}
	rests.rest(t, prefer, nodes[:5]...)
	if got := rests.Peers(); !slices.Contains(got, prefer[0]) || !slices.Contains(got, prefer[1]) {
		t.Errorf("it stays connected to %v; want the first two of %v", got, prefer)
	}
	// One of the two goes: another takes its place.
	if err := nodes[3].Close(); err != nil {
		t.Fatal(err)
	}
	rests.rest(t, prefer, nodes[0], nodes[1], nodes[2], nodes[4])
	if got := rests.Peers(); !slices.Contains(got, prefer[1]) {
		t.Errorf("it is connected to %v; want %s among them", got, prefer[1])
	}
}

func TestARestingHostServesWhoWantsSomethingAndThenHangsUp(t *testing.T) {
	nodes := swarm(t, 4)
	rests, asker := nodes[3], nodes[0]
	rests.Handle("/test/echo", func(s p2p.Stream) {
		_, _ = io.Copy(s, s) // the test looks at what comes back
		_ = s.Close()
	})
	kept := []string{nodes[1].Self(), nodes[2].Self()}
	rests.rest(t, kept, nodes[:3]...)
	s, err := asker.Open(within(t), rests.Self(), "/test/echo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	rests.rest(t, kept, nodes[:3]...)
}

func TestAHostThatWakesIsConnectedToAllAtOnce(t *testing.T) {
	nodes := swarm(t, 5)
	rests := nodes[4]
	rests.rest(t, nil, nodes[:4]...)
	rests.Wake(within(t))
	var others []string
	for _, n := range nodes[:4] {
		others = append(others, n.Self())
	}
	rests.sees(t, others...)
	until(t, func() string {
		for _, n := range nodes[:4] {
			if p, _ := n.PeerInfo(rests.Self()); p.Rests {
				return n.Self() + " takes it for resting"
			}
		}
		return ""
	})
}

func TestWorkThatIsDoneAwakeEndsWithARestAndBeginsAgain(t *testing.T) {
	n := swarm(t, 1)[0]
	ctx, cancel := context.WithCancel(within(t))
	begun, ended := make(chan bool), make(chan struct{})
	go func() {
		defer close(ended)
		n.Awake(ctx, func(ctx context.Context) {
			begun <- true
			<-ctx.Done()
			begun <- false
		})
	}()
	for _, step := range []struct {
		do   func()
		want bool
	}{{func() {}, true}, {func() { n.Rest(ctx, nil) }, false}, {func() { n.Wake(ctx) }, true}, {cancel, false}} {
		step.do()
		if got := <-begun; got != step.want {
			t.Fatalf("work begun: %v, want %v", got, step.want)
		}
	}
	<-ended
}
