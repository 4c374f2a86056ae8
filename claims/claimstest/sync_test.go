package claimstest_test

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// The bars of convergence, in periods of anti-entropy.
const (
	periodMS   = 30_000
	gossipBar  = 2
	silentBar  = 8
	hopMS      = 50 // one way, as between sites
	meshDegree = 8
	syncWall   = 1_800_000_000_000
)

// syncNet is many replicas on one virtual clock. Messages of the exchange take
// one hop and arrive, as over TCP; gossip floods over the mesh and each hop
// may lose a message.
type syncNet struct {
	tb     testing.TB
	rng    *rand.Rand
	now    int64
	queue  later
	serial int
	nodes  []*syncNode
	byID   map[string]*syncNode
	// opened keeps what was verified once: the peers of one process share the
	// bytes, and a swarm's worth of signature checks would hide everything else.
	opened map[*byte]wire.Opened
	loss   int // per mille a hop; 1000 = gossip is off
	bytes  int64
}

type syncNode struct {
	rep    *claims.Replica
	links  []*syncNode
	wakeAt int64
	seen   map[*byte]bool
}

type syncEvent struct {
	at  int64
	seq int
	run func()
}

type later []syncEvent

func (q later) Len() int { return len(q) }
func (q later) Less(a, b int) bool {
	return q[a].at < q[b].at || q[a].at == q[b].at && q[a].seq < q[b].seq
}
func (q later) Swap(a, b int) { q[a], q[b] = q[b], q[a] }
func (q *later) Push(x any)   { *q = append(*q, x.(syncEvent)) }
func (q *later) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func syncKey(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n+1))
	return ed25519.NewKeyFromSeed(seed[:])
}

func newSyncNet(tb testing.TB, seed uint64, n, loss int) *syncNet {
	s := &syncNet{tb: tb, rng: rand.New(rand.NewPCG(seed, 1)), byID: map[string]*syncNode{}, opened: map[*byte]wire.Opened{}, loss: loss}
	for i := range n {
		r := claims.NewReplica(claims.Config{Key: syncKey(i), Instance: uint64(i + 1), Rand: rand.New(rand.NewPCG(seed, uint64(i+2)))}, nil, s.at())
		node := &syncNode{rep: r, seen: map[*byte]bool{}}
		s.nodes, s.byID[r.Self()] = append(s.nodes, node), node
	}
	s.mesh(min(meshDegree, n-1))
	return s
}

// mesh links each node with the next, so that nobody is apart, and with others
// at random until each has about degree links.
func (s *syncNet) mesh(degree int) {
	link := func(a, b *syncNode) {
		if a != b && !slices.Contains(a.links, b) {
			a.links, b.links = append(a.links, b), append(b.links, a)
		}
	}
	for i, a := range s.nodes {
		link(a, s.nodes[(i+1)%len(s.nodes)])
		for range (degree - 2) / 2 {
			link(a, s.nodes[s.rng.IntN(len(s.nodes))])
		}
	}
}

func (s *syncNet) at() claims.Now {
	return claims.Now{Wall: syncWall + s.now, Boot: 1_000_000 + s.now}
}

func (s *syncNet) after(ms int64, f func()) {
	s.serial++
	heap.Push(&s.queue, syncEvent{s.now + ms, s.serial, f})
}

func (s *syncNet) step(n *syncNode, ev claims.Event) {
	var said []wire.Opened
	for _, e := range n.rep.Step(s.at(), ev) {
		switch e := e.(type) {
		case claims.Publish:
			s.opened[&e.Record.Raw()[0]] = e.Record
			said = append(said, e.Record)
		case claims.Alarm:
			s.tb.Fatal(e.Text)
		case claims.Send:
			s.send(n, s.byID[e.Peer], e.Msg)
		}
	}
	if len(said) > 0 {
		n.seen[&said[0].Raw()[0]] = true
		s.flood(n, nil, said)
	}
	if at := n.rep.NextWake(s.at()) - 1_000_000; n.wakeAt <= s.now || at < n.wakeAt {
		n.wakeAt = at
		s.after(at-s.now, func() {
			if n.wakeAt == at {
				s.step(n, claims.Tick{})
			}
		})
	}
}

// flood passes one gossip message on; its first record names it.
func (s *syncNet) flood(n, from *syncNode, recs []wire.Opened) {
	name := &recs[0].Raw()[0]
	for _, to := range n.links {
		if to == from || s.rng.IntN(1000) < s.loss {
			continue
		}
		s.after(hopMS, func() {
			if !to.seen[name] {
				to.seen[name] = true
				s.step(to, claims.Received{From: n.rep.Self(), Records: recs})
				s.flood(to, n, recs)
			}
		})
	}
}

func (s *syncNet) send(from, to *syncNode, m claims.SyncMessage) {
	b, err := claims.EncodeSync(m)
	if err != nil {
		s.tb.Fatal(err)
	}
	if len(b) > claims.MaxSyncBytes {
		s.tb.Fatalf("a message of %d bytes", len(b))
	}
	s.bytes += int64(len(b))
	recs := make([]wire.Opened, len(m.Records))
	for i, raw := range m.Records {
		recs[i] = s.opened[&raw[0]]
	}
	m.Records = nil
	s.after(hopMS, func() {
		if len(recs) > 0 {
			s.step(to, claims.Received{From: from.rep.Self(), Records: recs})
		}
		s.step(to, claims.Synced{From: from.rep.Self(), Msg: m})
	})
}

