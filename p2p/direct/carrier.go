package direct

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/build-swarm/swarm/p2p"
)

// Protocol asks a peer, over Home, for the ports that it serves directly: in
// decimal, separated by spaces.
const Protocol = "/swarm/direct/1"

const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	maxConns         = 256 // served at once
	maxPorts         = 64  // bytes of the answer about ports
	portsFresh       = 10 * time.Minute
)

// Home is the private network that a Carrier stands beside: *p2p.Host.
type Home interface {
	p2p.Network
	// RemoteIP is where a connected peer's connection comes from.
	RemoteIP(peer string) (netip.Addr, bool)
	// Admits reports whether a peer was seen within an hour and is not banned.
	Admits(peer string) bool
}

// Config is what a Carrier needs.
type Config struct {
	Home Home
	Key  ed25519.PrivateKey // this peer's identity
	// Listen are the TCP addresses to serve on, ":4748"; none: this peer only
	// dials.
	Listen []string
	Log    *slog.Logger // nil discards
}

// Carrier opens and serves direct streams. Its methods may be called from any
// goroutine.
type Carrier struct {
	home     Home
	identity *libp2ptls.Identity
	log      *slog.Logger
	lns      []net.Listener

	mu       sync.Mutex
	handlers map[string]func(p2p.Stream)
	ways     map[string]way // by peer
	conns    map[net.Conn]bool
	streams  sync.WaitGroup // Add only with mu held and closed false
	closed   bool
}

// way is how a peer is reached directly.
type way struct {
	ports []string // none: not at all
	until time.Time
}

// New opens the ports. One that cannot be had is an error of package net, which
// wraps syscall.EADDRINUSE where another program has it.
func New(cfg Config) (*Carrier, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("start the direct carrier: %w", err)
	}
	c := &Carrier{home: cfg.Home, log: cfg.Log, handlers: map[string]func(p2p.Stream){}, ways: map[string]way{}, conns: map[net.Conn]bool{}}
	if c.identity, err = libp2ptls.NewIdentity(key); err != nil {
		return nil, fmt.Errorf("start the direct carrier: %w", err)
	}
	for _, a := range cfg.Listen {
		ln, err := net.Listen("tcp", a)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve blobs directly: %w", err), c.Close())
		}
		c.lns = append(c.lns, ln)
	}
	p2p.Serve(c.home, Protocol, maxPorts, func(context.Context, string, []byte) ([]byte, error) {
		return []byte(strings.Join(c.ports(), " ")), nil
	})
	return c, nil
}

func (c *Carrier) ports() []string {
	var out []string
	for _, ln := range c.lns {
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			out = append(out, strconv.Itoa(a.Port))
		}
	}
	return out
}

// Handle serves a protocol directly as well, by the handler that Home has. Call
// it before Run.
func (c *Carrier) Handle(proto string, h func(p2p.Stream)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[proto] = h
}

// Run serves until ctx ends, and then ends all streams.
func (c *Carrier) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, ln := range c.lns {
		loops.Go(func() { c.accept(ctx, ln) })
	}
	<-ctx.Done()
	err := c.Close()
	loops.Wait()
	c.streams.Wait()
	return err
}

// Close closes the ports and cuts all streams. Closing twice is fine.
func (c *Carrier) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var errs []error
	for _, ln := range c.lns {
		errs = append(errs, ln.Close())
	}
	for conn := range c.conns {
		_ = conn.Close() // whoever uses it notices
	}
	return errors.Join(errs...)
}

func (c *Carrier) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			c.log.Warn("direct connection not accepted", "err", err) // out of descriptors: others close
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !c.enter(conn) {
			_ = conn.Close() // too many, or stopping
			continue
		}
		go func() {
			defer c.leave(conn)
			c.serve(ctx, conn)
		}()
	}
}

// enter counts a connection that is served.
func (c *Carrier) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.conns) >= maxConns {
		return false
	}
	c.conns[conn] = true
	c.streams.Add(1)
	return true
}

func (c *Carrier) leave(conn net.Conn) {
	_ = conn.Close() // closed already, mostly
	c.mu.Lock()
	delete(c.conns, conn)
	c.mu.Unlock()
	c.streams.Done()
}

