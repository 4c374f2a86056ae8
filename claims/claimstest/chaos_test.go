package claimstest

import (
	"flag"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	seeds = flag.Int("seeds", 0, "how many random runs to check (0 = a few)")
	first = flag.Uint64("first", 1, "the first seed")
)

// TestTheLawsHoldWhateverHappens runs random swarms through random faults.
// A failure prints its seed; `-first SEED -seeds 1` runs it again.
func TestTheLawsHoldWhateverHappens(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = 150
		if testing.Short() {
			n = 20
		}
	}
	began := time.Now()
	bad := make([]*Violation, n)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0)) // a run is one goroutine; many go side by side
	for i := range n {
		g.Go(func() (err error) {
			_, bad[i], err = NewChaos(*first + uint64(i)).Run(false)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d seeds, %.0f seeds/s", n, float64(n)/time.Since(began).Seconds())
	shown := 0
	for i, v := range bad {
		if v == nil {
			continue
		}
		t.Errorf("seed %d: %v", *first+uint64(i), v)
		if shown++; shown <= 3 {
			show(t, NewChaos(*first+uint64(i)))
		}
	}
}

// show runs a failing seed again with as few faults as will do, and prints what
// befell the job.
func show(t *testing.T, c Chaos) {
	t.Helper()
	c, _ = c.Shrink()
	w, v, err := c.Run(true)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d peers, %d jobs, net %+v", c.Nodes, c.Jobs, c.Net)
	for _, f := range c.Faults {
		t.Logf("fault: %v", f)
	}
	if v == nil {
		return
	}
	t.Logf("with these: %v", v)
	var lines strings.Builder
	w.Trace.Print(&lines, v.Job, 60)
	t.Log("\n" + lines.String())
}

func TestOneSeedGivesOneRun(t *testing.T) {
	for seed := range uint64(5) {
		c := NewChaos(seed + 100)
		a, _, err := c.Run(false)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := c.Run(false)
		if err != nil {
			t.Fatal(err)
		}
		if a.Trace.Sum() != b.Trace.Sum() || a.Stats != b.Stats {
			t.Errorf("seed %d: two runs differ: %x %+v, %x %+v", c.Seed, a.Trace.Sum(), a.Stats, b.Trace.Sum(), b.Stats)
		}
	}
}
