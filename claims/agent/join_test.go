package agent_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// The bars of a join.
const (
	joinRecords = 60_000
	rateBar     = 5_000 // records a second
	timeBar     = 1.5   // of the bare signature checks
	bytesBar    = 1.2   // of the state
)

// boardOf makes records of a swarm some rounds old, by ten authors.
func boardOf(tb testing.TB, n int) []wire.Opened {
	tb.Helper()
	out := make([]wire.Opened, 0, n)
	for author := range 10 {
		key := p2ptest.Identity(100 + author).PrivateKey()
		now := claims.Now{Wall: time.Now().UnixMilli() - 3_600_000, Boot: 1}
		r := claims.NewReplica(claims.Config{Key: key, Instance: 1}, nil, now)
		for i := range n / 10 {
			now.Wall++
			for _, e := range r.Step(now, claims.Post{Body: outcome(tb, author, i)}) {
				if p, ok := e.(claims.Publish); ok && p.Record.Type() != claims.TypeBeat {
					out = append(out, p.Record)
				}
			}
		}
	}
	return out
}

func outcome(tb testing.TB, author, n int) claims.Body {
	tb.Helper()
	name := fmt.Sprintf("p%dx%d", author, n)
	k, err := build.KeyOf([]build.Facet{{Name: "n", Value: name}})
	if err != nil {
		tb.Fatal(err)
	}
	return claims.NewOutcome(build.Outcome{Key: k, CPV: build.CPV{Category: "app-misc", Name: name, Version: "1"}, Target: "amd64", Class: build.Good,
		CoreMillis: 480_000, Millis: 60_000, PeakMiB: 700, Artifact: &build.Artifact{CID: cas.Sum([]byte(name)).String(), Size: 1 << 20,
			MD5: "0123456789abcdef0123456789abcdef", SHA1: "0123456789abcdef0123456789abcdef01234567"}})
}

// signatures checks nothing but signatures, on n goroutines.
func signatures(tb testing.TB, recs []wire.Opened, n int) time.Duration {
	tb.Helper()
	// What wire.Open makes of each record before it verifies is not the bare
	// check, so messages of the same length stand for them.
	type item struct {
		pub ed25519.PublicKey
		msg []byte
		sig []byte
	}
	key := p2ptest.Identity(1).PrivateKey()
	items := make([]item, len(recs))
	sig := map[int][]byte{}
	for i, o := range recs {
		size := len(o.Raw()) - ed25519.SignatureSize
		msg := make([]byte, size)
		if sig[size] == nil {
			sig[size] = ed25519.Sign(key, msg)
		}
		items[i] = item{key.Public().(ed25519.PublicKey), msg, sig[size]}
	}
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(items); i = next.Add(1) - 1 {
				if !ed25519.Verify(items[i].pub, items[i].msg, items[i].sig) {
					tb.Error("a signature does not hold")
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// counted counts what comes in over a network's streams.
type counted struct {
	p2p.Network
	n atomic.Int64
}

type countedStream struct {
	p2p.Stream
	n *atomic.Int64
}

func (s countedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.n.Add(int64(n))
	return n, err
}

func (c *counted) Handle(proto string, h func(p2p.Stream)) {
	if h == nil {
		c.Network.Handle(proto, nil)
		return
	}
	c.Network.Handle(proto, func(s p2p.Stream) { h(countedStream{s, &c.n}) })
}

// BenchmarkJoin streams a board of 60,000 records to an empty peer: two real
// agents with journals on disk over the in-memory network, which has no
// latency and no bandwidth; both ends share this machine's cores.
//
// The bar is 1.5 times the bare signature checks: crypto/ed25519 over the same
// number of messages of the same lengths, one after another, which is what
// wire.Open does. They are taken in two ways, before and after the join: spread
// over all cores, as the program checks a page (x-checks, time-x-bar), and on one
// core (x-checks-on-one-core). cpu-x-checks is the processor time of both ends
// against that of the checks: it hardly moves with what else the machine does,
// and is the least that x-checks can come to on a machine of two cores.
func BenchmarkJoin(b *testing.B) {
	recs := boardOf(b, joinRecords)
	state := 0
	for _, o := range recs {
		state += len(o.Raw())
	}
	var took, bare, one, tookCPU, oneCPU time.Duration
	var bytes int64
	for b.Loop() {
		b.StopTimer()
		bare += signatures(b, recs, runtime.GOMAXPROCS(0)) / 2
		cpu := cpuTime(b)
		one += signatures(b, recs, 1)
		oneCPU += cpuTime(b) - cpu
		b.StartTimer()
		d, dCPU, n := join(b, recs)
		b.StopTimer()
		took, tookCPU, bytes = took+d, tookCPU+dCPU, bytes+n
		bare += signatures(b, recs, runtime.GOMAXPROCS(0)) / 2
		b.StartTimer()
	}
	n := float64(b.N)
	rate := n * joinRecords / took.Seconds()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "records/s")
	b.ReportMetric(rateBar/rate, "rate-x-bar")
	b.ReportMetric(took.Seconds()/bare.Seconds(), "x-checks")
	b.ReportMetric(took.Seconds()/one.Seconds(), "x-checks-on-one-core")
	b.ReportMetric(tookCPU.Seconds()/oneCPU.Seconds(), "cpu-x-checks")
	b.ReportMetric(took.Seconds()/bare.Seconds()/timeBar, "time-x-bar")
	b.ReportMetric(float64(bytes)/n/float64(state), "x-state")
	b.ReportMetric(float64(bytes)/n/float64(state)/bytesBar, "bytes-x-bar")
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func join(tb testing.TB, recs []wire.Opened) (took, cpu time.Duration, bytes int64) {
	tb.Helper()
	net, dir := p2ptest.NewNet(1), tb.TempDir()
	old := start(tb, net, 1, dir)
	defer old.leave()
	old.do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Received{From: "x", Records: recs}}
	})
	runtime.GC()
	began, beganCPU := time.Now(), cpuTime(tb)
	var count *counted
	var board *agent.Agent
	joiner := start(tb, net, 2, dir, func(c *agent.Config) {
		count = &counted{Network: c.Net}
		c.Net = count
	})
	defer joiner.leave()
	board = joiner.board
	changed := board.Changed()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for {
		have := 0
		err := board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
			have = r.Count()
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		if have == len(recs) {
			return time.Since(began), cpuTime(tb) - beganCPU, count.n.Load()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			tb.Fatalf("%d of %d records came: %v", have, len(recs), io.ErrUnexpectedEOF)
		}
	}
}
