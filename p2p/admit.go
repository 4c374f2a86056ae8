package p2p

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

// admittedFor is how long a peer that left is still one of the swarm for what
// stands beside the private network.
const admittedFor = time.Hour

// noteLeft remembers when a peer's last connection ended.
func (h *Host) noteLeft(id peer.ID, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for other, t := range h.left {
		if now.Sub(t) > admittedFor {
			delete(h.left, other)
		}
	}
	h.left[id] = now
}

// Admits reports whether a peer is connected over the private network, or was
// within the last hour, and is not banned: it knows the swarm key, as far as
// this peer has seen.
func (h *Host) Admits(peerID string) bool {
	id, err := peer.Decode(peerID)
	if err != nil || h.gate.bans(id) {
		return false
	}
	if h.lh.Network().Connectedness(id) == network.Connected {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.left[id]
	return ok && time.Since(t) < admittedFor
}

// RemoteIP is the address that a connected peer's connection goes to.
func (h *Host) RemoteIP(peerID string) (netip.Addr, bool) {
	id, err := peer.Decode(peerID)
	if err != nil {
		return netip.Addr{}, false
	}
	c := h.bestConn(id)
	if c == nil {
		return netip.Addr{}, false
	}
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}, false
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}
