package p2ptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

func hosts(t *testing.T, net *p2ptest.Net, n int) []*p2ptest.Host {
	t.Helper()
	var out []*p2ptest.Host
	for i := range n {
		h := net.Host(p2ptest.ID(i))
		t.Cleanup(func() { _ = h.Close() })
		out = append(out, h)
	}
	return out
}

func TestTheInMemoryNetworkIsANetwork(t *testing.T) {
	p2ptest.TestNetwork(t, func(t *testing.T, n int) []p2p.Network {
		var out []p2p.Network
		for _, h := range hosts(t, p2ptest.NewNet(1), n) {
			out = append(out, h)
		}
		return out
	})
}

func TestTheInMemoryTopicIsATopic(t *testing.T) {
	p2ptest.TestTopic(t, func(t *testing.T, n int, v gossip.Validator) []gossip.Topic {
		var out []gossip.Topic
		for _, h := range hosts(t, p2ptest.NewNet(1), n) {
			topic, err := h.Topic("test", v)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, topic)
		}
		return out
	})
}

func TestLatencyPassesInTheBubblesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := p2ptest.NewNet(1)
		net.SetLatency(5 * time.Second)
		h := hosts(t, net, 2)
		p2p.Serve(h[1], "/echo/1", 10, func(_ context.Context, _ string, b []byte) ([]byte, error) { return b, nil })
		start := time.Now()
		if _, err := p2p.Request(t.Context(), h[0], h[1].Self(), "/echo/1", []byte("x"), 10); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 20*time.Second { // open: there and back; request: there and back
			t.Errorf("took %s, want 20s", took)
		}
		net.SetLatency(20 * time.Second)
		if _, err := p2p.Request(t.Context(), h[0], h[1].Self(), "/echo/1", nil, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a deadline: %v, want the default's end", err)
		}
	})
}

func TestACutResetsStreamsAndAHealBringsThePeerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := p2ptest.NewNet(1)
		h := hosts(t, net, 3)
		h[1].Handle("/hold/1", func(s p2p.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Close() })
		s, err := h[0].Open(t.Context(), h[1].Self(), "/hold/1")
		if err != nil {
			t.Fatal(err)
		}
		w0, w2 := h[0].Watch(), h[2].Watch()
		net.Cut(h[0].Self(), h[1].Self())
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read over a cut link: %v", err)
		}
		<-w0
		if len(w2) != 0 {
			t.Error("a cut between two others woke the third")
		}
		if got := h[0].Peers(); !slices.Equal(got, []string{h[2].Self()}) {
			t.Errorf("peers after the cut: %v", got)
		}
		if _, err := h[0].Open(t.Context(), h[1].Self(), "/hold/1"); !errors.Is(err, p2p.ErrUnreachable) {
			t.Errorf("open over a cut link: %v", err)
		}
		net.Heal(h[0].Self(), h[1].Self())
		<-w0
		if got := h[0].Peers(); len(got) != 2 {
			t.Errorf("peers after the heal: %v", got)
		}
	})
}

func TestAPartitionSeparatesGroups(t *testing.T) {
	net := p2ptest.NewNet(1)
	h := hosts(t, net, 5)
	id := func(i int) string { return h[i].Self() }
	net.Partition([]string{id(0), id(1)}, []string{id(2), id(3)})
	for i, want := range []int{1, 1, 1, 1, 0} {
		if got := len(h[i].Peers()); got != want {
			t.Errorf("host %d has %d peers, want %d", i, got, want)
		}
	}
	net.HealAll()
	if got := len(h[4].Peers()); got != 4 {
		t.Errorf("after healing %d peers, want 4", got)
	}
}

func TestAClosedHostMayComeBack(t *testing.T) {
	net := p2ptest.NewNet(1)
	h := hosts(t, net, 2)
	_ = h[1].Close()
	if got := h[0].Peers(); len(got) != 0 {
		t.Errorf("peers after the crash: %v", got)
	}
	again := net.Host(h[1].Self())
	defer again.Close()
	if got := h[0].Peers(); len(got) != 1 {
		t.Errorf("peers after the restart: %v", got)
	}
}

// Gossip relays: what a lossy or missing link does not carry comes over a third.
func TestGossipGoesRoundACutAndLossIsReplayedBySeed(t *testing.T) {
	received := func(seed uint64, loss float64) string {
		var out []byte
		synctest.Test(t, func(t *testing.T) {
			net := p2ptest.NewNet(seed)
			net.SetLoss(loss)
			net.SetLatency(time.Millisecond)
			h := hosts(t, net, 3)
			net.Cut(h[0].Self(), h[2].Self())
			var topics []gossip.Topic
			for _, x := range h {
				topic, err := x.Topic("t", nil)
				if err != nil {
					t.Fatal(err)
				}
				topics = append(topics, topic)
			}
			for i := range 64 {
				if err := topics[0].Publish(t.Context(), []byte{byte(i)}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond) // the bubble's clock
			}
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				msg, err := topics[2].Next(ctx)
				cancel()
				if err != nil {
					return
				}
				out = fmt.Appendf(out, "%d ", msg.Data[0])
			}
		})
		return string(out)
	}
	if got := received(1, 0); len(got) < 2*64 {
		t.Errorf("without loss: %s", got)
	}
	first := received(7, 0.3)
	if first == received(1, 0) || first != received(7, 0.3) || first == received(8, 0.3) {
		t.Error("loss is not a function of the seed")
	}
}
