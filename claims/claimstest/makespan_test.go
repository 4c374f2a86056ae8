package claimstest

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
)

// BenchmarkMakespan holds the leaderless schedule against a bound that no
// schedule can beat. Each metric is the median over the cell's seeds.
func BenchmarkMakespan(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	for _, drones := range []int{4, 20, 100} {
		for _, net := range []string{"lan", "wan"} {
			for _, fault := range []string{"none", "serial", "kill", "partition"} {
				c := Cell{Drones: drones, Jobs: 2847, WAN: net == "wan", Fault: fault}
				n := map[int]int{4: 9, 20: 3, 100: 1}[drones]
				b.Run(fmt.Sprintf("drones=%d/jobs=%d/net=%s/fault=%s", drones, c.Jobs, net, fault), func(b *testing.B) {
					for range b.N {
						report(b, c, n)
					}
				})
			}
		}
	}
}

func report(b *testing.B, c Cell, seeds int) {
	results := make([]Result, seeds)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range results {
		g.Go(func() (err error) {
			results[i], err = Makespan(c, uint64(i+1))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	median := func(f func(Result) float64) float64 {
		v := make([]float64, len(results))
		for i, r := range results {
			v[i] = f(r)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	b.ReportMetric(median(func(r Result) float64 { return r.Ratio }), "makespan/bound")
	b.ReportMetric(median(func(r Result) float64 { return r.Wasted }), "wasted-cpu-%")
	b.ReportMetric(median(func(r Result) float64 { return r.Claims }), "claims/job")
	b.ReportMetric(median(func(r Result) float64 { return r.BuiltTwice }), "built-twice/1000")
	b.ReportMetric(median(func(r Result) float64 { return r.Bound }), "bound-hours")
}

// TestASmallSetIsBuiltNearTheBound is the grid's smallest relative.
func TestASmallSetIsBuiltNearTheBound(t *testing.T) {
	for _, fault := range []string{"none", "partition"} {
		r, err := Makespan(Cell{Drones: 4, Jobs: 300, Fault: fault}, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.3f of the bound of %.2f h, %.2f %% wasted, %.2f claims/job, %.1f/1000 twice, %+v", fault, r.Ratio, r.Bound, r.Wasted, r.Claims, r.BuiltTwice, r.Stats)
		if r.Ratio < 1 {
			t.Errorf("%s: %.3f of a bound that cannot be beaten", fault, r.Ratio)
		}
	}
}
