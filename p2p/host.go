package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// connectTimeout bounds the TCP part of a dial; libp2p gives the handshakes
	// on top of it 15 s.
	connectTimeout = 8 * time.Second
	// dialTimeout bounds one attempt over all addresses of a peer.
	dialTimeout = 20 * time.Second
	// meshPeers is up to how many connections the host makes by itself. Above it
	// only static peers are dialled, and whoever Open asks for; others may come in.
	meshPeers = 32
	// closeTimeout bounds how long Close waits for handlers.
	closeTimeout = 3 * time.Second
)

var errHandlers = errors.New("close the network: a stream handler does not end")

// Config is what a Host needs.
type Config struct {
	Identity Identity
	SwarmKey SwarmKey
	// Listen are the TCP multiaddrs to accept on, "/ip4/0.0.0.0/tcp/4747"; port 0
	// picks one. Empty: this host only dials.
	Listen []string
	// Static are peers to stay connected to, "/ip4/HOST/tcp/PORT/p2p/ID" or with
	// /dns4, /dns6. The host's own address among them is ignored.
	Static []string
	// AddressBook is the file that remembers peers over restarts. Empty: none.
	AddressBook string
	// Log gets what a person may want to know; nil discards it.
	Log *slog.Logger
}

// Host is this machine's place in its swarm: a Network over libp2p. TCP with the
// private-network key, TLS 1.3 first and Noise second, yamux.
//
// NewHost opens the ports, so that a port in use is an error at once, and from
// then on answers peers; Run is what dials them, keeps them and remembers them.
// Close ends it all.
type Host struct {
	cfg  Config
	log  *slog.Logger
	lh   host.Host
	gate *gater
	book *book
	kick chan struct{} // the book or the connections changed

	ctx    context.Context // done at Close
	cancel context.CancelFunc

	instance uint64        // random per process
	twin     chan struct{} // somebody says that another process has this identity

	mu       sync.Mutex
	closed   bool
	handlers sync.WaitGroup // Add only with mu held and closed false
	watchers []chan struct{}
	rtts     map[peer.ID]time.Duration

	rest     rest
	relay    *relay.Relay
	reserved reserver
	doubles  map[peer.ID]time.Time // when two processes answered to an ID
	left     map[peer.ID]time.Time // when the last connection of a peer ended
}

var _ Network = (*Host)(nil)

// NewHost makes a host and opens its ports. The error wraps ErrPortInUse,
// ErrSwarmKey or ErrIdentity, or names the address that is wrong. An address that
// this machine does not have (IPv6 on a machine without) is logged and skipped, as
// long as one remains.
func NewHost(cfg Config) (*Host, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SwarmKey.IsZero() {
		return nil, fmt.Errorf("start the network: %w", ErrSwarmKey)
	}
	if cfg.Identity.key == nil {
		return nil, fmt.Errorf("start the network: %w", ErrIdentity)
	}
	static, err := addrInfos(cfg.Static)
	if err != nil {
		return nil, fmt.Errorf("static peers: %w", err)
	}
	listen, err := listenAddrs(cfg.Listen)
	if err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, log: cfg.Log, gate: &gater{}, book: newBook(cfg.Identity.id),
		kick: make(chan struct{}, 1), rtts: map[peer.ID]time.Duration{}, reserved: reserver{at: map[peer.ID]time.Time{}},
		instance: rand.Uint64(), twin: make(chan struct{}, 1), rest: rest{turned: make(chan struct{})}, doubles: map[peer.ID]time.Time{}, left: map[peer.ID]time.Time{},
	}
	for _, info := range static {
		h.book.addStatic(info)
	}
	if cfg.AddressBook != "" {
		if err := h.book.load(cfg.AddressBook, cfg.SwarmKey.Fingerprint(), time.Now()); err != nil {
			h.log.Warn("starting with an empty address book", "err", err) // it is a cache
		}
	}
	if h.lh, err = newLibp2p(cfg, h.gate); err != nil {
		return nil, fmt.Errorf("start the network: %w", err)
	}
	if h.relay, err = newRelay(h.lh); err != nil {
		return nil, errors.Join(err, h.lh.Close())
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.lh.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			h.book.connected(c.RemotePeer(), nil, time.Now())
			h.peersChanged()
		},
		DisconnectedF: func(n network.Network, c network.Conn) {
			if n.Connectedness(c.RemotePeer()) != network.Connected {
				h.book.left(c.RemotePeer(), time.Now(), jitter)
				h.noteLeft(c.RemotePeer(), time.Now())
			}
			h.peersChanged()
		},
	})
	Serve(h, peersProto, maxAnswer, h.answerPeers)
	Serve(h, restProto, 1, h.onRest)
	Serve(h, instanceProto, instanceLen*maxTwins, h.onInstance)
	if err := h.listen(listen); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func newLibp2p(cfg Config, gate *gater) (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Identity.key)
	if err != nil {
		return nil, err
	}
	limits, err := resources()
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(128, 192, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	secret := cfg.SwarmKey.secret
	lh, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.PrivateNetwork(pnet.PSK(secret[:])),
		libp2p.NoListenAddrs,
		libp2p.NoTransports,
		// Without its own source port a dial cannot meet the other side's dial in a
		// TCP simultaneous open, which breaks TLS on both sides.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithConnectionTimeout(connectTimeout)),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), // 1.15 to 1.36 times as fast as Noise
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, muxer()),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.ConnectionGater(gate),
		libp2p.EnableRelay(),                     // to dial through members; see relay.go
		libp2p.DisableIdentifyAddressDiscovery(), // no NAT guesses: people configure addresses
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil), // ten dead IPv6 peers must not cut off an eleventh
		libp2p.Ping(false),
		libp2p.DisableMetrics(), // they would go to a registry of the whole process
		libp2p.UserAgent("build-swarm/1"),
	)
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	return lh, nil
}

