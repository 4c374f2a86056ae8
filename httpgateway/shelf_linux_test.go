package httpgateway_test

import (
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/release"
)

// BenchmarkIndex adds 1 entry to an index of 60,000: the CPU that
// it takes a gateway to show the release, of what it takes to show one from
// nothing. The releases come as the catalog has them: to decode one and to share
// with the one before is not in either figure.
func BenchmarkIndex(b *testing.B) {
	entries := make([]release.Entry, 60_000)
	for i := range entries {
		entries[i] = listEntry(i)
	}
	for range b.N {
		var full, one, ratio []float64
		for range 5 {
			var c listCatalog
			c.show(b, entries)
			g := listGateway(b, &c)
			f := cpuOf(b, func() { want(b, ask(b, g, "HEAD", "/desktop/stable/Packages"), 200) })
			var adds []float64
			for i := range 5 {
				c.show(b, append(slices.Clone(entries), listEntry(60_000+i)))
				adds = append(adds, cpuOf(b, func() { want(b, ask(b, g, "HEAD", "/desktop/stable/Packages"), 200) }))
				if n := g.Status()[0].Packages; n != 60_001 {
					b.Fatal(n)
				}
			}
			slices.Sort(adds)
			full, one, ratio = append(full, f), append(one, adds[2]), append(ratio, adds[2]/f)
		}
		for _, s := range [][]float64{full, one, ratio} {
			slices.Sort(s)
		}
		b.ReportMetric(100*ratio[2], "%-of-full")
		b.ReportMetric(1000*full[2], "ms-cpu-full")
		b.ReportMetric(1000*one[2], "ms-cpu-one")
	}
}

// cpuOf is what f takes of this thread's CPU, in seconds: the collector, busy
// with what decoding left, is not in it.
func cpuOf(b *testing.B, f func()) float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	runtime.GC()
	start := used()
	f()
	return (used() - start).Seconds()
}
