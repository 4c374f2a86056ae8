package p2p

import (
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// maxAddrs bounds the addresses kept and told per peer.
	maxAddrs = 8
	// maxTold bounds the peers of one answer.
	maxTold = 64
	// maxAnswer bounds that answer, in bytes.
	maxAnswer = 64 << 10
)

// Dialable keeps the addresses that a host can dial: an IP address and a TCP
// port, nothing else. A name would make this machine ask the DNS for what a peer
// said, so names count only when a person configured them.
func Dialable(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if len(a) == 2 && isIP(a[0].Code()) && a[1].Code() == ma.P_TCP && !manet.IsIPUnspecified(a) {
			out = append(out, a)
		}
	}
	return out
}

func isIP(code int) bool { return code == ma.P_IP4 || code == ma.P_IP6 }

// reachableFrom keeps the addresses that make sense to the machine at remote: a
// loopback address does only on this machine, a private one not across the
// Internet. With an unknown remote everything stays.
func reachableFrom(addrs []ma.Multiaddr, remote ma.Multiaddr) []ma.Multiaddr {
	if remote == nil || manet.IsIPLoopback(remote) {
		return addrs
	}
	public := manet.IsPublicAddr(remote)
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		return manet.IsIPLoopback(a) || public && !manet.IsPublicAddr(a)
	})
}

// mergeAddrs puts the newer addresses first and drops the oldest above maxAddrs.
func mergeAddrs(newer, older []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range slices.Concat(newer, older) {
		if len(out) < maxAddrs && !ma.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func addrStrings(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

var errInfos = errors.New("malformed list of peers")

// appendInfos writes peers and their addresses: count, 1 byte; per peer its ID
// (length 1 byte) and its addresses (count 1 byte; each length 1 byte).
func appendInfos(b []byte, infos []peer.AddrInfo) []byte {
	infos = infos[:min(len(infos), maxTold)]
	b = append(b, byte(len(infos)))
	for _, info := range infos {
		b = appendBytes(b, []byte(info.ID))
		addrs := slices.DeleteFunc(slices.Clone(info.Addrs), func(a ma.Multiaddr) bool { return len(a.Bytes()) > 255 })
		addrs = addrs[:min(len(addrs), maxAddrs)]
		b = append(b, byte(len(addrs)))
		for _, a := range addrs {
			b = appendBytes(b, a.Bytes())
		}
	}
	return b
}

// parseInfos reads what appendInfos wrote, and nothing behind it.
func parseInfos(b []byte) ([]peer.AddrInfo, error) {
	if len(b) == 0 || b[0] > maxTold {
		return nil, errInfos
	}
	infos := make([]peer.AddrInfo, 0, b[0])
	n := int(b[0])
	b = b[1:]
	for range n {
		id, rest, ok := cutBytes(b)
		if !ok || len(rest) == 0 || rest[0] > maxAddrs {
			return nil, errInfos
		}
		pid, err := peer.IDFromBytes(id)
		if err != nil {
			return nil, errInfos
		}
		info := peer.AddrInfo{ID: pid}
		k := int(rest[0])
		b = rest[1:]
		for range k {
			var raw []byte
			if raw, b, ok = cutBytes(b); !ok {
				return nil, errInfos
			}
			a, err := ma.NewMultiaddrBytes(raw)
			if err != nil || len(a) == 0 {
				return nil, errInfos
			}
			info.Addrs = append(info.Addrs, a)
		}
		infos = append(infos, info)
	}
	if len(b) != 0 {
		return nil, errInfos
	}
	return infos, nil
}

func appendBytes(b, x []byte) []byte { return append(append(b, byte(len(x))), x...) }

func cutBytes(b []byte) (head, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return nil, nil, false
	}
	n := int(b[0])
	return b[1 : 1+n], b[1+n:], true
}
