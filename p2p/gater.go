package p2p

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater refuses connections to and from banned peers, both ways. Who has the
// swarm key and is not banned may connect.
type gater struct {
	mu     sync.RWMutex
	banned map[peer.ID]bool
}

func (g *gater) set(id peer.ID, banned bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.banned == nil {
		g.banned = map[peer.ID]bool{}
	}
	if banned {
		g.banned[id] = true
		return
	}
	delete(g.banned, id)
}

func (g *gater) bans(id peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.banned[id]
}

func (g *gater) InterceptPeerDial(id peer.ID) bool                 { return !g.bans(id) }
func (g *gater) InterceptAddrDial(id peer.ID, _ ma.Multiaddr) bool { return !g.bans(id) }
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool       { return true }

func (g *gater) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return !g.bans(id)
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return !g.bans(c.RemotePeer()), 0
}
