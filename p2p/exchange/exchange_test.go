package exchange

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
	"github.com/ipfs/go-cid"
)

// swarm is a set of peers of which all but "me" serve a store.
type swarm struct {
	net    *p2ptest.Net
	me     *p2ptest.Host
	stores map[string]*castest.Memory
	served map[string]*Server
	f      *Fetcher
}

func newSwarm(t *testing.T, holders ...string) *swarm {
	t.Helper()
	s := &swarm{net: p2ptest.NewNet(1), stores: map[string]*castest.Memory{}, served: map[string]*Server{}}
	s.me = s.net.Host("me")
	for _, h := range holders {
		s.stores[h] = castest.NewMemory()
		host := s.net.Host(h)
		s.served[h] = Serve(host, s.stores[h], nil)
		t.Cleanup(func() { _ = host.Close() })
	}
	s.f = NewFetcher(s.me, nil)
	t.Cleanup(func() { _ = s.me.Close() })
	return s
}

// put gives a blob to all holders.
func (s *swarm) put(t *testing.T, data []byte) cid.Cid {
	t.Helper()
	for _, m := range s.stores {
		if _, err := m.Put(t.Context(), bytes.NewReader(data), cid.Undef); err != nil {
			t.Fatal(err)
		}
	}
	return cas.Sum(data)
}

// wait bounds a test that hangs.
func wait(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func content(t *testing.T, s cas.Store, c cid.Cid) []byte {
	t.Helper()
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFetchBringsTheBlobFromAnyNumberOfHolders(t *testing.T) {
	for _, size := range []int{0, 1, cas.GroupSize, cas.GroupSize + 1, firstAsk, firstAsk + 1, 5_000_000, 40_000_000} {
		for _, holders := range [][]string{{"a"}, {"a", "b", "c"}} {
			s := newSwarm(t, holders...)
			data := castest.Blob(size, 1)
			c := s.put(t, data)
			into, err := disk.Open(t.TempDir(), disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second finds it there
				if err := s.f.Fetch(wait(t), c, holders, into); err != nil {
					t.Fatalf("%d bytes from %v: %v", size, holders, err)
				}
			}
			if !bytes.Equal(content(t, into, c), data) {
				t.Fatalf("%d bytes from %v: other bytes", size, holders)
			}
			if err := into.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheRateOfAHolderIsKnownOnceItHasDelivered(t *testing.T) {
	s := newSwarm(t, "a", "b")
	c := s.put(t, castest.Blob(20_000_000, 1))
	if err := s.f.Fetch(wait(t), c, []string{"a"}, castest.NewMemory()); err != nil {
		t.Fatal(err)
	}
	if a, b := s.f.Rate("a"), s.f.Rate("b"); a <= 0 || b != 0 {
		t.Errorf("a delivered at %d bytes/s, b, which was not asked, at %d", a, b)
	}
}

// plain hides what a store can do beyond cas.Store.
type plain struct{ cas.Store }

func TestFetchIntoAStoreThatTakesStreamsOnly(t *testing.T) {
	s := newSwarm(t, "a", "b")
	data := castest.Blob(3_000_000, 1)
	c := s.put(t, data)
	into := castest.NewMemory()
	if err := s.f.Fetch(wait(t), c, []string{"a", "b"}, plain{into}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, into, c), data) {
		t.Fatal("other bytes")
	}
}

func TestALiarIsDroppedAndNotAskedAgain(t *testing.T) {
	data := castest.Blob(40_000_000, 1)
	for name, off := range map[string]int64{"at the end": 39_999_999, "in the middle": 17_000_000, "at the beginning": 0} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t, "liar", "good")
			c := s.put(t, data)
			s.stores["liar"].Corrupt(c, off*8)
			into := castest.NewMemory()
			if err := s.f.Fetch(wait(t), c, []string{"liar", "good"}, into); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content(t, into, c), data) {
				t.Fatal("other bytes")
			}
			// Whether the liar's bad range was its own is chance, unless it alone has it.
			if err := s.f.Fetch(wait(t), c, []string{"liar"}, castest.NewMemory()); !errors.Is(err, ErrNoHolder) {
				t.Fatalf("from the liar alone: %v", err)
			}
			opened := opens{Network: s.me}
			s.f.net = &opened
			if err := s.f.Fetch(wait(t), c, []string{"liar"}, castest.NewMemory()); !errors.Is(err, ErrNoHolder) {
				t.Fatalf("from the liar again: %v", err)
			}
			if opened.n != 0 {
				t.Fatal("the liar was asked again")
			}
		})
	}
}

