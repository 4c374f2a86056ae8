package agent_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

const protoSync = "/swarm/sync/1"

// member is one agent on an in-memory network, inside a synctest bubble.
type member struct {
	t       testing.TB
	id      string
	key     ed25519.PrivateKey
	host    *p2ptest.Host
	board   *agent.Agent
	journal *agent.Journal
	stop    context.CancelFunc
	ended   chan error
}

// deaf is a topic without gossip: nothing arrives and nothing is heard.
type deaf struct{}

func (d deaf) Publish(context.Context, []byte) error { return nil }
func (d deaf) Next(ctx context.Context) (gossip.Message, error) {
	<-ctx.Done()
	return gossip.Message{}, ctx.Err()
}
func (d deaf) Close() error { return nil }

type option func(*agent.Config)

// silent switches gossip off.
func silent(c *agent.Config) {
	c.Join = func(gossip.Validator) (gossip.Topic, error) { return deaf{}, nil }
}

// start runs the n-th peer with its journal in dir.
func start(t testing.TB, net *p2ptest.Net, n int, dir string, opts ...option) *member {
	t.Helper()
	id := p2ptest.Identity(n)
	m := &member{t: t, id: id.ID(), key: id.PrivateKey(), host: net.Host(id.ID()), ended: make(chan error, 1)}
	var err error
	if m.journal, err = agent.OpenJournal(filepath.Join(dir, m.id+".db")); err != nil {
		t.Fatal(err)
	}
	cfg := agent.Config{
		Key: m.key, Net: m.host, Journal: m.journal, Clock: agent.StepClock(), Log: slog.New(slog.DiscardHandler), Alarm: func(claims.Alarm) {},
		Join: func(v gossip.Validator) (gossip.Topic, error) { return m.host.Topic(agent.Topic, v) },
	}
	for _, o := range opts {
		o(&cfg)
	}
	if m.board, err = agent.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() { m.ended <- m.board.Run(ctx) }()
	t.Cleanup(m.leave)
	return m
}

// leave stops the peer in order.
func (m *member) leave() {
	if m.stop == nil {
		return
	}
	m.stop()
	m.stop = nil
	if err := <-m.ended; err != nil {
		m.t.Error(err)
	}
	_ = m.host.Close()
	if err := m.journal.Close(); err != nil {
		m.t.Error(err)
	}
}

// do runs f on the loop.
func (m *member) do(f func(r *claims.Replica, now claims.Now) []claims.Event) {
	m.t.Helper()
	if err := m.board.Do(context.Background(), f); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) post(bodies ...claims.Body) {
	m.t.Helper()
	m.do(func(*claims.Replica, claims.Now) []claims.Event {
		var evs []claims.Event
		for _, b := range bodies {
			evs = append(evs, claims.Post{Body: b})
		}
		return evs
	})
}

func (m *member) digest() (d uint64, count int) {
	m.do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		d, count = r.Digest(), r.Count()
		return nil
	})
	return d, count
}

func pause(scope string) claims.Body {
	return claims.Directive{Verb: claims.VerbPause, Scope: scope, Reason: "test"}
}

func pauses(prefix string, n int) []claims.Body {
	var out []claims.Body
	for i := range n {
		out = append(out, pause(fmt.Sprintf("%s%d", prefix, i)))
	}
	return out
}

// equalAfter lets virtual time pass and then wants equal boards of count.
func equalAfter(t testing.TB, d time.Duration, count int, ms ...*member) {
	t.Helper()
	time.Sleep(d) // virtual: the bubble's clock jumps when all is idle
	synctest.Wait()
	want, _ := ms[0].digest()
	for i, m := range ms {
		if d, n := m.digest(); d != want || n != count {
			t.Errorf("peer %d has %d records, digest %x; want %d, %x", i, n, d, count, want)
		}
	}
}

func TestTwoBoardsBecomeEqualByGossipAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		net.SetLatency(20 * time.Millisecond)
		a, b := start(t, net, 1, dir), start(t, net, 2, dir)
		equalAfter(t, time.Second, 0, a, b)
		a.post(pauses("x", 3)...)
		equalAfter(t, 100*time.Millisecond, 3, a, b)
	})
}

