package p2ptest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
)

// seenFor is how long a message's name is remembered, as in libp2p's pubsub.
const seenFor = 120 * time.Second

// topic is one host's membership; every host that joined floods what it accepts.
type topic struct {
	host     *Host
	name     string
	validate gossip.Validator
	queue    chan gossip.Message
	ctx      context.Context
	cancel   context.CancelFunc

	mu   sync.Mutex
	seen map[[32]byte]time.Time
}

var _ gossip.Topic = (*topic)(nil)

// Topic joins a topic. A host joins one name once; it may join again after Close.
func (h *Host) Topic(name string, validate gossip.Validator) (gossip.Topic, error) {
	if validate == nil {
		validate = func(string, []byte) gossip.Verdict { return gossip.Accept }
	}
	ctx, cancel := context.WithCancel(h.ctx)
	t := &topic{
		host: h, name: name, validate: validate, queue: make(chan gossip.Message, gossip.QueueLen),
		ctx: ctx, cancel: cancel, seen: map[[32]byte]time.Time{},
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.topics[name] != nil || h.ctx.Err() != nil {
		cancel()
		return nil, fmt.Errorf("join topic %s on %s: joined already, or the host is closed", name, h.id)
	}
	h.topics[name] = t
	return t, nil
}

// Publish implements gossip.Topic.
func (t *topic) Publish(ctx context.Context, data []byte) error {
	switch {
	case t.ctx.Err() != nil:
		return fmt.Errorf("publish on %s: %w", t.name, p2p.ErrClosed)
	case ctx.Err() != nil:
		return fmt.Errorf("publish on %s: %w", t.name, ctx.Err())
	case len(data) > gossip.MaxMessage:
		return fmt.Errorf("publish %d bytes on %s: %w of %d", len(data), t.name, p2p.ErrTooLarge, gossip.MaxMessage)
	}
	sum := sha256.Sum256(data)
	if t.first(sum) {
		t.relay("", sum, slices.Clone(data))
	}
	return nil
}

// Next implements gossip.Topic.
func (t *topic) Next(ctx context.Context) (gossip.Message, error) {
	select {
	case m := <-t.queue:
		return m, nil
	case <-t.ctx.Done():
		return gossip.Message{}, fmt.Errorf("read topic %s: %w", t.name, p2p.ErrClosed)
	case <-ctx.Done():
		return gossip.Message{}, ctx.Err()
	}
}

// Close implements gossip.Topic.
func (t *topic) Close() error {
	t.cancel()
	t.host.net.mu.Lock()
	defer t.host.net.mu.Unlock()
	if t.host.topics[t.name] == t {
		delete(t.host.topics, t.name)
	}
	return nil
}

// first says whether a message is new here, and remembers it.
func (t *topic) first(sum [32]byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if at, ok := t.seen[sum]; ok && now.Sub(at) < seenFor {
		return false
	}
	if len(t.seen) >= 4096 {
		for k, at := range t.seen {
			if now.Sub(at) >= seenFor {
				delete(t.seen, k)
			}
		}
	}
	t.seen[sum] = now
	return true
}

// relay passes a message to every neighbour but the one it came from.
func (t *topic) relay(from string, sum [32]byte, data []byte) {
	for _, id := range t.host.Peers() {
		if id == from || t.host.net.loses(t.host.id, id) {
			continue
		}
		latency, ok := t.host.net.up(t.host.id, id)
		if !ok {
			continue
		}
		// Without latency too: a validator never runs on the publisher's goroutine.
		time.AfterFunc(latency, func() { t.arrive(id, sum, data) })
	}
}

// arrive is the moment at which a message of t reaches peer id.
func (t *topic) arrive(id string, sum [32]byte, data []byte) {
	n := t.host.net
	n.mu.Lock()
	var at *topic
	if _, ok := n.upLocked(t.host.id, id); ok { // cut meanwhile: lost
		at = n.hosts[id].topics[t.name]
	}
	n.mu.Unlock()
	if at == nil || !at.first(sum) {
		return
	}
	if at.validate(t.host.id, data) != gossip.Accept {
		return
	}
	select {
	case at.queue <- gossip.Message{From: t.host.id, Data: slices.Clone(data)}:
	default: // the reader is slow: dropped, as in pubsub
	}
	at.relay(t.host.id, sum, data)
}
