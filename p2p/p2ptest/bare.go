package p2ptest

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// BareHost is a libp2p host with nothing on it: libp2p's own defaults but for the
// private network, which leaves TCP alone. It is what benchmarks compare a peer
// with. It listens on loopback and stays connected to the given addresses, which
// end in /p2p/ID. Hosts of equal secret are of one network. Close it.
func BareHost(ctx context.Context, secret string, dial ...string) (h host.Host, addr string, err error) {
	key := sha256.Sum256([]byte(secret))
	h, err = libp2p.New(libp2p.PrivateNetwork(pnet.PSK(key[:])), libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return nil, "", fmt.Errorf("start a bare host: %w", err)
	}
	for _, text := range dial {
		info, err := peer.AddrInfoFromString(text)
		if err == nil {
			err = h.Connect(ctx, *info)
		}
		if err != nil {
			_ = h.Close() // the first error counts
			return nil, "", fmt.Errorf("connect a bare host to %s: %w", text, err)
		}
	}
	return h, h.Addrs()[0].String() + "/p2p/" + h.ID().String(), nil
}
