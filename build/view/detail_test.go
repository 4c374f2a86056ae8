package view_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
)

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// snapshotBar is the CPU that looking at a round of 3,000 jobs may take, of
// the 50 ms that the page has.
const snapshotBar = 30 * time.Millisecond

func BenchmarkLook(b *testing.B) {
	s := viewtest.New(viewtest.Options{Drones: 100, Jobs: 3000, Failures: 12, Away: 3})
	var took []time.Duration
	for b.Loop() {
		t := cpu()
		view.Look(s.Replica, s.Now)
		took = append(took, cpu()-t)
	}
	slices.Sort(took)
	med := took[len(took)/2]
	b.ReportMetric(float64(med.Microseconds())/1000, "cpu-ms/op")
	b.ReportMetric(float64(med)/float64(snapshotBar), "x-bar")
}

func TestADetailIsWhole(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2, Away: 1})
	d := view.Look(s.Replica, s.Now)
	if len(d.Jobs) != 60 || len(d.Peers) != 5 {
		t.Fatalf("%d jobs, %d peers", len(d.Jobs), len(d.Peers))
	}
	var states = map[string]int{}
	for _, j := range d.Jobs {
		states[j.State]++
	}
	rd := d.Rounds[0]
	if states["blocked"] != rd.Blocked || states["available"]+states["safe"] != rd.Done || rd.Done == 0 || rd.Building == 0 || rd.Blocked < 2 {
		t.Errorf("%v, %+v", states, rd)
	}
	kinds := map[view.BarKind]int{}
	poles := 0
	for _, l := range d.Timeline.Lanes {
		for i, b := range l.Bars {
			kinds[b.Kind]++
			if b.Pole {
				poles++
			}
			if b.EndMS < b.StartMS || i > 0 && b.StartMS < l.Bars[i-1].StartMS || b.Row >= l.Rows {
				t.Errorf("lane %s: %+v", l.Nick, b)
			}
		}
	}
	if kinds[view.BarDone] != rd.Done+states["away"] || kinds[view.BarRunning] != rd.Building || kinds[view.BarForecast] == 0 || kinds[view.BarFailed] < 2 {
		t.Errorf("bars %v, round %+v", kinds, rd)
	}
	if poles != len(d.Timeline.Pole) || poles < 3 {
		t.Errorf("the long pole has %d builds, %d are marked", len(d.Timeline.Pole), poles)
	}
	if d.Timeline.BusyPermille < 300 || d.Timeline.BusyPermille > 1000 {
		t.Errorf("busy %d permille", d.Timeline.BusyPermille)
	}
}

func TestTheLongPoleIsAChainThatEndsLast(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 8, Jobs: 300, Elapsed: 0.4})
	d := view.Look(s.Replica, s.Now)
	bars := map[build.Key]view.Bar{}
	end := int64(0)
	for _, l := range d.Timeline.Lanes {
		for _, b := range l.Bars {
			bars[b.Key] = b
			end = max(end, b.EndMS)
		}
	}
	pole := d.Timeline.Pole
	if bars[pole[len(pole)-1]].EndMS != end {
		t.Errorf("it ends at %d, the round at %d", bars[pole[len(pole)-1]].EndMS, end)
	}
	for i := 1; i < len(pole); i++ {
		a, b := bars[pole[i-1]], bars[pole[i]]
		if a.EndMS > b.StartMS+30_000 || a.StartMS > b.StartMS {
			t.Errorf("%s (%d to %d) stands before %s (%d to %d)", a.CPV, a.StartMS, a.EndMS, b.CPV, b.StartMS, b.EndMS)
		}
	}
}

func TestOneIssueForEachRootCause(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 4, Jobs: 400, Failures: 8, Elapsed: 0.97})
	d := view.Look(s.Replica, s.Now)
	failed, held := 0, 0
	for _, i := range d.Issues {
		if i.Kind == view.IssueFailed {
			failed++
			held += 1 + i.HoldsUp
			if len(i.Drones) != 2 || i.Detail == "" || i.SinceMS == 0 || i.Do == "" {
				t.Errorf("%+v", i)
			}
		}
	}
	if failed != 8 || held != d.Rounds[0].Blocked || held == 8 {
		t.Errorf("%d failed packages with %d jobs, %d jobs are blocked: %+v", failed, held, d.Rounds[0].Blocked, d.Issues)
	}
}

func TestATimelineAsItStood(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2})
	now := view.Look(s.Replica, s.Now).Timeline
	whole, all := now.At(now.NowMS)
	if whole.NowMS != now.NowMS || all.Built == 0 || all.Failed == 0 || all.Building == 0 {
		t.Fatalf("now: %+v", all)
	}
	before := view.Stood{}
	for n := int64(1); n <= 10; n++ {
		at := now.StartMS + (now.NowMS-now.StartMS)*n/10
		past, stood := now.At(at)
		if stood.Built < before.Built || stood.Failed < before.Failed || stood.Building > 4*4 {
			t.Errorf("at %d tenths %+v, a tenth before %+v", n, stood, before)
		}
		before = stood
		for _, l := range past.Lanes {
			for _, b := range l.Bars {
				if later := b.StartMS > at; later != (b.Kind == view.BarForecast) {
					t.Errorf("at %d tenths a build from %d to %d is %s", n, b.StartMS-at, b.EndMS-at, b.Kind)
				}
			}
		}
	}
	if before != all {
		t.Errorf("at the end %+v, now %+v", before, all)
	}
	if early, stood := now.At(0); stood.Built != 0 || early.NowMS != now.StartMS {
		t.Errorf("before it began: %+v", stood)
	}
}
