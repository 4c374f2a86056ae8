package p2p

import (
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

const (
	// streamWindow is what one stream may buffer: yamux tunes its window up to it.
	streamWindow = 16 << 20
	// bulkStreams per peer may have a full window at the same time, each way.
	bulkStreams = 4
	// peerStreams bounds the streams open with one peer, each way.
	peerStreams = 512
	// connsPerIP bounds connections from one address or IPv6 network: a swarm
	// sits behind one NAT, or in one /56, with all its machines.
	connsPerIP = 256
)

// resources makes libp2p's resource manager with the limits that a swarm of
// friends needs. libp2p's defaults are made for strangers and bite here: 16 MiB
// per protocol and peer is one bulk stream; 8 connections per IPv4 address or
// IPv6 /56, and one new one in 5 s, is a small LAN with global IPv6.
func resources() (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	bulk := rcmgr.ResourceLimits{
		Streams: 2 * peerStreams, StreamsInbound: peerStreams, StreamsOutbound: peerStreams,
		Memory: 2 * bulkStreams * streamWindow,
	}
	perPeer := bulk
	perPeer.Conns, perPeer.ConnsInbound, perPeer.ConnsOutbound, perPeer.FD = 16, 8, 16, 16
	limits := rcmgr.PartialLimitConfig{
		ProtocolPeerDefault: bulk,
		ProtocolDefault:     rcmgr.ResourceLimits{Memory: 64 * streamWindow, Streams: 8192, StreamsInbound: 4096, StreamsOutbound: 8192},
		PeerDefault:         perPeer,
		Conn:                rcmgr.ResourceLimits{Memory: 2 * bulkStreams * streamWindow},
		System: rcmgr.ResourceLimits{
			Memory: 128 * streamWindow, Conns: 1024, ConnsInbound: 512, ConnsOutbound: 512, FD: 1024,
			Streams: 16384, StreamsInbound: 8192, StreamsOutbound: 16384,
		},
	}.Build(scaling.AutoScale())
	perNet := func(prefix int) rcmgr.ConnLimitPerSubnet {
		return rcmgr.ConnLimitPerSubnet{PrefixLength: prefix, ConnCount: connsPerIP}
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet([]rcmgr.ConnLimitPerSubnet{perNet(32)}, []rcmgr.ConnLimitPerSubnet{perNet(56)}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{GlobalLimit: rate.Limit{RPS: 100, Burst: 500}}))
	if err != nil {
		return nil, fmt.Errorf("set the resource limits: %w", err)
	}
	return m, nil
}