// opens counts the streams that are opened, one after the other.
type opens struct {
	p2p.Network
	n int
}

func (o *opens) Open(ctx context.Context, peer, proto string) (p2p.Stream, error) {
	o.n++
	return o.Network.Open(ctx, peer, proto)
}

// gate is a Source whose blobs call at with each offset that is read.
type gate struct {
	cas.Source
	at func(off int64)
}

type gatedBlob struct {
	cas.Blob
	at func(off int64)
}

func (g gate) Open(c cid.Cid) (cas.Blob, error) {
	b, err := g.Source.Open(c)
	return gatedBlob{b, g.at}, err
}

func (b gatedBlob) ReadAt(p []byte, off int64) (int, error) {
	b.at(off)
	return b.Blob.ReadAt(p, off)
}

func TestAHolderKilledInTheMiddleIsReplaced(t *testing.T) {
	data := castest.Blob(40_000_000, 1)
	for _, how := range []string{"fetch", "open"} {
		t.Run(how, func(t *testing.T) {
			s := newSwarm(t, "good")
			c := s.put(t, data)
			dying := s.net.Host("dying")
			var once sync.Once
			Serve(dying, gate{s.stores["good"], func(off int64) {
				if off > 9_000_000 && off < 30_000_000 {
					once.Do(func() { s.net.Cut("me", "dying") })
				}
			}}, nil)
			t.Cleanup(func() { _ = dying.Close() })
			holders := []string{"dying", "good"}
			var got []byte
			if how == "fetch" {
				into := castest.NewMemory()
				if err := s.f.Fetch(wait(t), c, holders, into); err != nil {
					t.Fatal(err)
				}
				got = content(t, into, c)
			} else {
				r, err := s.f.Open(wait(t), c, int64(len(data)), holders)
				if err != nil {
					t.Fatal(err)
				}
				if got, err = io.ReadAll(r); err != nil {
					t.Fatal(err)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, data) {
				t.Fatal("other bytes")
			}
			if len(s.me.Peers()) != 1 {
				t.Fatal("the holder did not die: the test shows nothing")
			}
		})
	}
}

func TestFetchGoesOnWhereTheLastOneEnded(t *testing.T) {
	s := newSwarm(t)
	data := castest.Blob(20_000_000, 1)
	src := castest.NewMemory()
	if _, err := src.Put(t.Context(), bytes.NewReader(data), cid.Undef); err != nil {
		t.Fatal(err)
	}
	c := cas.Sum(data)
	host := s.net.Host("a")
	t.Cleanup(func() { _ = host.Close() })
	var mu sync.Mutex
	var reads, limit int64 = 0, 10_000_000
	srv := Serve(host, gate{src, func(off int64) {
		mu.Lock()
		defer mu.Unlock()
		reads += cas.GroupSize
		if reads > limit {
			s.net.Cut("me", "a")
		}
	}}, nil)
	into, err := disk.Open(t.TempDir(), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	if err := s.f.Fetch(wait(t), c, []string{"a"}, into); !errors.Is(err, ErrNoHolder) {
		t.Fatalf("first Fetch: %v, want ErrNoHolder", err)
	}
	mu.Lock()
	limit = 1 << 40
	mu.Unlock()
	first := srv.Served().Bytes
	s.net.Heal("me", "a")
	if err := s.f.Fetch(wait(t), c, []string{"a"}, into); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, into, c), data) {
		t.Fatal("other bytes")
	}
	if second := srv.Served().Bytes - first; second > 15_000_000 {
		t.Fatalf("%d bytes were sent in the second run, of %d: nothing was kept", second, len(data))
	}
}

func TestAStalledHolderIsDropped(t *testing.T) {
	data := castest.Blob(30_000_000, 1)
	for name, stall := range map[string]func(p2p.Stream, cas.Source){
		"it never answers": func(st p2p.Stream, _ cas.Source) {
			_, _ = io.Copy(io.Discard, st)
			_ = st.Close()
		},
		"it stops in the middle": func(st p2p.Stream, src cas.Source) {
			q, err := readRequest(st)
			if err == nil {
				_, _ = st.Write([]byte{byte(statusOK)})
				pr, pw := io.Pipe()
				go func() { pw.CloseWithError(castest.Slice(pw, src, q.cid, q.off, q.n)) }()
				_, _ = io.CopyN(st, pr, 300_000)
				_ = pr.Close()
				_, _ = io.Copy(io.Discard, st)
			}
			_ = st.Close()
		},
	} {
		for _, how := range []string{"fetch", "open"} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSwarm(t, "good")
					c := s.put(t, data)
					bad := s.net.Host("bad")
					bad.Handle(Protocol, func(st p2p.Stream) { stall(st, s.stores["good"]) })
					begin := time.Now()
					var got []byte
					if how == "fetch" {
						into := castest.NewMemory()
						if err := s.f.Fetch(t.Context(), c, []string{"bad", "good"}, into); err != nil {
							t.Fatal(err)
						}
						got = content(t, into, c)
					} else {
						r, err := s.f.Open(t.Context(), c, int64(len(data)), []string{"bad", "good"})
						if err != nil {
							t.Fatal(err)
						}
						if got, err = io.ReadAll(r); err != nil {
							t.Fatal(err)
						}
						_ = r.Close()
					}
					if !bytes.Equal(got, data) {
						t.Fatal("other bytes")
					}
					if d := time.Since(begin); d > 3*StallAfter {
						t.Fatalf("it took %v", d)
					}
					_, _ = bad.Close(), s.me.Close()
				})
			})
		}
	}
}