// until runs the clock on to a time.
func (s *syncNet) until(ms int64) {
	for len(s.queue) > 0 && s.queue[0].at <= ms {
		e := heap.Pop(&s.queue).(syncEvent)
		s.now = e.at
		e.run()
	}
	s.now = ms
}

// equal reports whether all boards are, and the number of records of one.
func (s *syncNet) equal() (bool, int) {
	first := s.nodes[0].rep
	for _, n := range s.nodes[1:] {
		if n.rep.Count() != first.Count() || n.rep.Digest() != first.Digest() {
			return false, 0
		}
	}
	return true, first.Count()
}

// start lets every peer know its neighbours and say what it is.
func (s *syncNet) start() {
	for i, n := range s.nodes {
		s.after(s.rng.Int64N(periodMS), func() {
			for _, l := range n.links {
				s.step(n, claims.Connected{Peer: l.rep.Self()})
			}
			s.step(n, claims.Report{Beat: claims.Beat{Nick: fmt.Sprintf("p%d", i), Slots: 1, Speed: 1000, Accepting: true, Builders: []build.Builder{build.BuilderSample}}})
		})
	}
	s.until(2 * periodMS)
}

// syncBody is the n-th record that a peer writes: mostly outcomes, as on a
// board some rounds old.
func syncBody(tb testing.TB, peer string, author, n int) claims.Body {
	tb.Helper()
	id := fmt.Sprintf("%d-%d", author, n)
	k, err := build.KeyOf([]build.Facet{{Name: "n", Value: id}})
	if err != nil {
		tb.Fatal(err)
	}
	cpv := build.CPV{Category: "app-misc", Name: fmt.Sprintf("p%dx%d", author, n), Version: "1"}
	switch n % 4 {
	case 3:
		return claims.Decline{Key: k, Peer: peer, Until: hlc.New(syncWall), Reason: "no room on its disk for the build"}
	case 2:
		return claims.Claim{Key: k, Peer: peer, Epoch: 1, Stamp: hlc.New(syncWall - 1000), State: claims.ClaimReturned}
	}
	return claims.NewOutcome(build.Outcome{Key: k, CPV: cpv, Target: "amd64", Class: build.Good, CoreMillis: 480_000, Millis: 60_000, PeakMiB: 700,
		Artifact: &build.Artifact{CID: cas.Sum([]byte(id)).String(), Size: 1 << 20, MD5: "0123456789abcdef0123456789abcdef", SHA1: "0123456789abcdef0123456789abcdef01234567"}})
}

// converge has every peer write its share of the records within one period, in
// bursts, and returns after how many periods from the last one on all boards
// are equal.
func converge(tb testing.TB, peers, records, loss int, limit int64) (periods float64, s *syncNet) {
	tb.Helper()
	s = newSyncNet(tb, 1, peers, loss)
	s.start()
	const burst = 10
	each := records / peers
	began := s.now
	for i, n := range s.nodes {
		for from := 0; from < each; from += burst {
			s.after(s.rng.Int64N(periodMS), func() {
				for k := from; k < min(each, from+burst); k++ {
					s.step(n, claims.Post{Body: syncBody(tb, n.rep.Self(), i, k)})
				}
			})
		}
	}
	s.until(began + periodMS)
	written := s.now
	for s.now-written < limit*periodMS {
		if ok, _ := s.equal(); ok {
			break
		}
		s.until(s.now + 500)
	}
	ok, count := s.equal()
	if !ok {
		tb.Fatalf("not equal after %d periods", limit)
	}
	if count < peers*each {
		tb.Fatalf("%d records on the boards, want %d", count, peers*each)
	}
	return float64(s.now-written) / periodMS, s
}

// BenchmarkConverge is 100 replicas that write 20,000 records within one
// period. A mesh that
// loses a fifth of its hops loses next to nothing; with 90 % lost, about half of
// the records are missing everywhere when the last is written.
func BenchmarkConverge(b *testing.B) {
	for _, c := range []struct {
		name string
		loss int
		bar  float64
	}{{"gossip=on,loss=20%", 200, gossipBar}, {"gossip=scarce,loss=90%", 900, gossipBar}, {"gossip=off", 1000, silentBar}} {
		b.Run(c.name, func(b *testing.B) {
			var sum float64
			for b.Loop() {
				p, _ := converge(b, 100, 20_000, c.loss, 20)
				sum += p
			}
			b.ReportMetric(sum/float64(b.N), "periods")
			b.ReportMetric(sum/float64(b.N)/c.bar, "x-bar")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func TestBoardsBecomeEqualWithinTheBar(t *testing.T) {
	for _, c := range []struct {
		loss int
		bar  float64
	}{{200, gossipBar}, {900, gossipBar}, {1000, silentBar}} {
		if p, _ := converge(t, 20, 400, c.loss, 20); p > c.bar {
			t.Errorf("with %d per mille of gossip lost, 20 boards are equal after %.1f periods, want %.0f", c.loss, p, c.bar)
		}
	}
}
