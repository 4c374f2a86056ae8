package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// peersProto tells a peer whom this one is connected to, as appendInfos writes it,
// and gets the same back. It makes a full mesh of a small swarm within one round
// trip of the first connections, which the DHT does within ten minutes. Both ways,
// because two newcomers may ask a third before it knows where either listens: the
// later one to be identified is told of the other.
const peersProto = "/swarm/peers/1"

// answerPeers answers peersProto.
func (h *Host) answerPeers(_ context.Context, from string, told []byte) ([]byte, error) {
	asker, err := peer.Decode(from)
	if err != nil {
		return nil, err
	}
	if err := h.hear(told); err != nil {
		return nil, err
	}
	return h.tell(asker), nil
}

// tell lists the peers connected now, at addresses that mean something where the
// asker is.
func (h *Host) tell(asker peer.ID) []byte {
	var at ma.Multiaddr
	if c := h.bestConn(asker); c != nil {
		at = c.RemoteMultiaddr()
	}
	var infos []peer.AddrInfo
	for _, id := range h.lh.Network().Peers() {
		e, ok := h.book.get(id)
		if !ok || id == asker {
			continue
		}
		// One without an address that means anything there is reached through here.
		infos = append(infos, peer.AddrInfo{ID: id, Addrs: reachableFrom(e.addrs, at)})
	}
	rand.Shuffle(len(infos), func(i, j int) { infos[i], infos[j] = infos[j], infos[i] }) // above maxTold: anybody
	return appendInfos(nil, infos)
}

// hear learns what tell listed elsewhere.
func (h *Host) hear(told []byte) error {
	infos, err := parseInfos(told)
	if err != nil {
		return err
	}
	news := false
	now := time.Now()
	for _, info := range infos {
		news = h.book.learn(info, false, now) || news
	}
	if news {
		signal(h.kick)
	}
	return nil
}

// askPeers asks a random connected peer now and then.
func (h *Host) askPeers(ctx context.Context) {
	for {
		t := time.NewTimer(jitter(askPeriod))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if peers := h.lh.Network().Peers(); len(peers) > 0 {
			h.ask(ctx, peers[rand.IntN(len(peers))])
		}
	}
}

// ask exchanges what is known with one peer, and measures the round trip on the way.
func (h *Host) ask(ctx context.Context, id peer.ID) {
	start := time.Now()
	reply, err := Request(ctx, h, id.String(), peersProto, h.tell(id), maxAnswer)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrUnreachable) {
			h.log.Debug("peer told nothing", "peer", id.String(), "err", err)
		}
		return
	}
	h.measured(id, time.Since(start))
	if err := h.hear(reply); err != nil {
		h.log.Warn("peer tells nonsense", "peer", id.String(), "err", err)
	}
}

// measured keeps the smallest round trip, and lets it rise slowly: load makes
// single ones long, never short.
func (h *Host) measured(id peer.ID, rtt time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.rtts[id]; ok && rtt > old {
		rtt = old + (rtt-old)/8
	}
	h.rtts[id] = rtt
}

// Learn tells the host where a peer is that was heard of at this moment: it is
// dialled at once unless it is connected. Addresses other than IP and TCP, and the
// host's own ID, are ignored.
func (h *Host) Learn(peerID string, addrs []string) {
	id, err := peer.Decode(peerID)
	if err != nil {
		return
	}
	info := peer.AddrInfo{ID: id}
	for _, s := range addrs {
		if a, err := ma.NewMultiaddr(s); err == nil {
			info.Addrs = append(info.Addrs, a)
		}
	}
	if h.book.learn(info, true, time.Now()) {
		signal(h.kick)
	}
}

