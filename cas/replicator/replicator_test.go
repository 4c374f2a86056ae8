package replicator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/cas/replicator"
	"github.com/build-swarm/swarm/p2p/exchange"
	"github.com/build-swarm/swarm/p2p/p2ptest"
	"github.com/ipfs/go-cid"
)

// board is what all peers know: who holds what, who is here.
type board struct {
	mu    sync.Mutex
	sizes map[cid.Cid]int64
	holds map[cid.Cid]map[string]bool
	left  map[string]time.Time // of the known peers; zero while here
	kicks []func()
}

func (b *board) receipt(peer string, i cas.Info) {
	b.mu.Lock()
	b.sizes[i.CID] = i.Size
	if b.holds[i.CID] == nil {
		b.holds[i.CID] = map[string]bool{}
	}
	b.holds[i.CID][peer] = true
	b.mu.Unlock()
	b.kick()
}

func (b *board) kick() {
	b.mu.Lock()
	kicks := slices.Clone(b.kicks)
	b.mu.Unlock()
	for _, k := range kicks {
		k()
	}
}

func (b *board) input(self string) replication.Input {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := replication.Input{Self: self, Now: time.Now()}
	for id, t := range b.left {
		in.Peers = append(in.Peers, replication.Peer{ID: id, Steady: true, Stores: true, Live: t.IsZero(), Left: t, Free: 1 << 40})
	}
	for c, n := range b.sizes {
		x := replication.Blob{CID: c, Size: n}
		for id := range b.holds[c] {
			x.Holders = append(x.Holders, id)
		}
		in.Blobs = append(in.Blobs, x)
	}
	return in
}

type peer struct {
	host  *p2ptest.Host
	store *castest.Memory
	stop  context.CancelFunc
	done  chan error
}

func (b *board) join(net *p2ptest.Net, id string) *peer {
	p := &peer{host: net.Host(id), store: castest.NewMemory(), done: make(chan error, 1)}
	exchange.Serve(p.host, p.store, nil)
	r := replicator.New(replicator.Config{
		Input:   func() replication.Input { return b.input(id) },
		Fetcher: exchange.NewFetcher(p.host, nil),
		Store:   p.store,
		Stored:  func(i cas.Info) { b.receipt(id, i) },
	})
	b.mu.Lock()
	b.kicks = append(b.kicks, r.Kick)
	b.left[id] = time.Time{}
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() { p.done <- r.Run(ctx) }()
	return p
}

// copies counts the stores that really hold a blob.
func copies(peers map[string]*peer, c cid.Cid) (n int) {
	for _, p := range peers {
		if _, err := p.store.Stat(c); err == nil {
			n++
		}
	}
	return n
}

func TestCopiesReachRAndAreRepairedWhenAHolderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := p2ptest.NewNet(1)
		b := &board{sizes: map[cid.Cid]int64{}, holds: map[cid.Cid]map[string]bool{}, left: map[string]time.Time{}}
		peers := map[string]*peer{}
		for i := range 5 {
			id := fmt.Sprintf("p%d", i)
			peers[id] = b.join(net, id)
		}
		var names []cid.Cid
		for i := range 20 {
			info, err := peers["p0"].store.Put(t.Context(), bytes.NewReader(castest.Blob(100_000, byte(i))), cid.Undef)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, info.CID)
			b.receipt("p0", info)
		}
		expect := func(when string, want int) {
			t.Helper()
			for _, c := range names {
				if n := copies(peers, c); n != want {
					t.Errorf("%s: %s has %d copies, want %d", when, c, n, want)
				}
			}
		}
		time.Sleep(time.Minute) // of the bubble
		expect("after a minute", 3)

		// The builder goes; two copies are left, which is not yet an emergency.
		leave := func(id string) {
			peers[id].stop()
			if err := <-peers[id].done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v", err)
			}
			_ = peers[id].host.Close()
			delete(peers, id)
			b.mu.Lock()
			b.left[id] = time.Now()
			b.mu.Unlock()
			b.kick()
		}
		leave("p0")
		time.Sleep(10 * time.Minute)
		expect("ten minutes after one left", 2)
		time.Sleep(6 * time.Minute)
		expect("sixteen minutes after one left", 3)

		// Whatever falls to one live copy is repaired at once.
		leave("p1")
		leave("p2")
		time.Sleep(5 * time.Second)
		expect("when two are left", 2)
		for id := range peers {
			leave(id)
		}
	})
}

// What a round carries is named on the board without its size.
func TestACopyOfUnknownSizeIsReportedWithTheSizeItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := p2ptest.NewNet(1)
		b := &board{sizes: map[cid.Cid]int64{}, holds: map[cid.Cid]map[string]bool{}, left: map[string]time.Time{}}
		peers := map[string]*peer{"p0": b.join(net, "p0"), "p1": b.join(net, "p1")}
		info, err := peers["p0"].store.Put(t.Context(), bytes.NewReader(castest.Blob(100_000, 1)), cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		b.receipt("p0", cas.Info{CID: info.CID})
		time.Sleep(time.Minute) // of the bubble
		b.mu.Lock()
		if n := b.sizes[info.CID]; !b.holds[info.CID]["p1"] || n != info.Size {
			t.Errorf("the copy at p1: %v, of %d bytes, want %d", b.holds[info.CID]["p1"], n, info.Size)
		}
		b.mu.Unlock()
		for id, p := range peers {
			p.stop()
			<-p.done
			if err := p.host.Close(); err != nil {
				t.Errorf("close %s: %v", id, err)
			}
		}
	})
}

type failing struct {
	mu    sync.Mutex
	tries []time.Time
	err   error
}

func (f *failing) Fetch(context.Context, cid.Cid, []string, cas.Store) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Now())
	return f.err
}

func TestFailuresAreRetriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{err: errors.New("boom")}
		b := &board{sizes: map[cid.Cid]int64{}, holds: map[cid.Cid]map[string]bool{}, left: map[string]time.Time{"a": {}, "me": {}}}
		b.receipt("a", cas.Info{CID: cas.Sum(nil), Size: 1})
		r := replicator.New(replicator.Config{Input: func() replication.Input { return b.input("me") }, Fetcher: f, Store: castest.NewMemory()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(4 * time.Hour)
		f.mu.Lock()
		n := len(f.tries)
		f.mu.Unlock()
		if n < 7 || n > 10 { // 1+2+4+8+16+32 minutes, then each hour
			t.Errorf("%d tries in four hours", n)
		}
		if s := r.Status(); s.Failed != int64(n) || s.Copied != 0 {
			t.Errorf("Status = %+v after %d tries", s, n)
		}
		cancel()
		<-done
	})
}
