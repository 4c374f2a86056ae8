package p2p

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// Members carry connections for each other (libp2p's circuit relay v2): a peer
// behind NAT, or in another subnet without a route, is reached through any member
// that both are connected to. Only members can be relays or be relayed to, since
// the swarm key guards every connection; what is relayed is encrypted between its
// ends with the swarm key and their own, and the relay sees bytes alone.
//
// A peer takes a reservation at the members it is connected to, which is one small
// message each now and again every reserveEvery. A dial goes through members only
// after it failed directly.

const (
	reserveTTL   = time.Hour
	reserveEvery = 25 * time.Minute
	// maxReserved is at how many members a peer can be reached.
	maxReserved = 16
	// throughTimeout bounds a dial through members, throughMost of them.
	throughTimeout = 8 * time.Second
	throughMost    = 8
)

// newRelay lets this host carry others' connections. What libp2p allows strangers
// by default, two minutes and 128 KiB, is no use between machines of one person.
func newRelay(lh host.Host) (*relay.Relay, error) {
	r, err := relay.New(lh, relay.WithInfiniteLimits(), relay.WithResources(relay.Resources{
		ReservationTTL: reserveTTL, MaxReservations: 128, MaxCircuits: 16, BufferSize: 32 << 10,
		MaxReservationsPerIP: 128, MaxReservationsPerASN: 128,
	}))
	if err != nil {
		return nil, fmt.Errorf("carry connections of other members: %w", err)
	}
	return r, nil
}

// relayed reports whether an address leads through a member.
func relayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// reserver keeps this host's reservations.
type reserver struct {
	mu sync.Mutex
	at map[peer.ID]time.Time // taken
}

// reserve takes a reservation at a connected member, unless there is one, or
// enough of them.
func (h *Host) reserve(ctx context.Context, id peer.ID) {
	conn := h.bestConn(id)
	if conn == nil || relayed(conn.RemoteMultiaddr()) {
		return
	}
	if known, err := h.lh.Peerstore().SupportsProtocols(id, proto.ProtoIDv2Hop); err != nil || len(known) == 0 {
		return
	}
	now := time.Now()
	h.reserved.mu.Lock()
	for other := range h.reserved.at {
		if h.lh.Network().Connectedness(other) != network.Connected {
			delete(h.reserved.at, other) // it went with the connection
		}
	}
	_, have := h.reserved.at[id]
	full := len(h.reserved.at) >= maxReserved
	if !have && !full {
		h.reserved.at[id] = now
	}
	h.reserved.mu.Unlock()
	if full && !have {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, throughTimeout)
	defer cancel()
	if _, err := client.Reserve(ctx, h.lh, peer.AddrInfo{ID: id}); err != nil && ctx.Err() == nil {
		h.log.Debug("a member carries no connections to here", "peer", id.String(), "err", err)
	}
}

// renew takes reservations anew before they end.
func (h *Host) renew(ctx context.Context) {
	t := time.NewTicker(reserveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, id := range h.lh.Network().Peers() {
			h.reserve(ctx, id)
		}
	}
}

// dialThrough connects to a peer through members that this host is connected to.
func (h *Host) dialThrough(ctx context.Context, id peer.ID) error {
	info := peer.AddrInfo{ID: id}
	for _, member := range h.lh.Network().Peers() {
		conn := h.bestConn(member)
		if member == id || conn == nil || relayed(conn.RemoteMultiaddr()) || len(info.Addrs) >= throughMost {
			continue
		}
		a, err := ma.NewMultiaddr("/p2p/" + member.String() + "/p2p-circuit")
		if err != nil {
			return err
		}
		info.Addrs = append(info.Addrs, a)
	}
	if len(info.Addrs) == 0 {
		return ErrNoAddress
	}
	ctx, cancel := context.WithTimeout(ctx, throughTimeout)
	defer cancel()
	return h.lh.Connect(ctx, info)
}