// PeerInfo is what a host knows about another.
type PeerInfo struct {
	ID        string
	Connected bool
	Addr      string        // of the connection, as a multiaddr; empty when there is none
	Addrs     []string      // where it is known to be
	Kind      string        // "LAN" (private or loopback address), "VPN" (over a point-to-point interface, as of WireGuard), "direct", or "relay" (through a member); empty without a connection
	RTT       time.Duration // smallest round trip seen; 0 when not measured yet
	Seen      time.Time     // last connected; zero if never
	Static    bool
	Banned    bool
	Rests     bool      // it said that it keeps few connections, and not this one
	Twins     bool      // two processes answer to this ID
	Problem   error     // why the last dial failed, explained; nil while connected
	Since     time.Time // of the first of the failed dials in a row
}

// PeerInfo tells what is known of a peer; false when nothing is.
func (h *Host) PeerInfo(peerID string) (PeerInfo, bool) {
	id, err := peer.Decode(peerID)
	if err != nil {
		return PeerInfo{}, false
	}
	e, known := h.book.get(id)
	conn := h.bestConn(id)
	if !known && conn == nil {
		return PeerInfo{}, false
	}
	h.mu.Lock()
	rtt := h.rtts[id]
	h.mu.Unlock()
	info := PeerInfo{
		ID: peerID, Addrs: addrStrings(mergeAddrs(e.static, e.addrs)), Seen: e.seen, RTT: rtt,
		Static: len(e.static) > 0, Banned: h.gate.bans(id), Rests: e.rests, Twins: h.twinsOf(id), Problem: e.problem, Since: e.since,
	}
	if conn != nil {
		at := conn.RemoteMultiaddr()
		info.Connected, info.Addr, info.Kind, info.Seen, info.Problem = true, at.String(), "direct", time.Now(), nil
		switch {
		case relayed(at):
			info.Kind = "relay"
		case overVPN(conn.LocalMultiaddr()):
			info.Kind = "VPN"
		case manet.IsPrivateAddr(at) || manet.IsIPLoopback(at):
			info.Kind = "LAN"
		}
	}
	return info, true
}

// overVPN reports whether an own address is that of a tunnel: tun and WireGuard
// interfaces are point-to-point, as is a modem, which is no LAN either.
func overVPN(own ma.Multiaddr) bool {
	ip, err := manet.ToIP(own)
	if err != nil || ip.IsLoopback() {
		return false
	}
	list, err := net.Interfaces()
	if err != nil {
		return false // nothing is known of it, then
	}
	for _, i := range list {
		if i.Flags&net.FlagPointToPoint == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) }) {
			return true
		}
	}
	return false
}

// Known lists every peer that the host knows of, connected or not, by ID.
func (h *Host) Known() []PeerInfo {
	var out []PeerInfo
	for _, id := range h.book.all() {
		if info, ok := h.PeerInfo(id.String()); ok {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b PeerInfo) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// bestConn is the oldest connection to a peer, a direct one if there is any; nil
// when there is none.
func (h *Host) bestConn(id peer.ID) network.Conn {
	var best network.Conn
	for _, c := range h.lh.Network().ConnsToPeer(id) {
		if c.IsClosed() {
			continue
		}
		through, was := relayed(c.RemoteMultiaddr()), best != nil && relayed(best.RemoteMultiaddr())
		if best == nil || was && !through || was == through && c.Stat().Opened.Before(best.Stat().Opened) {
			best = c
		}
	}
	return best
}

// Addrs are this host's own addresses for a join code: multiaddrs that end in
// /p2p/ID, those that others can use before loopback ones.
func (h *Host) Addrs() []string {
	addrs := h.lh.Addrs()
	if own, err := h.lh.Network().InterfaceListenAddresses(); err == nil {
		addrs = own
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return worth(b) - worth(a) })
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if relayed(a) {
			continue // it means: ask a member
		}
		out = append(out, a.String()+"/p2p/"+h.Self())
	}
	return out
}

// worth ranks an address: IPv4 before IPv6, and what others can use first.
func worth(a ma.Multiaddr) int {
	w := 0
	if len(a) > 0 && a[0].Code() == ma.P_IP4 {
		w++
	}
	switch {
	case manet.IsIPLoopback(a):
		return w
	case manet.IsIP6LinkLocal(a):
		return w + 2
	}
	return w + 4
}