// A gateway must answer before Portage gives up: dead holders cost half a second
// each, not a time-out each.
func TestOpenDoesNotWaitForSilentHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, "good")
		c := s.put(t, castest.Blob(100_000, 1))
		holders := []string{"silent1", "silent2", "silent3", "good"}
		for _, h := range holders[:3] {
			host := s.net.Host(h)
			host.Handle(Protocol, func(st p2p.Stream) {
				_, _ = io.Copy(io.Discard, st)
				_ = st.Close()
			})
			defer host.Close()
		}
		begin := time.Now()
		r, err := s.f.Open(t.Context(), c, 100_000, holders)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > 3*hedgeAfter {
			t.Fatalf("it took %v", d)
		}
		_, _ = r.Close(), s.me.Close()
	})
}

func TestNobodyToAskIsAnErrorAtOnce(t *testing.T) {
	s := newSwarm(t, "a", "b")
	c := cas.Sum([]byte("nowhere"))
	for _, holders := range [][]string{nil, {"me"}, {"a", "b"}, {"unknown", "a"}} {
		if err := s.f.Fetch(wait(t), c, holders, castest.NewMemory()); !errors.Is(err, ErrNoHolder) {
			t.Errorf("Fetch from %v: %v, want ErrNoHolder", holders, err)
		}
		if _, err := s.f.Open(wait(t), c, 7, holders); !errors.Is(err, ErrNoHolder) {
			t.Errorf("Open from %v: %v, want ErrNoHolder", holders, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.f.Fetch(ctx, c, []string{"a"}, castest.NewMemory()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Fetch: %v", err)
	}
}

func TestConcurrentFetchesOfABlobShareTheWork(t *testing.T) {
	s := newSwarm(t, "a")
	c := s.put(t, castest.Blob(3_000_000, 1))
	into := castest.NewMemory()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.f.Fetch(context.Background(), c, []string{"a"}, into); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if sent := s.served["a"].Served().Bytes; sent > 4_000_000 {
		t.Fatalf("%d bytes were sent for 3,000,000", sent)
	}
}

// lateStore has another Fetch bring the blob while this one looks for it.
type lateStore struct {
	*castest.Memory
	once sync.Once
	then func()
}

func (l *lateStore) Stat(c cid.Cid) (cas.Info, error) {
	info, err := l.Memory.Stat(c)
	l.once.Do(l.then)
	return info, err
}

func TestABlobThatAnotherFetchBringsMeanwhileIsNotFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, "a")
		c := s.put(t, castest.Blob(3_000_000, 1))
		into := castest.NewMemory()
		other := make(chan error, 1)
		late := &lateStore{Memory: into, then: func() {
			go func() { other <- s.f.Fetch(t.Context(), c, []string{"a"}, into) }()
			synctest.Wait() // it is done, or waits for the one that looks
		}}
		if err := s.f.Fetch(t.Context(), c, []string{"a"}, late); err != nil {
			t.Fatal(err)
		}
		if err := <-other; err != nil {
			t.Fatal(err)
		}
		if sent := s.served["a"].Served().Bytes; sent > 4_000_000 {
			t.Fatalf("%d bytes were sent for 3,000,000", sent)
		}
	})
}