// measureRTT is how often yamux measures a connection's round trip, which a link
// of a home does not change twice a minute. Both ends do it, and keep-alives of
// every 30 s besides, of which one end's serves both.
const measureRTT = 10 * time.Minute

func muxer() *yamux.Transport {
	t := *yamux.DefaultTransport
	t.MeasureRTTInterval = measureRTT
	return &t
}

// listenAddrs checks addresses to listen on.
func listenAddrs(texts []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil || len(a) != 2 || !isIP(a[0].Code()) || a[1].Code() != ma.P_TCP {
			return nil, fmt.Errorf("listen on %.200q: want /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT", s)
		}
		out = append(out, a)
	}
	return out, nil
}

// listen opens every address by itself: libp2p is content with one of them.
func (h *Host) listen(addrs []ma.Multiaddr) error {
	opened := 0
	var failed error
	for _, a := range addrs {
		err := h.lh.Network().Listen(a)
		switch {
		case err == nil:
			opened++
		case portInUse(err):
			return fmt.Errorf("listen on %s: %w", a, ErrPortInUse)
		default:
			failed = errors.Join(failed, fmt.Errorf("listen on %s: %w", a, err))
		}
	}
	if opened == 0 {
		return failed
	}
	if failed != nil {
		h.log.Warn("not listening on every address", "err", failed)
	}
	return nil
}

// Self is this host's peer ID.
func (h *Host) Self() string { return h.lh.ID().String() }

// Fingerprint names the swarm that the host belongs to.
func (h *Host) Fingerprint() string { return h.cfg.SwarmKey.Fingerprint() }

// Libp2p is the host underneath, for the packages below p2p alone. They do not
// close it.
func (h *Host) Libp2p() host.Host { return h.lh }

// Peers implements Network.
func (h *Host) Peers() []string {
	ids := h.lh.Network().Peers()
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(out, id.String())
	}
	slices.Sort(out)
	return out
}

// Open implements Network. A peer that is not connected is dialled at the
// addresses in the book.
func (h *Host) Open(ctx context.Context, peerID, proto string) (Stream, error) {
	s, err := h.open(ctx, peerID, proto)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, peerID, err)
	}
	return s, nil
}

func (h *Host) open(ctx context.Context, peerID, proto string) (Stream, error) {
	if h.ctx.Err() != nil {
		return nil, ErrClosed
	}
	id, err := peer.Decode(peerID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if h.lh.Network().Connectedness(id) != network.Connected {
		if err := h.dial(ctx, id, nil); err != nil {
			return nil, err
		}
	}
	s, err := h.lh.NewStream(ctx, id, protocol.ID(proto))
	switch {
	case err == nil:
		return &stream{Stream: s, host: h}, nil
	case h.ctx.Err() != nil:
		return nil, ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if err := openError(err); errors.Is(err, ErrNoProtocol) {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, Explain(err))
}

// Handle implements Network.
func (h *Host) Handle(proto string, f func(Stream)) {
	if f == nil {
		h.lh.RemoveStreamHandler(protocol.ID(proto))
		return
	}
	h.lh.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			_ = s.Reset()
			return
		}
		h.handlers.Add(1)
		h.mu.Unlock()
		defer h.handlers.Done()
		f(&stream{Stream: s, host: h})
	})
}

// Watch implements Network.
func (h *Host) Watch() <-chan struct{} {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers, c)
	return c
}

func (h *Host) peersChanged() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.watchers {
		signal(c)
	}
	signal(h.kick)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one waits already
	}
}

// Ban refuses every connection with a peer from now on and ends those there are.
// It lasts as long as the Host: who bans for good says so again after a restart.
func (h *Host) Ban(peerID string) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return fmt.Errorf("ban %.80q: %w", peerID, err)
	}
	h.gate.set(id, true)
	if err := h.lh.Network().ClosePeer(id); err != nil {
		return fmt.Errorf("ban %s: %w", peerID, err)
	}
	return nil
}

// Unban lets a peer in again.
func (h *Host) Unban(peerID string) error {
	id, err := peer.Decode(peerID)
	if err != nil {
		return fmt.Errorf("unban %.80q: %w", peerID, err)
	}
	h.gate.set(id, false)
	signal(h.kick)
	return nil
}

// Close closes the ports and all connections, and waits for the handlers; cancel
// Run's context and await Run first. A handler that hangs although its stream was
// reset and its context is done is given up after 3 s, which is an error: a daemon
// has 5 s to stop in. Closing twice is fine.
func (h *Host) Close() error {
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	var err error
	if first {
		err = errors.Join(h.relay.Close(), h.lh.Close())
	}
	done := make(chan struct{})
	go func() {
		h.handlers.Wait()
		close(done)
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		err = errors.Join(err, errHandlers)
	}
	return err
}

// stream is a libp2p stream as a Stream.
type stream struct {
	network.Stream
	host *Host
}

func (s *stream) Peer() string { return s.Conn().RemotePeer().String() }

// Read gives the refusal of a protocol, which may come this late, its sentinel.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err != nil {
		err = openError(err)
	}
	return n, err
}

// Context is done when the host closes.
func (s *stream) Context() context.Context { return s.host.ctx }

func portInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) // libp2p flattens it
}
