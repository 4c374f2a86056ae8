package p2p_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// patience bounds what a test waits for; nothing waits for it to pass.
const patience = 90 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// node is a host on 127.0.0.1 whose Run is under way.
type node struct {
	*p2p.Host
	stop func() // ends Run, then closes the host; twice is fine
}

func start(t *testing.T, cfg p2p.Config) *node {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	h, err := p2p.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	n := &node{Host: h, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})}
	t.Cleanup(n.stop)
	return n
}

// sees waits until n is connected to exactly these peers.
func (n *node) sees(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	ctx, watch := within(t), n.Watch()
	for {
		got := n.Peers()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-watch:
		case <-ctx.Done():
			t.Fatalf("%s sees %v, want %v; it knows %+v", n.Self(), got, want, n.Known())
		}
	}
}

// swarm starts n hosts that know only the first one's address.
func swarm(t *testing.T, n int) []*node {
	t.Helper()
	key := p2p.NewSwarmKey()
	nodes := []*node{start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})}
	for i := 1; i < n; i++ {
		nodes = append(nodes, start(t, p2p.Config{Identity: p2ptest.Identity(i), SwarmKey: key, Static: nodes[0].Addrs()}))
	}
	for i, a := range nodes {
		var others []string
		for j, b := range nodes {
			if i != j {
				others = append(others, b.Self())
			}
		}
		a.sees(t, others...)
	}
	return nodes
}

func TestTheLibp2pNetworkIsANetwork(t *testing.T) {
	p2ptest.TestNetwork(t, func(t *testing.T, n int) []p2p.Network {
		var out []p2p.Network
		for _, h := range swarm(t, n) {
			out = append(out, h)
		}
		return out
	})
}

func TestPeersThatKnowOneAddressBecomeAFullMesh(t *testing.T) {
	nodes := swarm(t, 6)
	// Where both dial at once a detour may come first; it is left within half a minute.
	until(t, func() string {
		info, ok := nodes[5].PeerInfo(nodes[4].Self())
		if !ok || !info.Connected || info.Kind != "LAN" || info.Problem != nil || !strings.HasPrefix(info.Addr, "/ip4/127.0.0.1/tcp/") {
			return fmt.Sprintf("what the last knows of the one before: %+v, %v", info, ok)
		}
		return ""
	})
	if known := nodes[5].Known(); len(known) != 5 {
		t.Errorf("it knows %d peers, want 5", len(known))
	}
}

func TestASwarmOfOneRuns(t *testing.T) {
	n := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey()})
	if got := n.Peers(); len(got) != 0 {
		t.Errorf("peers: %v", got)
	}
	if addrs := n.Addrs(); len(addrs) != 1 || !strings.HasSuffix(addrs[0], "/p2p/"+n.Self()) {
		t.Errorf("addresses: %v", addrs)
	}
}

func TestAWrongSwarmKeyIsExplained(t *testing.T) {
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey()})
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: p2p.NewSwarmKey()})
	// One dial in 27 hangs in all its tries, for each side reads the other's bytes
	// as noise, and then the error says so.
	var err error
	for range 4 {
		err = b.Connect(within(t), a.Addrs())
		if !errors.Is(err, p2p.ErrUnreachable) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%v, want ErrUnreachable in one line", err)
		}
		if !errors.Is(err, p2p.ErrNoHandshake) {
			break
		}
	}
	if !errors.Is(err, p2p.ErrSwarmKeyMismatch) {
		t.Errorf("%v, want ErrSwarmKeyMismatch", err)
	}
	t.Log(err)
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Error("two swarms became one")
	}
}

// A person sees it on status, too: the daemon keeps the explanation.
func TestAWrongSwarmKeyOfAStaticPeerIsRemembered(t *testing.T) {
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey()})
	logged := newLog()
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: p2p.NewSwarmKey(), Static: a.Addrs(), Log: slog.New(logged)})
	logged.wait(t, "peer not reached")
	info, ok := b.PeerInfo(a.Self())
	named := errors.Is(info.Problem, p2p.ErrSwarmKeyMismatch) || errors.Is(info.Problem, p2p.ErrNoHandshake)
	if !ok || !named || info.Connected || !info.Static || info.Since.IsZero() {
		t.Errorf("%+v, %v", info, ok)
	}
}

func TestOtherReasonsAreExplained(t *testing.T) {
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key})
	at := func(i int) string {
		s, _, _ := strings.Cut(a.Addrs()[0], "/p2p/")
		return s + "/p2p/" + p2ptest.ID(i)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		addr string
		want error
	}{
		"another peer ID":  {at(7), p2p.ErrWrongPeer},
		"oneself":          {at(1), p2p.ErrSameIdentity},
		"nobody there":     {fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", port, p2ptest.ID(8)), p2p.ErrRefused},
		"not an address":   {"127.0.0.1:4747", nil},
		"a web server":     {foreign(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), p2p.ErrSwarmKeyMismatch},
		"a closing server": {foreign(t, ""), p2p.ErrSwarmKeyMismatch},
	} {
		err := b.Connect(within(t), []string{c.addr})
		if err == nil || c.want != nil && !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v in one line", name, err, c.want)
		}
		t.Log(err)
	}
}