func TestAFullStoreEndsTheFetchWithoutLitter(t *testing.T) {
	s := newSwarm(t, "a")
	c := s.put(t, castest.Blob(3_000_000, 1))
	into, err := disk.Open(t.TempDir(), disk.Options{Quota: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	if err := s.f.Fetch(wait(t), c, []string{"a"}, into); !errors.Is(err, cas.ErrFull) {
		t.Fatalf("Fetch = %v, want ErrFull", err)
	}
	if u, err := into.Usage(); err != nil || u.Bytes != 0 {
		t.Fatalf("Usage = %+v, %v", u, err)
	}
}

func TestReaderSeeks(t *testing.T) {
	s := newSwarm(t, "a", "b")
	data := castest.Blob(1_000_000, 1)
	c := s.put(t, data)
	r, err := s.f.Open(wait(t), c, int64(len(data)), []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		off    int64
		whence int
		n      int
	}{{500_000, io.SeekStart, 1000}, {-100, io.SeekEnd, 100}, {0, io.SeekStart, 70_000}, {123_456, io.SeekCurrent, 10}, {0, io.SeekEnd, 0}} {
		at, err := r.Seek(x.off, x.whence)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, x.n)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[at:at+int64(x.n)]) {
			t.Fatalf("%d bytes at %d: %v", x.n, at, err)
		}
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("Read at the end: %v", err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Fatal("sought before the beginning")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Fatal("read after Close")
	}
}

func TestAWrongSizeBlamesNobodyAndYieldsNothing(t *testing.T) {
	s := newSwarm(t, "a")
	data := castest.Blob(200_000, 1)
	c := s.put(t, data)
	for _, size := range []int64{1, 199_999, 200_001, 1 << 50} {
		if _, err := s.f.Open(wait(t), c, size, []string{"a"}); !errors.Is(err, ErrNoHolder) {
			t.Errorf("Open with %d bytes: %v, want ErrNoHolder", size, err)
		}
	}
	if _, err := s.f.Open(wait(t), c, 0, []string{"a"}); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("Open with 0 bytes: %v, want ErrCorrupt", err)
	}
	if err := s.f.Fetch(wait(t), c, []string{"a"}, castest.NewMemory()); err != nil {
		t.Fatalf("the holder was blamed: %v", err)
	}
}

// A holder that says the wrong size passes for nothing, however long its tree.
func TestAHolderThatLiesAboutTheSizeCostsNothing(t *testing.T) {
	s := newSwarm(t, "good")
	data := castest.Blob(200_000, 1)
	c := s.put(t, data)
	liar := s.net.Host("liar")
	t.Cleanup(func() { _ = liar.Close() })
	liar.Handle(Protocol, func(st p2p.Stream) {
		defer st.Close()
		if _, err := readRequest(st); err != nil {
			return
		}
		// Status, then a size of 2^62, then zeros as far as anybody reads.
		_, _ = st.Write([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x40})
		_, _ = io.CopyN(st, zeros{}, 1<<20)
	})
	into := castest.NewMemory()
	if err := s.f.Fetch(wait(t), c, []string{"liar", "good"}, into); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, into, c), data) {
		t.Fatal("other bytes")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestTooManyStreamsOfOnePeerAreRefused(t *testing.T) {
	s := newSwarm(t, "a")
	data := castest.Blob(100, 1)
	c := s.put(t, data)
	var held []*session
	for i := range peerStreams + 1 {
		x, err := s.f.dial(wait(t), t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.has(c)
		if i < peerStreams && err != nil || i == peerStreams && !errors.Is(err, errBusy) {
			t.Fatalf("stream %d: %v", i, err)
		}
		held = append(held, x)
	}
	for _, x := range held {
		x.drop()
	}
	for wait(t).Err() == nil { // the server notices the resets in its own time
		x, err := s.f.dial(wait(t), t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.has(c)
		x.drop()
		if err == nil {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("streams that ended still count")
}

// Streaming keeps a group, not the blob.
func TestAReaderNeedsLittleMemory(t *testing.T) {
	s := newSwarm(t, "a")
	data := castest.Blob(100_000_000, 1)
	c := s.put(t, data)
	r, err := s.f.Open(wait(t), c, int64(len(data)), []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	buf := make([]byte, 32<<10)
	var most uint64
	for i := 0; ; i++ {
		_, err := r.Read(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			most = max(most, after.HeapAlloc)
		}
	}
	if most > before.HeapAlloc+20<<20 {
		t.Fatalf("the heap grew by %d MiB", (most-before.HeapAlloc)>>20)
	}
}

func FuzzReadRequest(f *testing.F) {
	q, err := request{opGet, cas.Sum(nil), cas.Suffix, 5}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q)
	q, err = request{op: opHas, cid: cas.Sum(nil)}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q)
	f.Add(bytes.Repeat([]byte{0xff}, requestSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		if q.off < cas.Suffix || q.n < 0 {
			t.Fatalf("%+v", q)
		}
		again, err := q.encode()
		if err != nil || !bytes.Equal(again, b[:requestSize]) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}
