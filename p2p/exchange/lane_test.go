package exchange

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/p2p"
	"github.com/ipfs/go-cid"
)

// opened counts the streams that are opened over a network.
type opened struct {
	p2p.Network
	mu sync.Mutex
	n  int
}

func (o *opened) Open(ctx context.Context, peer, proto string) (p2p.Stream, error) {
	o.mu.Lock()
	o.n++
	o.mu.Unlock()
	return o.Network.Open(ctx, peer, proto)
}

func (o *opened) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n
}

func smallBlobs(t *testing.T, s *swarm, n int) []cid.Cid {
	t.Helper()
	var out []cid.Cid
	for i := range n {
		out = append(out, s.put(t, castest.Blob(1000, byte(i))))
	}
	return out
}

func TestSmallBlobsShareStreamsThatCloseWhenNoMoreAreWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, "a")
		home, bulk := &opened{Network: s.me}, &opened{Network: s.me}
		s.f = NewFetcher(home, nil)
		s.f.UseForBulk(bulk)
		blobs := smallBlobs(t, s, 100)
		into := castest.NewMemory()
		for _, c := range blobs[:50] {
			if err := s.f.Fetch(t.Context(), c, []string{"a"}, into); err != nil {
				t.Fatal(err)
			}
		}
		if home.count() != 1 || bulk.count() != 0 {
			t.Fatalf("50 blobs in turn took %d and %d streams; want 1 of the private network", home.count(), bulk.count())
		}
		s.net.SetLatency(time.Millisecond) // or one stream would do for all
		spread(8, 50, func(i int) {
			if err := s.f.Fetch(t.Context(), blobs[50+i], []string{"a"}, into); err != nil {
				t.Error(err)
			}
		})
		if home.count() != homeSessions || bulk.count() != 8-homeSessions {
			t.Fatalf("50 blobs by eight at once took %d and %d streams; want %d and %d", home.count(), bulk.count(), homeSessions, 8-homeSessions)
		}
		time.Sleep(keptFor + 10*time.Millisecond)
		synctest.Wait()
		s.f.mu.Lock()
		lanes := len(s.f.lanes)
		s.f.mu.Unlock()
		s.served["a"].mu.Lock()
		serving := s.served["a"].all
		s.served["a"].mu.Unlock()
		if lanes != 0 || serving != 0 {
			t.Fatalf("after %v the fetcher has %d lanes, and the holder serves %d streams; want none", keptFor, lanes, serving)
		}
	})
}

func TestAHolderWhoseConnectionBrokeMeanwhileIsAskedOnANewStream(t *testing.T) {
	s := newSwarm(t, "a")
	blobs := smallBlobs(t, s, 2)
	into := castest.NewMemory()
	if err := s.f.Fetch(wait(t), blobs[0], []string{"a"}, into); err != nil {
		t.Fatal(err)
	}
	s.net.Cut("me", "a")
	s.net.Heal("me", "a")
	if err := s.f.Fetch(wait(t), blobs[1], []string{"a"}, into); err != nil {
		t.Fatal(err)
	}
}

func TestABlobThatIsNotHeldDoesNotCostTheStream(t *testing.T) {
	s := newSwarm(t, "a")
	home := &opened{Network: s.me}
	s.f = NewFetcher(home, nil)
	c := smallBlobs(t, s, 1)[0]
	into := castest.NewMemory()
	for range 3 {
		if err := s.f.Fetch(wait(t), cas.Sum([]byte("elsewhere")), []string{"a"}, into); err == nil {
			t.Fatal("a blob that nobody holds was fetched")
		}
	}
	if err := s.f.Fetch(wait(t), c, []string{"a"}, into); err != nil {
		t.Fatal(err)
	}
	if home.count() != 1 {
		t.Fatalf("it took %d streams; want 1", home.count())
	}
}

// A cancelled fetch must not leave its half-read reply to the next one.
func TestACancelledFetchTakesItsStreamWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, "a")
		home := &opened{Network: s.me}
		s.f = NewFetcher(home, nil)
		blobs := smallBlobs(t, s, 3)
		into := castest.NewMemory()
		if err := s.f.Fetch(t.Context(), blobs[0], []string{"a"}, into); err != nil {
			t.Fatal(err)
		}
		s.net.SetLatency(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := s.f.Fetch(ctx, blobs[1], []string{"a"}, into); err == nil {
			t.Fatal("it came before it could")
		}
		s.net.SetLatency(0)
		if err := s.f.Fetch(t.Context(), blobs[2], []string{"a"}, into); err != nil {
			t.Fatal(err)
		}
		if _, err := into.Stat(blobs[1]); err == nil {
			t.Fatal("the cancelled blob is there")
		}
		if home.count() != 2 {
			t.Fatalf("it took %d streams; want 2", home.count())
		}
	})
}

// spread has workers do work(0) to work(n-1).
func spread(workers, n int, work func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				work(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
