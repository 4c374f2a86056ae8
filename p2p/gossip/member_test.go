package gossip_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// members starts n hosts in a line or a star round the first, each on the topic.
func members(t *testing.T, n int, v gossip.Validator, mesh bool) []*gossip.Member {
	t.Helper()
	key := p2p.NewSwarmKey()
	var hosts []*p2p.Host
	var out []*gossip.Member
	for i := range n {
		h, err := p2p.NewHost(p2p.Config{
			Identity: p2ptest.Identity(i), SwarmKey: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		m, err := gossip.Join(h, "/swarm/test/1", v, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		for j := range hosts {
			if mesh || j == i-1 {
				if err := h.Connect(within(t), hosts[j].Addrs()); err != nil {
					t.Fatal(err)
				}
			}
		}
		hosts, out = append(hosts, h), append(out, m)
	}
	for i, m := range out {
		want := n - 1
		if !mesh {
			want = 2
			if i == 0 || i == n-1 {
				want = 1
			}
		}
		if err := m.WaitPeers(within(t), want); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestTheLibp2pTopicIsATopic(t *testing.T) {
	p2ptest.TestTopic(t, func(t *testing.T, n int, v gossip.Validator) []gossip.Topic {
		var out []gossip.Topic
		for _, m := range members(t, n, v, true) {
			out = append(out, m)
		}
		return out
	})
}

// A line of three: what the first says comes to the last through the middle, from
// the moment at which the middle's mesh stands, which is its next heartbeat.
func TestMessagesAreRelayedAndFromNamesTheNeighbour(t *testing.T) {
	refused := make(chan string, 1000)
	m := members(t, 3, func(_ string, data []byte) gossip.Verdict {
		if data[0] == 'x' {
			refused <- string(data)
			return gossip.Ignore
		}
		return gossip.Accept
	}, false)
	got := make(chan gossip.Message)
	go func() {
		defer close(got)
		if msg, err := m[2].Next(within(t)); err == nil {
			got <- msg
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		for _, text := range []string{"x %d", "good %d"} {
			if err := m[0].Publish(within(t), fmt.Appendf(nil, text, i)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case msg := <-got:
			if !strings.HasPrefix(string(msg.Data), "good") || msg.From != p2ptest.ID(1) {
				t.Errorf("%q from %s; want a good one from the middle", msg.Data, msg.From)
			}
			if len(refused) == 0 {
				t.Error("the middle refused nothing")
			}
			return
		case <-tick.C:
		}
	}
}

func TestASlowReaderLosesMessagesAndNothingElse(t *testing.T) {
	m := members(t, 2, nil, true)
	const burst = gossip.QueueLen + 200
	for i := range burst {
		if err := m[0].Publish(within(t), fmt.Appendf(nil, "message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for range gossip.QueueLen / 2 {
		if _, err := m[1].Next(within(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATopicOfOneMemberPublishesToNobody(t *testing.T) {
	m := members(t, 1, nil, true)
	if err := m[0].Publish(within(t), []byte("alone")); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m[0].Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("it heard itself: %v", err)
	}
}
