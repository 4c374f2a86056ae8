package p2p

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A host that rests is one whose machine is to sleep as much as it can. It keeps
// restConns connections, makes no others of itself, and tells every peer that it
// rests, so that nobody dials it but who wants something of it; such a connection
// ends when nothing was open on it at the next look. What Open is asked for is
// dialled as ever.

// restProto tells a peer that the sender rests from now on (1), or no more (0).
const restProto = "/swarm/rest/1"

const (
	// restConns is how many connections a resting host keeps.
	restConns = 2
	// restMost is after how long a peer that rests is dialled all the same: it may
	// have come back at an address where nobody knew it.
	restMost = time.Hour
	// restTell bounds how long a peer may take to hear of it.
	restTell = 3 * time.Second
)

// rest is a host's state of rest.
type rest struct {
	mu     sync.Mutex
	on     bool
	prefer []peer.ID
	turned chan struct{} // closed when on changes
}

func (r *rest) now() (on bool, prefer []peer.ID, turned <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.on, r.prefer, r.turned
}

func (r *rest) set(on bool, prefer []peer.ID) (turned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prefer = prefer
	if r.on == on {
		return false
	}
	r.on = on
	close(r.turned)
	r.turned = make(chan struct{})
	return true
}

// Rest lets this host rest, and stay connected to the first of prefer that can be
// reached. It returns when the peers that it leaves were told. Call it again once
// a minute or so, perhaps with others: that is when connections are looked at.
// Wake ends it.
func (h *Host) Rest(ctx context.Context, prefer []string) {
	ids := make([]peer.ID, 0, len(prefer))
	for _, p := range prefer {
		if id, err := peer.Decode(p); err == nil {
			ids = append(ids, id)
		}
	}
	began := h.rest.set(true, ids)
	h.dropStranded()
	h.settle(ctx, began)
	signal(h.kick)
}

// Wake ends a rest: every known peer is dialled at once.
func (h *Host) Wake(ctx context.Context) {
	h.rest.set(false, nil)
	h.book.awake(time.Now())
	signal(h.kick)
	var wg sync.WaitGroup
	for _, id := range h.lh.Network().Peers() {
		wg.Go(func() { h.tellRest(ctx, id) })
	}
	wg.Wait()
}

// Awake runs f whenever this host does not rest, with a context that ends when it
// begins to, until ctx ends. f returns when its context ends, or when there is
// nothing more for it to do before the next rest.
func (h *Host) Awake(ctx context.Context, f func(context.Context)) {
	for ctx.Err() == nil {
		on, _, turned := h.rest.now()
		c, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			select {
			case <-ctx.Done():
			case <-turned:
			}
			cancel()
		})
		if !on {
			f(c)
		}
		wg.Wait()
	}
}

// settle closes the connections that a resting host does not keep, and tells the
// peers at their ends why. all is for the beginning, when those that stay are told
// too.
func (h *Host) settle(ctx context.Context, all bool) {
	_, prefer, _ := h.rest.now()
	rank := func(id peer.ID) int {
		if at := slices.Index(prefer, id); at >= 0 {
			return at
		}
		return len(prefer)
	}
	peers := h.lh.Network().Peers()
	slices.SortFunc(peers, func(a, b peer.ID) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(string(a), string(b))
	})
	var wg sync.WaitGroup
	for at, id := range peers {
		keep := at < restConns || h.inUse(id)
		if keep && !all {
			continue
		}
		wg.Go(func() {
			h.tellRest(ctx, id)
			if !keep {
				_ = h.lh.Network().ClosePeer(id) // it is gone, then
			}
		})
	}
	wg.Wait()
}

// inUse reports whether somebody wants something on a peer's connections: what
// libp2p, the DHT and this package say to each other there is none of that.
func (h *Host) inUse(id peer.ID) bool {
	return slices.ContainsFunc(h.lh.Network().ConnsToPeer(id), connInUse)
}

func connInUse(c network.Conn) bool {
	return slices.ContainsFunc(c.GetStreams(), func(s network.Stream) bool {
		name := string(s.Protocol())
		own := name == peersProto || name == restProto || name == instanceProto || strings.Contains(name, "/kad/")
		return strings.HasPrefix(name, "/swarm/") && !own
	})
}

// tellRest tells a peer whether this host rests, and again if that is not so any
// more when it was told: the words of a moment may pass one another.
func (h *Host) tellRest(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, restTell)
	defer cancel()
	for told, first := false, true; ; first = false {
		on, _, _ := h.rest.now()
		if !first && on == told {
			return
		}
		word := []byte{0}
		if on {
			word[0] = 1
		}
		if _, err := Request(ctx, h, id.String(), restProto, word, 1); err != nil {
			if !errors.Is(err, ErrUnreachable) {
				h.log.Debug("a peer was not told of a rest", "peer", id.String(), "err", err)
			}
			return
		}
		told = on
	}
}

// onRest hears that a peer rests.
func (h *Host) onRest(_ context.Context, from string, word []byte) ([]byte, error) {
	id, err := peer.Decode(from)
	if err != nil {
		return nil, err
	}
	h.book.rests(id, len(word) == 1 && word[0] == 1)
	return nil, nil
}

// dialsWhileResting says whom a resting host dials: one of those it prefers, and
// of the others when it prefers nobody, until it has restConns connections.
func (h *Host) dialsWhileResting(prefer []peer.ID) (most int, want func(peer.ID) bool) {
	have := 0
	for _, id := range h.lh.Network().Peers() {
		if h.lh.Network().Connectedness(id) == network.Connected {
			have++
		}
	}
	return max(0, restConns-have), func(id peer.ID) bool { return len(prefer) == 0 || slices.Contains(prefer, id) }
}
