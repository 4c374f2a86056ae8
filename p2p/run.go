package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// handshakeTries is how often a dial that hangs in the handshake is made, 5 s
	// each: it tells a wrong swarm key from a frozen machine (see ErrNoHandshake).
	handshakeTries = 3
	// maxDials bounds the peers dialled at the same time.
	maxDials = 8
	// saveDelay is how long changes of the address book are gathered.
	saveDelay = time.Second
	// strandedPeriod is how often it is looked whether this machine lost an address:
	// libp2p tells of it only sometimes.
	strandedPeriod = 10 * time.Second
	// askPeriod is how often a connected peer is asked whom it knows, on average.
	askPeriod = 30 * time.Second
)

// Run keeps this host connected: it dials static and known peers, again after they
// left, more and more slowly and never all at once; asks connected peers whom they
// are connected to; and writes the address book. It returns nil when ctx ends or
// the host closes, with none of its goroutines left.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	bus, err := h.lh.EventBus().Subscribe(
		[]any{new(event.EvtPeerIdentificationCompleted)}, eventbus.BufSize(256), eventbus.Name("swarm"))
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { h.redial(ctx, &wg) })
	wg.Go(func() { h.Awake(ctx, h.askPeers) })
	wg.Go(func() { h.Awake(ctx, h.lookStranded) })
	wg.Go(func() { h.Awake(ctx, h.straighten) })
	conns := make(chan network.Conn, 64)
	wg.Go(func() { h.watchTwins(ctx, &wg, conns) })
	wg.Go(func() { h.saveBook(ctx) })
	wg.Go(func() { h.renew(ctx) })
	asked := map[peer.ID]string{} // by the connection they were asked over
	for _, id := range h.lh.Network().Peers() {
		wg.Go(func() { h.ask(ctx, id) }) // connected before Run
		for _, c := range h.lh.Network().ConnsToPeer(id) {
			select {
			case conns <- c:
			case <-ctx.Done():
			}
		}
	}
	for open := true; open; {
		select {
		case e := <-bus.Out():
			id, ok := e.(event.EvtPeerIdentificationCompleted)
			if !ok {
				continue
			}
			h.identified(id)
			if asked[id.Peer] != id.Conn.ID() { // it identifies itself again with every new handler
				asked[id.Peer] = id.Conn.ID()
				wg.Go(func() { h.ask(ctx, id.Peer) })
				wg.Go(func() { h.reserve(ctx, id.Peer) })
				// It may have been told otherwise before this process began.
				wg.Go(func() { h.tellRest(ctx, id.Peer) })
				select {
				case conns <- id.Conn:
				case <-ctx.Done():
				}
			}
		case <-ctx.Done():
			open = false
		}
	}
	err = bus.Close()
	wg.Wait()
	if h.cfg.AddressBook != "" {
		err = errors.Join(err, h.book.save(h.cfg.AddressBook, h.Fingerprint()))
	}
	return err
}

// lookStranded looks for lost addresses until ctx ends.
func (h *Host) lookStranded(ctx context.Context) {
	look := time.NewTicker(strandedPeriod)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			h.dropStranded()
		}
	}
}

// dropStranded closes connections from addresses that this machine no longer has:
// they would hang until a keep-alive fails, and the other side is dialled anew as
// soon as they are gone.
func (h *Host) dropStranded() {
	have, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	for _, c := range h.lh.Network().Conns() {
		ip, err := manet.ToIP(c.LocalMultiaddr())
		if err != nil { // through a member
			continue
		}
		own := slices.ContainsFunc(have, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip)
		})
		if !own {
			h.log.Info("the address of a connection is gone", "peer", c.RemotePeer().String(), "addr", ip.String())
			_ = c.Close() // it is dead already
		}
	}
}

// identified notes where a connected peer listens.
func (h *Host) identified(e event.EvtPeerIdentificationCompleted) {
	addrs := reachableFrom(e.ListenAddrs, e.Conn.RemoteMultiaddr())
	if e.Conn.Stat().Direction == network.DirOutbound {
		addrs = append([]ma.Multiaddr{e.Conn.RemoteMultiaddr()}, addrs...) // this one works from here
	}
	h.book.connected(e.Peer, addrs, time.Now())
	signal(h.kick)
}