func TestThreeBoardsBecomeEqualWithGossipOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		net.SetLatency(20 * time.Millisecond)
		a, b, c := start(t, net, 1, dir, silent), start(t, net, 2, dir, silent), start(t, net, 3, dir, silent)
		time.Sleep(time.Minute)
		a.post(pauses("a", 50)...)
		b.post(pauses("b", 70)...)
		c.post(pauses("c", 5)...)
		equalAfter(t, 4*30*time.Second, 125, a, b, c)
	})
}

func TestBoardsOfAPartitionBecomeEqualAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		a, b, c := start(t, net, 1, dir), start(t, net, 2, dir), start(t, net, 3, dir)
		equalAfter(t, time.Minute, 0, a, b, c)
		net.Partition([]string{a.id, b.id}, []string{c.id})
		a.post(pauses("a", 50)...)
		c.post(pauses("c", 50)...)
		time.Sleep(10 * time.Minute)
		net.HealAll()
		equalAfter(t, 10*time.Second, 100, a, b, c)
	})
}

func TestARestartedPeerKnowsWhatItSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		a := start(t, net, 1, dir)
		a.post(pauses("x", 40)...)
		before, _ := a.digest()
		a.leave()
		again := start(t, net, 1, dir)
		after, n := again.digest()
		if after != before || n != 40 {
			t.Errorf("%d records after the restart", n)
		}
	})
}

// journalled is how many records a peer would know after a crash now.
func (m *member) journalled() int {
	m.t.Helper()
	recs, _, _, err := m.journal.Load()
	if err != nil {
		m.t.Fatal(err)
	}
	return len(recs)
}

func TestWhatWasHeardWaitsForTheDiskUntilThisPeerSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		a, b := start(t, net, 1, dir), start(t, net, 2, dir)
		equalAfter(t, 10*time.Second, 0, a, b)
		a.post(pauses("a", 3)...)
		synctest.Wait()
		if _, n := b.digest(); n != 3 || a.journalled() != 3 || b.journalled() != 0 {
			t.Errorf("b has heard of %d; %d and %d are on disk; want 3, and 3 where they were written only", n, a.journalled(), b.journalled())
		}
		b.post(pause("b"))
		if n := b.journalled(); n != 4 {
			t.Errorf("b spoke and knows %d records after a crash, want 4", n)
		}
		a.post(pauses("c", 2)...)
		time.Sleep(300 * time.Millisecond)
		if n := b.journalled(); n != 6 {
			t.Errorf("after a while %d records are on b's disk, want 6", n)
		}
	})
}

func TestAPeerThatLeavesGivesItsClaimsBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		net.SetLatency(20 * time.Millisecond)
		a, b := start(t, net, 1, dir), start(t, net, 2, dir)
		time.Sleep(time.Minute) // both may claim
		job := testJob(t, "a")
		round := claims.NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
			Jobs: 1, Plan: &build.Plan{Target: "t", Jobs: []build.Job{job}}})
		a.post(round)
		for _, m := range []*member{a, b} {
			m.do(func(*claims.Replica, claims.Now) []claims.Event {
				return []claims.Event{claims.Report{Beat: claims.Beat{Slots: 1, Speed: 1000, Accepting: true, Builders: []build.Builder{build.BuilderSample}}}}
			})
		}
		a.do(func(*claims.Replica, claims.Now) []claims.Event { return []claims.Event{claims.Take{Key: job.Key}} })
		time.Sleep(time.Second)
		synctest.Wait()
		held := func() (h claims.Holder, ok bool) {
			b.do(func(r *claims.Replica, now claims.Now) []claims.Event {
				h, ok = r.Holder(job.Key, now)
				return nil
			})
			return h, ok
		}
		if h, ok := held(); !ok || h.Peer != a.id {
			t.Fatalf("the claim is not seen: %+v, %v", h, ok)
		}
		left := time.Now()
		a.leave()
		synctest.Wait()
		if h, ok := held(); ok {
			t.Errorf("%s after it left, the job is still held: %+v", time.Since(left), h)
		}
		if d := time.Since(left); d > time.Second {
			t.Errorf("leaving took %s", d)
		}
	})
}