// foreign is a server that is no peer: it says something and hangs up.
func foreign(t *testing.T, says string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 10))
			_, _ = io.WriteString(c, says)
			_ = c.Close()
		}
	}()
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", l.Addr().(*net.TCPAddr).Port, p2ptest.ID(9))
}

func TestAPortInUseIsAnError(t *testing.T) {
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	listen, _, _ := strings.Cut(a.Addrs()[0], "/p2p/")
	for _, list := range [][]string{{listen}, {"/ip4/127.0.0.1/tcp/0", listen}} {
		_, err := p2p.NewHost(p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Listen: list})
		if !errors.Is(err, p2p.ErrPortInUse) || !strings.Contains(err.Error(), listen) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want ErrPortInUse and the address in one line", list, err)
		}
	}
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	good := p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey(), Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	for name, change := range map[string]func(*p2p.Config){
		"no key":            func(c *p2p.Config) { c.SwarmKey = p2p.SwarmKey{} },
		"no identity":       func(c *p2p.Config) { c.Identity = p2p.Identity{} },
		"bad listen":        func(c *p2p.Config) { c.Listen = []string{"127.0.0.1:4747"} },
		"QUIC":              func(c *p2p.Config) { c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1"} },
		"foreign address":   func(c *p2p.Config) { c.Listen = []string{"/ip4/192.0.2.1/tcp/0"} },
		"static without ID": func(c *p2p.Config) { c.Static = []string{"/ip4/127.0.0.1/tcp/1"} },
	} {
		cfg := good
		change(&cfg)
		if h, err := p2p.NewHost(cfg); err == nil {
			t.Errorf("%s: accepted", name)
			_ = h.Close()
		}
	}
}

// The address book alone brings a swarm together again: no static peer, no mDNS.
func TestPeersFindEachOtherAfterARestart(t *testing.T) {
	key, dir := p2p.NewSwarmKey(), t.TempDir()
	cfg := func(i int) p2p.Config {
		return p2p.Config{Identity: p2ptest.Identity(i), SwarmKey: key, AddressBook: filepath.Join(dir, fmt.Sprintf("peers-%d.json", i))}
	}
	nodes := []*node{start(t, cfg(0)), start(t, cfg(1)), start(t, cfg(2))}
	if err := nodes[1].Connect(within(t), nodes[0].Addrs()); err != nil {
		t.Fatal(err)
	}
	if err := nodes[2].Connect(within(t), nodes[0].Addrs()); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		n.sees(t, p2ptest.ID((i+1)%3), p2ptest.ID((i+2)%3))
	}
	// One restarts at another port: it must dial, for nobody knows where it is.
	nodes[2].stop()
	nodes[0].sees(t, p2ptest.ID(1))
	nodes[2] = start(t, cfg(2))
	nodes[2].sees(t, p2ptest.ID(0), p2ptest.ID(1))
	nodes[0].sees(t, p2ptest.ID(1), p2ptest.ID(2))
	// All restart, one after the other, at the ports they had.
	var ports [3]string
	for i, n := range nodes {
		ports[i], _, _ = strings.Cut(n.Addrs()[0], "/p2p/")
		n.stop()
	}
	for i := range nodes {
		c := cfg(i)
		c.Listen = []string{ports[i]}
		nodes[i] = start(t, c)
	}
	for i, n := range nodes {
		n.sees(t, p2ptest.ID((i+1)%3), p2ptest.ID((i+2)%3))
	}
}

func TestAnAddressBookThatIsDamagedOrOfAnotherSwarmIsNoObstacle(t *testing.T) {
	for name, content := range map[string]string{
		"damaged": "{", "empty": "", "another swarm": `{"version":1,"swarm":"0123456789abcdef","peers":[]}`, "huge": strings.Repeat(" ", 2<<20),
	} {
		path := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		logged := newLog()
		n := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey(), AddressBook: path, Log: slog.New(logged)})
		n.stop()
		logged.wait(t, "starting with an empty address book")
		_ = name
	}
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	nodes := swarm(t, 2)
	if err := nodes[0].Ban(nodes[1].Self()); err != nil {
		t.Fatal(err)
	}
	nodes[1].sees(t)
	if _, err := nodes[0].Open(within(t), nodes[1].Self(), "/x/1"); !errors.Is(err, p2p.ErrBanned) {
		t.Errorf("open to a banned peer: %v, want ErrBanned", err)
	}
	if err := nodes[1].Connect(within(t), nodes[0].Addrs()); err == nil && len(nodes[0].Peers()) > 0 {
		t.Error("a banned peer came in")
	}
	if err := nodes[0].Unban(nodes[1].Self()); err != nil {
		t.Fatal(err)
	}
	nodes[0].sees(t, nodes[1].Self())
	nodes[1].sees(t, nodes[0].Self())
}

