package p2ptest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// NothingRuns waits until no goroutine of libp2p or of the p2p packages is left in
// this process, and fails with the stacks of those that stay. Call it at the end of
// a test, after everything was closed, in packages whose tests are not parallel.
func NothingRuns(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx := within(t)
	for {
		left := goroutines()
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
		case <-tick.C:
		}
	}
}

// goroutines lists those of the network, tests themselves left out.
func goroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		ours := strings.Contains(g, "github.com/libp2p/") || strings.Contains(g, "build-swarm/swarm/p2p")
		if ours && !strings.Contains(g, "testing.tRunner") {
			out = append(out, g)
		}
	}
	return out
}
