package claimstest

import (
	"flag"
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
)

// gridCell is a cell with what its seeds came to.
type gridCell struct {
	Cell
	name    string
	results []Result
	done    chan struct{}
}

// makespanGrid lists the cells that -bench asks for, the dearest first.
func makespanGrid(b *testing.B) (cells []*gridCell) {
	for _, drones := range []int{100, 20, 4} {
		for _, net := range []string{"lan", "wan"} {
			for _, fault := range []string{"partition", "kill", "serial", "none"} {
				c := &gridCell{Cell: Cell{Drones: drones, Jobs: 2847, WAN: net == "wan", Fault: fault}, done: make(chan struct{})}
				c.name = fmt.Sprintf("drones=%d/jobs=%d/net=%s/fault=%s", drones, c.Jobs, net, fault)
				c.results = make([]Result, map[int]int{4: 9, 20: 3, 100: 1}[drones])
				if asked(b, b.Name()+"/"+c.name) {
					cells = append(cells, c)
				}
			}
		}
	}
	return cells
}

// asked reports whether -bench matches a benchmark, as package testing does.
func asked(b *testing.B, name string) bool {
	elems := strings.Split(name, "/")
	for i, pattern := range strings.Split(flag.Lookup("test.bench").Value.String(), "/") {
		ok, err := regexp.MatchString(pattern, elems[min(i, len(elems)-1)])
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			return false
		}
	}
	return true
}

// run carries out all seeds of all cells, as many side by side as there are
// cores: a run is one goroutine, and a cell of one seed would leave cores idle.
func run(cells []*gridCell) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range cells {
		var left atomic.Int64
		left.Store(int64(len(c.results)))
		for i := range c.results {
			g.Go(func() (err error) {
				c.results[i], err = Makespan(c.Cell, uint64(i+1))
				if left.Add(-1) == 0 {
					close(c.done)
				}
				return err
			})
		}
	}
	return g.Wait()
}

// BenchmarkMakespan holds the leaderless schedule against a bound that no
// schedule can beat. Each metric is the median over the cell's seeds.
func BenchmarkMakespan(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	cells := makespanGrid(b)
	var g errgroup.Group
	g.Go(func() error { return run(cells) })
	for _, c := range cells {
		b.Run(c.name, func(b *testing.B) {
			<-c.done
			report(b, c.results)
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func report(b *testing.B, results []Result) {
	b.Helper()
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
	b.ReportMetric(0, "ns/op") // it was not run here
}

// BenchmarkRoots is the cost of setting up roots, 20 s and 5 s for each package
// that no cached root brings, up to 600 s: for a schedule that does not know of
// it, and for one that does.
func BenchmarkRoots(b *testing.B) {
	for _, drones := range []int{4, 20} {
		blind := 0.0
		for _, affinity := range []bool{false, true} {
			b.Run(fmt.Sprintf("drones=%d/affinity=%v", drones, affinity), func(b *testing.B) {
				r, err := Makespan(Cell{Drones: drones, Jobs: 2847, Roots: true, Affinity: affinity}, 1)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(r.Ratio, "makespan/bound")
				if !affinity {
					blind = r.Ratio
				} else if blind > 0 {
					b.ReportMetric(r.Ratio/blind, "x-blind")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkSlots splits each drone into one slot for each eight cores. The bound
// is that of one build at a time, so it can be beaten.
func BenchmarkSlots(b *testing.B) {
	for _, drones := range []int{4, 20} {
		b.Run(fmt.Sprintf("drones=%d", drones), func(b *testing.B) {
			r, err := Makespan(Cell{Drones: drones, Jobs: 2847, WAN: true, Fault: "serial", Slots: 1}, 1)
			if err != nil {
				b.Fatal(err)
			}
			report(b, []Result{r})
		})
	}
}

// BenchmarkThousand is one seed of 1,000 drones, for 300 jobs: plan and merge of
// claims at that size, with nothing going wrong. 300 are enough to keep nobody but
// the schedule busy (on so many drones the longest path decides), and 2,847, of
// which 300 are free at once, would take half an hour on one core: each is seen by
// 1,000 boards, and looked for by some hundred drones. Two and a half minutes of one
// core: 1.000 of the bound, 1.007 claims a job, none built twice, 61 looks a claim.
func BenchmarkThousand(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	r, err := Makespan(Cell{Drones: 1000, Jobs: 300, WAN: true}, 1)
	if err != nil {
		b.Fatal(err)
	}
	report(b, []Result{r})
	b.ReportMetric(float64(r.Stats.Plans)/float64(r.Stats.Claims), "looks/claim")
	b.ReportMetric(float64(r.Stats.Records)/300, "records/job")
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
