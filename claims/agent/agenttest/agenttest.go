// Package agenttest runs one peer's real board for the tests of what stands on
// it: an agent with a journal and a blob store on disk, over an in-memory
// network.
//
// The peer is alone. Its boot clock leaps ahead once, before it runs: the ten
// seconds for which a lonely peer waits before it writes are over at once.
package agenttest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// Peer is one running peer.
type Peer struct {
	t       testing.TB
	Self    string
	Board   *agent.Agent
	Store   *disk.Store
	Log     *slog.Logger
	journal *agent.Journal
	stop    context.CancelFunc
	ended   chan error
	once    sync.Once
}

// Start runs a peer whose state is in dir; the same dir is the same peer.
// Stop ends it, or the end of the test does.
func Start(t testing.TB, dir string) *Peer {
	t.Helper()
	p := &Peer{t: t, ended: make(chan error, 1), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	late := clock{new(atomic.Int64)}
	id := p2ptest.Identity(1)
	p.Self = id.ID()
	host := p2ptest.NewNet(1).Host(p.Self)
	var err error
	if p.journal, err = agent.OpenJournal(filepath.Join(dir, "board.db")); err != nil {
		t.Fatal(err)
	}
	if p.Store, err = disk.Open(filepath.Join(dir, "blobs"), disk.Options{}); err != nil {
		t.Fatal(err)
	}
	p.Board, err = agent.New(agent.Config{Key: id.PrivateKey(), Net: host, Journal: p.journal, Clock: late, Log: p.Log,
		Join:  func(v gossip.Validator) (gossip.Topic, error) { return host.Topic("board", v) },
		Alarm: func(claims.Alarm) {}})
	if err != nil {
		t.Fatal(err)
	}
	late.ahead.Store(15_000)
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() { p.ended <- p.Board.Run(ctx) }()
	t.Cleanup(p.Stop)
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Report{Beat: claims.Beat{Nick: "me", Slots: 1, Speed: 1000, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}}}}
	})
	return p
}

// Stop ends the board and closes the journal and the store.
func (p *Peer) Stop() {
	p.once.Do(func() {
		p.stop()
		if err := errors.Join(<-p.ended, p.journal.Close(), p.Store.Close()); err != nil {
			p.t.Error(err)
		}
	})
}

// clock is the machine's, some milliseconds ahead.
type clock struct{ ahead *atomic.Int64 }

func (c clock) Now() claims.Now {
	now := time.Now().UnixMilli()
	return claims.Now{Wall: now, Boot: now + c.ahead.Load()}
}
func (c clock) Awake() int64 { return c.Now().Boot }

// Do runs f on the board's loop.
func (p *Peer) Do(f func(*claims.Replica, claims.Now) []claims.Event) {
	p.t.Helper()
	if err := p.Board.Do(context.Background(), f); err != nil {
		p.t.Fatal(err)
	}
}

// Until looks at the board after every change until ok.
func (p *Peer) Until(what string, ok func(*claims.Replica, claims.Now) bool) {
	p.t.Helper()
	changed := p.Board.Changed()
	late := time.After(patience)
	for {
		done := false
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			done = ok(r, now)
			return nil
		})
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			p.t.Fatalf("within %s it did not come to: %s", patience, what)
		}
	}
}

// Announce puts a stored blob on this peer's holdings.
func (p *Peer) Announce(ctx context.Context, c cid.Cid) error {
	d, err := cas.Digest(c)
	if err != nil {
		return err
	}
	return p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		n := int(d[0]) % claims.HoldShards
		list := [][]byte{d[:]}
		for _, h := range r.OwnHoldings(n) {
			list = append(list, h[:])
		}
		return []claims.Event{claims.Post{Body: claims.Holdings{Shard: n, CIDs: list}}}
	})
}

// NoPeers is a fetch of a peer that is alone: what is not here, nobody has.
func (p *Peer) NoPeers(_ context.Context, c cid.Cid) error {
	_, err := p.Store.Stat(c)
	return err
}

// Job makes a valid job of the sample builder that needs others to build.
func Job(t testing.TB, name string, needs ...build.Job) build.Job {
	t.Helper()
	pre := []build.Facet{{Name: "name", Value: name}}
	k, err := build.KeyOf(pre)
	if err != nil {
		t.Fatal(err)
	}
	j := build.Job{Key: k, Builder: build.BuilderSample, CPV: build.CPV{Category: "app-misc", Name: name, Version: "1"}, Slot: "0", Repo: "t", Preimage: pre, CoreMillis: 10}
	var root []build.RootEntry
	for _, n := range needs {
		j.Needs = append(j.Needs, build.Edge{Key: n.Key, Kind: build.Buildtime | build.Runtime})
		root = append(root, build.RootEntry{CPV: n.CPV, Slot: "0", Key: n.Key})
	}
	j.Root = build.NewRoot(root...)
	return j
}

// Ask posts a round "r1" for the jobs.
func (p *Peer) Ask(jobs ...build.Job) {
	p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, Requester: p.Self, State: build.RoundOpen,
			Counter: 1, Created: uint64(r.Stamp(now)), Jobs: len(jobs), Plan: &build.Plan{Target: "t", Jobs: jobs}})}}
	})
}
