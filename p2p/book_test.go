package p2p

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func bookID(t testing.TB, n int) peer.ID {
	t.Helper()
	id, err := NewIdentity(strings.NewReader(fmt.Sprintf("%032d", n)))
	if err != nil {
		t.Fatal(err)
	}
	return id.id
}

func at(t testing.TB, texts ...string) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for _, s := range texts {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func never(peer.ID, bool) bool { return false }

func exactly(d time.Duration) time.Duration { return d }

func TestAPeerThatIsAwayIsTriedMoreAndMoreSlowly(t *testing.T) {
	b, start := newBook(bookID(t, 0)), time.Unix(1e9, 0)
	static, told := bookID(t, 1), bookID(t, 2)
	b.addStatic(peer.AddrInfo{ID: static, Addrs: at(t, "/dns4/nas.lan/tcp/4747")})
	b.learn(peer.AddrInfo{ID: told, Addrs: at(t, "/ip4/10.0.0.2/tcp/4747")}, true, start)
	attempts := map[peer.ID]int{}
	var last time.Time
	for now := start; now.Before(start.Add(time.Hour)); {
		infos, again := b.due(now, 8, never)
		for _, info := range infos {
			attempts[info.ID]++
			b.failed(info.ID, errors.New("away"), now, exactly)
		}
		if len(infos) > 0 {
			last = now
			continue
		}
		now = again
	}
	if n := attempts[static]; n < 55 || n > 70 {
		t.Errorf("a static peer was tried %d times in an hour, want about once a minute", n)
	}
	if n := attempts[told]; n < 15 || n > 25 {
		t.Errorf("a peer that was only heard of was tried %d times in an hour, want about every five minutes", n)
	}
	if last.Sub(start) < 58*time.Minute {
		t.Errorf("the last attempt was after %s", last.Sub(start))
	}
	// Never seen in an hour: forgotten, but for the configured one.
	b.due(start.Add(2*time.Hour), 8, never)
	if got := b.all(); len(got) != 1 || got[0] != static {
		t.Errorf("after two hours it knows %v", got)
	}
}

func TestAPeerHeardOfItselfOrAtANewAddressIsTriedAtOnce(t *testing.T) {
	b, now := newBook(bookID(t, 0)), time.Unix(1e9, 0)
	id := bookID(t, 1)
	one := peer.AddrInfo{ID: id, Addrs: at(t, "/ip4/10.0.0.2/tcp/1")}
	two := peer.AddrInfo{ID: id, Addrs: at(t, "/ip4/10.0.0.2/tcp/2")}
	tried := func() bool {
		infos, _ := b.due(now, 8, never)
		for _, info := range infos {
			b.failed(info.ID, errors.New("away"), now, func(time.Duration) time.Duration { return time.Hour })
		}
		return len(infos) == 1
	}
	for _, step := range []struct {
		info  peer.AddrInfo
		fresh bool
		want  bool
	}{{one, false, true}, {one, false, false}, {one, true, true}, {two, false, true}, {one, false, false}} {
		b.learn(step.info, step.fresh, now)
		if got := tried(); got != step.want {
			t.Errorf("%v, fresh %v: tried %v, want %v", step.info.Addrs, step.fresh, got, step.want)
		}
	}
}

func TestOnlyIPAndTCPIsLearned(t *testing.T) {
	b, now := newBook(bookID(t, 0)), time.Unix(1e9, 0)
	for _, a := range []string{
		"/dns4/example.org/tcp/4747", "/dnsaddr/example.org", "/ip4/10.0.0.1/udp/4747/quic-v1", "/ip4/0.0.0.0/tcp/1", "/ip4/10.0.0.1/tcp/80/ws",
		"/ip4/10.0.0.1/tcp/1/p2p/" + bookID(t, 3).String() + "/p2p-circuit",
	} {
		if b.learn(peer.AddrInfo{ID: bookID(t, 1), Addrs: at(t, a)}, true, now) {
			t.Errorf("%s was learned", a)
		}
	}
	if b.learn(peer.AddrInfo{ID: bookID(t, 0), Addrs: at(t, "/ip4/10.0.0.1/tcp/1")}, true, now) {
		t.Error("a host learned of itself")
	}
}

// Whoever announces thousands of names must not push out peers that were here.
func TestAFloodOfNamesKeepsKnownPeers(t *testing.T) {
	b, now := newBook(bookID(t, 0)), time.Unix(1e9, 0)
	good := bookID(t, 1)
	b.connected(good, at(t, "/ip4/10.0.0.2/tcp/1"), now)
	for i := range 3 * maxKnown {
		id := bookID(t, 10+i)
		b.learn(peer.AddrInfo{ID: id, Addrs: at(t, "/ip4/10.0.0.3/tcp/1")}, true, now)
		b.failed(id, errors.New("away"), now, exactly)
	}
	if _, ok := b.get(good); !ok || len(b.all()) != maxKnown {
		t.Errorf("%d peers are known, the good one among them: %v", len(b.all()), ok)
	}
	if !b.learn(peer.AddrInfo{ID: bookID(t, 2), Addrs: at(t, "/ip4/10.0.0.4/tcp/1")}, true, now) {
		t.Error("a full book of dead names keeps a new one out")
	}
}

func TestAddressesOfOnePeerAreBoundedAndTheGoodOnesStay(t *testing.T) {
	b, now := newBook(bookID(t, 0)), time.Unix(1e9, 0)
	id := bookID(t, 1)
	b.connected(id, at(t, "/ip4/10.0.0.2/tcp/1"), now)
	for i := range 50 {
		b.learn(peer.AddrInfo{ID: id, Addrs: at(t, fmt.Sprintf("/ip4/10.0.0.3/tcp/%d", i+1))}, false, now)
	}
	e, _ := b.get(id)
	if len(e.addrs) != maxAddrs || e.addrs[0].String() != "/ip4/10.0.0.2/tcp/1" {
		t.Errorf("addresses: %v", e.addrs)
	}
}

func TestABookReadsBackWhatItWrote(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "peers.json"), time.Unix(1e9, 0)
	b := newBook(bookID(t, 0))
	b.connected(bookID(t, 1), at(t, "/ip4/10.0.0.2/tcp/1", "/ip6/fd00::1/tcp/2"), now)
	b.learn(peer.AddrInfo{ID: bookID(t, 2), Addrs: at(t, "/ip4/10.0.0.3/tcp/1")}, true, now) // heard of: not kept
	if err := b.save(path, "swarm"); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.save(path, "swarm"); err != nil { // nothing changed
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Error("an unchanged book was written again")
	}
	c := newBook(bookID(t, 0))
	if err := c.load(path, "swarm", now); err != nil {
		t.Fatal(err)
	}
	e, ok := c.get(bookID(t, 1))
	if !ok || len(e.addrs) != 2 || !e.seen.Equal(now) || len(c.all()) != 1 {
		t.Errorf("read back: %+v, %v, %d peers", e, ok, len(c.all()))
	}
	if err := newBook(bookID(t, 0)).load(path, "other", now); !errors.Is(err, errBook) {
		t.Errorf("the book of another swarm: %v", err)
	}
	if _, err := b.marshal("swarm"); err != nil {
		t.Error(err)
	}
}

func TestABookThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	b := newBook(bookID(t, 0))
	b.connected(bookID(t, 1), at(t, "/ip4/10.0.0.2/tcp/1"), time.Unix(1e9, 0))
	if err := b.save(filepath.Join(dir, "none", "peers.json"), "s"); err == nil {
		t.Fatal("written into a directory that does not exist")
	}
	if err := b.save(filepath.Join(dir, "peers.json"), "s"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "peers.json")); err != nil {
		t.Error(err)
	}
}

func TestLoopbackAddressesAreToldOnThisMachineOnly(t *testing.T) {
	all := at(t, "/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip4/8.8.8.8/tcp/1")
	for remote, want := range map[string]int{"/ip4/127.0.0.1/tcp/9": 3, "/ip4/10.0.0.9/tcp/9": 2, "/ip4/9.9.9.9/tcp/9": 1} {
		if got := reachableFrom(all, at(t, remote)[0]); len(got) != want {
			t.Errorf("to %s: %v, want %d", remote, got, want)
		}
	}
}

func FuzzParseInfos(f *testing.F) {
	f.Add(appendInfos(nil, nil))
	f.Add(appendInfos(nil, []peer.AddrInfo{{ID: bookID(f, 1), Addrs: at(f, "/ip4/1.2.3.4/tcp/5", "/dns4/a/tcp/1")}, {ID: bookID(f, 2)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		infos, err := parseInfos(b)
		if err != nil {
			return
		}
		if len(infos) > maxTold {
			t.Fatalf("%d peers", len(infos))
		}
		again, err := parseInfos(appendInfos(nil, infos))
		if err != nil || len(again) != len(infos) {
			t.Errorf("%v reads back as %v, %v", infos, again, err)
		}
	})
}

func FuzzParseBook(f *testing.F) {
	b := newBook(bookID(f, 0))
	b.connected(bookID(f, 1), at(f, "/ip4/10.0.0.2/tcp/1"), time.Unix(1e9, 0))
	text, err := b.marshal("s")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newBook(bookID(t, 0))
		if err := b.parse(text, "s", time.Unix(1e9, 0)); err != nil {
			return
		}
		if len(b.all()) > maxKnown {
			t.Errorf("%d peers", len(b.all()))
		}
	})
}