// A peer that does not read what is sent to it holds up nobody else.
func TestASlowPeerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		a, b := start(t, net, 1, dir, silent), start(t, net, 2, dir, silent)
		slow := net.Host(p2ptest.ID(9))
		defer slow.Close()
		slow.Handle(protoSync, func(s p2p.Stream) { <-s.(interface{ Context() context.Context }).Context().Done() })
		a.post(pauses("x", 400)...)
		equalAfter(t, 3*time.Minute, 400, a, b)
	})
}

// flood is a peer of ill will: everything it sends is well signed.
func flood(t *testing.T, net *p2ptest.Net, victim string, rounds int) (sent, refused int) {
	t.Helper()
	id := p2ptest.Identity(66)
	host := net.Host(id.ID())
	t.Cleanup(func() { _ = host.Close() })
	topic, err := host.Topic(agent.Topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	scope := 0
	page := func(n int) [][]byte {
		var raws [][]byte
		for range n {
			scope++
			raws = append(raws, seal(t, id.PrivateKey(), id.ID(), fmt.Sprintf("flood%d", scope)).Raw())
		}
		return raws
	}
	ctx := context.Background()
	for range rounds {
		sums, err := claims.EncodeSync(claims.SyncMessage{Sums: make([]uint64, claims.Buckets)})
		if err != nil {
			t.Fatal(err)
		}
		recs, err := claims.EncodeSync(claims.SyncMessage{Records: page(300)})
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range [][]byte{sums, recs, []byte("rubbish"), make([]byte, claims.MaxSyncBytes)} {
			sent++
			if _, err := p2p.Request(ctx, host, victim, protoSync, msg, 0); err != nil {
				refused++
			}
		}
		msg, err := build.Marshal(page(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Publish(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	return sent, refused
}

func seal(t testing.TB, key ed25519.PrivateKey, author, scope string) wire.Opened {
	t.Helper()
	r := claims.NewReplica(claims.Config{Key: key, Instance: 1, Rand: nil}, nil, claims.Now{Wall: time.Now().UnixMilli(), Boot: 1})
	for _, e := range r.Step(claims.Now{Wall: time.Now().UnixMilli(), Boot: 1}, claims.Post{Body: pause(scope)}) {
		if p, ok := e.(claims.Publish); ok && p.Record.Type() == claims.TypeDirective {
			return p.Record
		}
	}
	t.Fatalf("nothing sealed by %s", author)
	return wire.Opened{}
}

func TestAFloodNeverStopsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		net.SetLatency(5 * time.Millisecond)
		a, b := start(t, net, 1, dir), start(t, net, 2, dir)
		equalAfter(t, time.Minute, 0, a, b)
		sent, refused := flood(t, net, a.id, 3)
		if refused < sent/2 {
			t.Errorf("%d of %d messages refused, want the rubbish and the empty ones", refused, sent)
		}
		began := time.Now()
		b.post(pause("honest"))
		synctest.Wait()
		time.Sleep(time.Second)
		found := false
		a.do(func(r *claims.Replica, _ claims.Now) []claims.Event {
			for _, o := range r.Records() {
				found = found || o.Key() == "directive/pause/honest"
			}
			return nil
		})
		if !found {
			t.Errorf("%s after it was written, an honest peer's record is not here", time.Since(began))
		}
	})
}

func testJob(t testing.TB, name string) build.Job {
	t.Helper()
	pre := []build.Facet{{Name: "CPV", Value: "app-misc/" + name + "-1"}}
	k, err := build.KeyOf(pre)
	if err != nil {
		t.Fatal(err)
	}
	cpv, err := build.ParseCPV("app-misc/" + name + "-1")
	if err != nil {
		t.Fatal(err)
	}
	return build.Job{Key: k, Builder: build.BuilderSample, CPV: cpv, Slot: "0", Repo: "t", Preimage: pre}
}
