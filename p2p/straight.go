package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// A pair that is connected through a member is dialled directly now and then: the
// way that failed, to a machine that woke up or a network that changed, may work
// by now. The connection through the member is closed when it is not in use.

const (
	straightLook  = 30 * time.Second
	straightFirst = 30 * time.Second // doubled with every failure
	straightMost  = time.Hour
)

// detour is what a host did about a peer that it reaches through a member.
type detour struct {
	next time.Time
	wait time.Duration
}

// straighten looks for detours until ctx ends.
func (h *Host) straighten(ctx context.Context) {
	known := map[peer.ID]detour{}
	look := time.NewTicker(straightLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			h.goStraight(ctx, known, now)
		}
	}
}

// goStraight tries every peer that is due.
func (h *Host) goStraight(ctx context.Context, known map[peer.ID]detour, now time.Time) {
	for id := range known {
		if h.lh.Network().Connectedness(id) != network.Connected {
			delete(known, id)
		}
	}
	for _, id := range h.lh.Network().Peers() {
		best := h.bestConn(id)
		if best == nil {
			continue
		}
		if !relayed(best.RemoteMultiaddr()) {
			delete(known, id)
			h.closeDetour(id)
			continue
		}
		d, ok := known[id]
		if !ok {
			d = detour{now.Add(jitter(straightFirst)), straightFirst}
		}
		if !now.Before(d.next) {
			if err := h.dialDirect(ctx, id); err == nil {
				h.log.Info("reached directly again", "peer", id.String())
				delete(known, id)
				continue
			}
			d.wait = min(straightMost, 2*d.wait)
			d.next = now.Add(jitter(d.wait))
		}
		known[id] = d
	}
}

// dialDirect connects to a peer at its own addresses although there is a
// connection through a member.
func (h *Host) dialDirect(ctx context.Context, id peer.ID) error {
	e, ok := h.book.get(id)
	if !ok {
		return ErrNoAddress
	}
	h.lh.Peerstore().AddAddrs(id, mergeAddrs(e.static, e.addrs), peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "in place of a detour"), dialTimeout)
	defer cancel()
	_, err := h.lh.Network().DialPeer(ctx, id)
	return err
}

// closeDetour closes the connections through members to a peer that is reached
// directly, unless something is open on them.
func (h *Host) closeDetour(id peer.ID) {
	for _, c := range h.lh.Network().ConnsToPeer(id) {
		if relayed(c.RemoteMultiaddr()) && !connInUse(c) {
			_ = c.Close() // it is gone, then
		}
	}
}