// serve does the handshake, asks whether the peer may, and hands the stream over.
func (c *Carrier) serve(ctx context.Context, raw net.Conn) {
	c.mu.Lock()
	protos := slices.Sorted(maps.Keys(c.handlers))
	c.mu.Unlock()
	cfg, keys := c.identity.ConfigForPeer("")
	cfg.NextProtos = protos
	conn := tls.Server(raw, cfg)
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := conn.HandshakeContext(hctx)
	cancel()
	if err != nil {
		c.log.Debug("direct handshake fails", "from", raw.RemoteAddr().String(), "err", err)
		return
	}
	id, err := peer.IDFromPublicKey(<-keys)
	if err != nil {
		return
	}
	who := id.String()
	c.mu.Lock()
	h := c.handlers[conn.ConnectionState().NegotiatedProtocol]
	c.mu.Unlock()
	if !c.home.Admits(who) {
		c.log.Warn("direct connection refused: not a peer of this swarm, or banned", "peer", who, "from", raw.RemoteAddr().String())
		return
	}
	if h == nil {
		return
	}
	// The client's handshake ended before this side knew who it is.
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return
	}
	if _, err := conn.Write(welcome); err == nil {
		h(&stream{Conn: conn, ctx: ctx, peer: who, may: c.home.Admits})
	}
}

// Open opens a direct stream of a protocol to a connected peer, or one of Home's
// where there is no direct way.
func (c *Carrier) Open(ctx context.Context, who, proto string) (p2p.Stream, error) {
	if st, err := c.dial(ctx, who, proto); err == nil {
		return st, nil
	} else if ctx.Err() == nil && !errors.Is(err, errNoWay) {
		c.log.Debug("no direct connection", "peer", who, "err", err)
	}
	return c.home.Open(ctx, who, proto)
}

// welcome is the first byte of every stream, from the side that serves.
var welcome = []byte{1}

var errNoWay = errors.New("it is not reached directly")

func (c *Carrier) dial(ctx context.Context, who, proto string) (p2p.Stream, error) {
	ip, ok := c.home.RemoteIP(who)
	if !ok {
		return nil, errNoWay
	}
	id, err := peer.Decode(who)
	if err != nil {
		return nil, err
	}
	ports := c.ask(ctx, who)
	err = errNoWay
	for _, port := range ports {
		var st p2p.Stream
		if st, err = c.connect(ctx, id, net.JoinHostPort(ip.String(), port), proto); err == nil {
			return st, nil
		}
	}
	if len(ports) > 0 && ctx.Err() == nil {
		c.mu.Lock()
		c.ways[who] = way{until: time.Now().Add(portsFresh)}
		c.mu.Unlock()
	}
	return nil, err
}

// ask finds out a peer's ports.
func (c *Carrier) ask(ctx context.Context, who string) []string {
	c.mu.Lock()
	w, known := c.ways[who]
	c.mu.Unlock()
	if known && time.Now().Before(w.until) {
		return w.ports
	}
	answer, err := p2p.Request(ctx, c.home, who, Protocol, nil, maxPorts)
	if ctx.Err() != nil {
		return nil
	}
	w = way{until: time.Now().Add(portsFresh)}
	if err == nil {
		for _, f := range strings.Fields(string(answer)) {
			if n, err := strconv.ParseUint(f, 10, 16); err == nil && n > 0 {
				w.ports = append(w.ports, f)
			}
		}
	}
	c.mu.Lock()
	c.ways[who] = w
	c.mu.Unlock()
	return w.ports
}

func (c *Carrier) connect(ctx context.Context, id peer.ID, addr, proto string) (p2p.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	cfg, _ := c.identity.ConfigForPeer(id)
	cfg.NextProtos = []string{proto}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
		return nil, errors.Join(fmt.Errorf("%s speaks %q directly, not %q", addr, got, proto), conn.Close())
	}
	st := &stream{Conn: conn, ctx: context.Background(), peer: id.String()}
	var first [1]byte
	err = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if err == nil {
		_, err = io.ReadFull(conn, first[:])
	}
	if err == nil && first[0] != welcome[0] {
		err = errors.New("it does not begin with a welcome")
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s refuses: %w", addr, err), st.Reset())
	}
	return st, nil
}
