package p2ptest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/p2p"
)

// Host is one peer of a Net; it is a p2p.Network.
type Host struct {
	net    *Net
	id     string
	ctx    context.Context // done when the host is closed
	cancel context.CancelFunc
	wg     sync.WaitGroup // handlers

	// handlers, streams and topics are guarded by net.mu.
	handlers map[string]func(p2p.Stream)
	streams  map[*stream]bool
	topics   map[string]*topic

	watchMu  sync.Mutex
	watchers []chan struct{}
	last     []string
}

var _ p2p.Network = (*Host)(nil)

// Self is the id given to Net.Host.
func (h *Host) Self() string { return h.id }

// Peers lists the hosts that this one has a link to, sorted.
func (h *Host) Peers() []string { return h.net.peersOf(h.id) }

// Open implements p2p.Network. It takes one round trip of the link.
func (h *Host) Open(ctx context.Context, peer, proto string) (p2p.Stream, error) {
	if err := h.wait(ctx, peer); err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, peer, err)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	remote := n.hosts[peer]
	if _, ok := n.upLocked(h.id, peer); !ok || peer == h.id || h.ctx.Err() != nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, peer, p2p.ErrUnreachable)
	}
	handler := remote.handlers[proto]
	if handler == nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, peer, p2p.ErrNoProtocol)
	}
	local, far := newStreams(h, remote)
	h.streams[local], remote.streams[far] = true, true
	remote.wg.Go(func() { handler(far) })
	return local, nil
}

// wait passes one round trip of the link to peer.
func (h *Host) wait(ctx context.Context, peer string) error {
	if h.ctx.Err() != nil {
		return p2p.ErrClosed
	}
	d, _ := h.net.up(h.id, peer)
	t := time.NewTimer(2 * d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-h.ctx.Done():
		return p2p.ErrClosed
	}
}

// Handle implements p2p.Network.
func (h *Host) Handle(proto string, f func(p2p.Stream)) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if f == nil {
		delete(h.handlers, proto)
		return
	}
	h.handlers[proto] = f
}

// Watch implements p2p.Network.
func (h *Host) Watch() <-chan struct{} {
	c := make(chan struct{}, 1)
	h.watchMu.Lock()
	defer h.watchMu.Unlock()
	h.watchers = append(h.watchers, c)
	return c
}

func (h *Host) changed(peers []string) {
	h.watchMu.Lock()
	defer h.watchMu.Unlock()
	if slices.Equal(h.last, peers) {
		return
	}
	h.last = peers
	for _, c := range h.watchers {
		select {
		case c <- struct{}{}:
		default: // one signal waits already
		}
	}
}

// Close takes the host out of the net, resets its streams, ends its topics and
// waits for its handlers. For the others it is a crash. Closing twice is fine.
func (h *Host) Close() error {
	h.cancel()
	n := h.net
	n.mu.Lock()
	if n.hosts[h.id] == h {
		delete(n.hosts, h.id)
	}
	var open []*stream
	for s := range h.streams {
		open = append(open, s)
	}
	n.mu.Unlock()
	for _, s := range open {
		s.breakBoth(errLinkCut)
	}
	n.notify()
	h.changed(nil)
	h.wg.Wait()
	return nil
}