// redial dials whoever is due, and sleeps until the next one is.
func (h *Host) redial(ctx context.Context, wg *sync.WaitGroup) {
	slots := make(chan struct{}, maxDials)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		full := len(h.lh.Network().Peers()) >= meshPeers
		most, want := maxDials, func(peer.ID) bool { return true }
		if on, prefer, _ := h.rest.now(); on {
			full = false
			most, want = h.dialsWhileResting(prefer)
		}
		infos, again := h.book.due(time.Now(), most-len(slots), func(id peer.ID, static bool) bool {
			return most == 0 || !want(id) || full && !static || h.gate.bans(id) || h.lh.Network().Connectedness(id) == network.Connected
		})
		for _, info := range infos {
			slots <- struct{}{}
			wg.Go(func() {
				h.tryPeer(ctx, info)
				<-slots
				signal(h.kick)
			})
		}
		wait := time.Hour
		if !again.IsZero() {
			wait = time.Until(again)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-h.kick:
		case <-timer.C:
		}
	}
}

// tryPeer dials once and notes what came of it.
func (h *Host) tryPeer(ctx context.Context, info peer.AddrInfo) {
	before, _ := h.book.get(info.ID)
	err := h.dial(ctx, info.ID, info.Addrs)
	if err == nil {
		h.book.succeeded(info.ID)
		return
	}
	h.book.failed(info.ID, err, time.Now(), jitter)
	if ctx.Err() == nil && (before.problem == nil || before.problem.Error() != err.Error()) {
		h.log.Info("peer not reached", "peer", info.ID.String(), "err", err)
	}
}

// dial connects to a peer at the given addresses and those in the book. The error
// is explained, wraps ErrUnreachable, and is one line.
func (h *Host) dial(ctx context.Context, id peer.ID, addrs []ma.Multiaddr) error {
	if e, ok := h.book.get(id); ok {
		addrs = append(append(append([]ma.Multiaddr(nil), addrs...), e.static...), e.addrs...)
	}
	c, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var err error
	for range handshakeTries {
		if s, ok := h.lh.Network().(*swarm.Swarm); ok {
			s.Backoff().Clear(id) // the book has its own patience, and a person who asks has none
		}
		err = Explain(h.lh.Connect(c, peer.AddrInfo{ID: id, Addrs: addrs}))
		if !errors.Is(err, ErrNoHandshake) {
			break
		}
	}
	// One that answered wrongly is there, and no way round leads to another.
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrSwarmKeyMismatch) && !errors.Is(err, ErrWrongPeer) && h.dialThrough(ctx, id) == nil {
		return nil
	}
	switch {
	case err == nil:
		return nil
	case h.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, h.selfOr(err))
}

// selfOr turns ErrWrongPeer into ErrSameIdentity when it is this host's own
// identity that answered.
func (h *Host) selfOr(err error) error {
	if m, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok && m.Actual == h.lh.ID() {
		return &explained{what: ErrSameIdentity, cause: err}
	}
	return err
}

// Connect dials the peers of some addresses (of a join code) now, until one
// answers, and says why when none does.
func (h *Host) Connect(ctx context.Context, addrs []string) error {
	infos, err := addrInfos(addrs)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	err = fmt.Errorf("connect: %w", ErrNoAddress)
	for i, info := range infos {
		e := h.dial(ctx, info.ID, info.Addrs)
		if e == nil {
			return nil
		}
		if e = fmt.Errorf("connect to %s: %w", info.ID, e); i == 0 || errors.Is(e, ErrSwarmKeyMismatch) {
			err = e
		}
	}
	return err
}

// saveBook writes the address book a moment after it changed.
func (h *Host) saveBook(ctx context.Context) {
	if h.cfg.AddressBook == "" {
		return
	}
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.book.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveDelay):
		}
		err := h.book.save(h.cfg.AddressBook, h.Fingerprint())
		if err != nil && !failing {
			h.log.Warn("peers will not be remembered", "err", err)
		}
		failing = err != nil
	}
}

// jitter spreads d to between half and one and a half of it.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }
