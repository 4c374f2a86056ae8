package claimstest

import (
	"flag"
	"os"
	"testing"
	"time"
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
		n = 200
		if testing.Short() {
			n = 20
		}
	}
	began, bad := time.Now(), 0
	for i := range n {
		c := NewChaos(*first + uint64(i))
		_, v, err := c.Run(false)
		if err != nil {
			t.Fatal(err)
		}
		if v == nil {
			continue
		}
		bad++
		small, _ := c.Shrink()
		w, v2, err := small.Run(true)
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("seed %d (%d peers, %d jobs, net %+v): %v", c.Seed, c.Nodes, c.Jobs, c.Net, v)
		if v2 != nil {
			t.Logf("with fewer faults: %v", v2)
			for _, f := range small.Faults {
				t.Logf("  fault: %v", f)
			}
			w.Trace.Print(os.Stderr, v2.Job, 60)
		}
		if bad >= 3 {
			break
		}
	}
	t.Logf("%d seeds, %.0f seeds/s", n, float64(n)/time.Since(began).Seconds())
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
