package shim

import (
	"context"
	"crypto/sha256"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/guest"
)

// foreground is how much work all processors do in a while, at the priority of
// an ordinary program, whatever that of this one is: its threads take it and end.
func foreground(d time.Duration) int64 {
	var n atomic.Int64
	stop := time.Now().Add(d)
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocked
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
				panic(err) // of a benchmark
			}
			var buf [64 << 10]byte
			for time.Now().Before(stop) {
				sum := sha256.Sum256(buf[:])
				copy(buf[:], sum[:])
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return n.Load()
}

// BenchmarkForeground measures what a load on all processors loses beside a build
// that spins on all of them too: the median of ten interleaved pairs, in percent
// of what it does alone, when the build is frozen, shrunk, and running in full.
func BenchmarkForeground(b *testing.B) {
	for _, l := range []guest.Level{guest.Frozen, guest.Shrunk, guest.Full} {
		b.Run(l.String(), func(b *testing.B) {
			text := ""
			for range runtime.NumCPU() {
				text += "sh -c 'while :; do :; done' & "
			}
			x := newBed(b, b.TempDir(), text+"echo $$ >shell.tmp; mv shell.tmp shell; wait", time.Minute)
			ctx, cancel := context.WithCancel(context.Background())
			ended := x.start(ctx)
			defer func() { cancel(); <-ended }()
			x.pid("shell")
			set := func(l guest.Level) {
				if err := x.pool.SetLevel(l); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				var lost []float64
				for range 10 {
					// Alone: a stopped tree takes nothing, by any means of stopping.
					if _, err := x.pool.procs[x.req.Job.Key].stop(); err != nil {
						b.Fatal(err)
					}
					alone := foreground(500 * time.Millisecond)
					if err := x.pool.procs[x.req.Job.Key].goOn(); err != nil {
						b.Fatal(err)
					}
					set(l)
					beside := foreground(500 * time.Millisecond)
					set(guest.Full)
					lost = append(lost, 100-100*float64(beside)/float64(alone))
				}
				slices.Sort(lost)
				b.ReportMetric((lost[4]+lost[5])/2, "%lost")
			}
		})
	}
}