// A cloned machine runs the same identity: nothing crashes, the others see one peer.
func TestOneIdentityOnTwoMachinesDoesNotHurtTheOthers(t *testing.T) {
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: a.Addrs()})
	twin := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: a.Addrs()})
	b.sees(t, a.Self())
	twin.sees(t, a.Self())
	a.sees(t, b.Self())
	// b's address is known under an ID that is twin's own, and the other way round.
	if err := twin.Connect(within(t), b.Addrs()); !errors.Is(err, p2p.ErrSameIdentity) {
		t.Errorf("dialling the twin: %v, want ErrSameIdentity", err)
	}
	p2p.Serve(a, "/who/1", 0, func(_ context.Context, from string, _ []byte) ([]byte, error) { return []byte(from), nil })
	for _, n := range []*node{b, twin} {
		if got, err := p2p.Request(within(t), n, a.Self(), "/who/1", nil, 100); err != nil || string(got) != p2ptest.ID(1) {
			t.Errorf("%s, %v", got, err)
		}
	}
	// Both learn of it, the third names it, and a peer that runs once hears nothing.
	for _, n := range []*node{b, twin} {
		select {
		case <-n.Twins():
		case <-within(t).Done():
			t.Fatal("a machine does not learn that its identity runs twice")
		}
	}
	if i, _ := a.PeerInfo(b.Self()); !i.Twins {
		t.Error("who is connected to both does not know of it")
	}
	if i, _ := b.PeerInfo(a.Self()); i.Twins || len(a.Twins()) > 0 {
		t.Error("a peer that runs once is said to run twice")
	}
	twin.stop()
	a.sees(t, b.Self())
}

// The connection of a process that was killed may stand for a minute. It answers
// nothing, so that the process which follows is no twin.
func TestARestartBesideADeadConnectionIsNoTwin(t *testing.T) {
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	dead := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: a.Addrs()})
	a.sees(t, dead.Self())
	asked := dead.Freeze()
	again := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: a.Addrs()})
	again.sees(t, a.Self())
	select {
	case <-asked:
	case <-within(t).Done():
		t.Fatal("nobody asks whether the old process is still there")
	}
	if i, _ := a.PeerInfo(again.Self()); i.Twins || len(again.Twins()) > 0 {
		t.Error("a restarted peer is told that it runs twice")
	}
}

func TestFourBulkStreamsPerPeerRunAtOnce(t *testing.T) {
	nodes := swarm(t, 2)
	const size = 24 << 20
	nodes[1].Handle("/bulk/1", func(s p2p.Stream) {
		_, err := io.CopyN(s, zeroes{}, size)
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
	var open []p2p.Stream
	for range 4 {
		s, err := nodes[0].Open(within(t), nodes[1].Self(), "/bulk/1")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	var wg sync.WaitGroup
	for _, s := range open {
		wg.Go(func() {
			if n, err := io.Copy(io.Discard, s); err != nil || n != size {
				t.Errorf("%d bytes, %v", n, err)
			}
			_ = s.Close()
		})
	}
	wg.Wait()
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { return len(b), nil }

func TestAStaticPeerMayHaveAName(t *testing.T) {
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	named := strings.Replace(a.Addrs()[0], "/ip4/127.0.0.1/", "/dns4/localhost/", 1)
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: []string{named}})
	b.sees(t, a.Self())
}

func TestAHandlerThatHangsDoesNotKeepCloseForEver(t *testing.T) {
	nodes := swarm(t, 2)
	began, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	nodes[0].Handle("/hang/1", func(s p2p.Stream) {
		close(began)
		<-release
		_ = s.Reset()
	})
	s, err := nodes[1].Open(within(t), nodes[0].Self(), "/hang/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := nodes[0].Close(); err == nil {
		t.Error("Close says nothing of a handler that hangs")
	}
}

func TestNothingRunsAfterClose(t *testing.T) {
	for range 3 {
		nodes := swarm(t, 3)
		for _, n := range nodes {
			n.stop()
		}
	}
	p2ptest.NothingRuns(t)
}

// log is a slog.Handler whose messages can be waited for.
type log struct {
	messages chan string
}

func newLog() *log { return &log{messages: make(chan string, 1000)} }

func (l *log) Enabled(context.Context, slog.Level) bool { return true }
func (l *log) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *log) WithGroup(string) slog.Handler            { return l }

func (l *log) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.messages <- r.Message:
	default:
	}
	return nil
}

func (l *log) wait(t *testing.T, message string) {
	t.Helper()
	ctx := within(t)
	for {
		select {
		case m := <-l.messages:
			if m == message {
				return
			}
		case <-ctx.Done():
			t.Fatalf("nothing was logged as %q", message)
		}
	}
}
