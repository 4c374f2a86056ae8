package direct

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

const proto = "/test/echo/1"

// home is a private network in memory, on which everybody is at 127.0.0.1.
type home struct {
	*p2ptest.Host
	refuse atomic.Bool
	opened atomic.Int64 // streams of proto
}

func (*home) RemoteIP(string) (netip.Addr, bool) { return netip.MustParseAddr("127.0.0.1"), true }
func (h *home) Admits(string) bool               { return !h.refuse.Load() }
func (h *home) Open(ctx context.Context, peer, p string) (p2p.Stream, error) {
	if p == proto {
		h.opened.Add(1)
	}
	return h.Host.Open(ctx, peer, p)
}

type pair struct {
	client, server         *Carrier
	clientHome, serverHome *home
	where                  sync.Map // how streams came to the server, by what was sent
}

// newPair runs two carriers. The server echoes a line, on either way.
func newPair(t *testing.T, listen ...string) *pair {
	t.Helper()
	n := p2ptest.NewNet(1)
	p := &pair{}
	make := func(i int, listen []string) (*Carrier, *home) {
		id := p2ptest.Identity(i)
		h := &home{Host: n.Host(id.ID())}
		c, err := New(Config{Home: h, Key: id.PrivateKey(), Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return c, h
	}
	p.client, p.clientHome = make(1, nil)
	p.server, p.serverHome = make(2, listen)
	echo := func(st p2p.Stream) {
		defer st.Close()
		_, direct := st.(*stream)
		for {
			b := [4]byte{}
			if _, err := io.ReadFull(st, b[:]); err != nil {
				return
			}
			p.where.Store(string(b[:]), direct)
			if _, err := st.Write([]byte(st.Peer() + "\n")); err != nil {
				return
			}
		}
	}
	p.server.Handle(proto, echo)
	p.serverHome.Handle(proto, echo)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, c := range []*Carrier{p.client, p.server} {
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

// ask sends four bytes on a stream and returns how they came.
func (p *pair) ask(t *testing.T, st p2p.Stream, word string) (direct bool) {
	t.Helper()
	if err := st.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	want := p.clientHome.Self() + "\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(st, got); err != nil || string(got) != want {
		t.Fatalf("the server saw %q, want %q: %v", got, want, err)
	}
	v, _ := p.where.Load(word)
	return v.(bool)
}

func (p *pair) open(t *testing.T) p2p.Stream {
	t.Helper()
	st, err := p.client.Open(t.Context(), p.serverHome.Self(), proto)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestAStreamComesDirectlyAndProvesBothIdentities(t *testing.T) {
	p := newPair(t, "127.0.0.1:0")
	st := p.open(t)
	if st.Peer() != p.serverHome.Self() || !p.ask(t, st, "one.") || !p.ask(t, st, "two.") {
		t.Error("the stream did not come directly")
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if n := p.clientHome.opened.Load(); n != 0 {
		t.Errorf("%d streams of the private network", n)
	}
}

func TestWithoutADirectWayTheStreamIsHomes(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := gone.Addr().String()
	p := newPair(t)
	if st := p.open(t); p.ask(t, st, "none") {
		t.Error("there is no port, and it came directly")
	}
	// A port that nobody answers, as behind a firewall.
	_, port, _ := strings.Cut(addr, ":")
	p.client.ways[p.serverHome.Self()] = way{[]string{port}, time.Now().Add(time.Hour)}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if st := p.open(t); p.ask(t, st, "shut") {
		t.Error("the port is shut, and it came directly")
	}
	if w := p.client.ways[p.serverHome.Self()]; len(w.ports) != 0 {
		t.Error("a port that does not answer is tried for every stream")
	}
}

func TestOnlyAdmittedPeersAreServed(t *testing.T) {
	p := newPair(t, "127.0.0.1:0")
	st := p.open(t)
	if !p.ask(t, st, "good") {
		t.Fatal("the stream did not come directly")
	}
	p.serverHome.refuse.Store(true)
	// One that is under way ends with its next request.
	if _, err := st.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	// The read that waits already may still take it; the one after may not.
	if _, err := io.Copy(io.Discard, st); err == nil {
		if _, err := st.Write([]byte("more")); err == nil {
			if n, err := st.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("a banned peer is served")
			}
		}
	}
	if st := p.open(t); p.ask(t, st, "ban.") {
		t.Error("a banned peer came in directly")
	}
}

func TestAnotherPeerAtTheAddressIsNotBelieved(t *testing.T) {
	p := newPair(t, "127.0.0.1:0")
	q := newPair(t, "127.0.0.1:0") // has the same identities: a third peer it must be
	other, err := New(Config{Home: q.clientHome, Key: p2ptest.Identity(3).PrivateKey(), Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	other.Handle(proto, func(st p2p.Stream) { t.Error("a stream came to the wrong peer"); _ = st.Reset() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- other.Run(ctx) }()
	p.client.ways[p.serverHome.Self()] = way{other.ports(), time.Now().Add(time.Hour)}
	if st := p.open(t); p.ask(t, st, "who?") {
		t.Error("the stream came directly, and another peer is there")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A stranger who has an identity of its own, and one who speaks no TLS.
func TestStrangersGetNothing(t *testing.T) {
	p := newPair(t, "127.0.0.1:0")
	p.serverHome.refuse.Store(true)
	addr := "127.0.0.1:" + p.server.ports()[0]
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if len(got) > 7 { // a TLS alert
		t.Errorf("it answers %q, %v", got, err)
	}
	if _, err := p.client.dial(t.Context(), p.serverHome.Self(), proto); err == nil || errors.Is(err, errNoWay) {
		t.Errorf("a stranger's dial: %v", err)
	}
}
