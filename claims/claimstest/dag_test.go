package claimstest

import (
	"math"
	"testing"
)

func TestTheGeneratedSetIsADesktop(t *testing.T) {
	tasks := GenerateDAG(1, 2847, false)
	total, giantWork, edges, deepest := 0.0, 0.0, 0, 0
	depth := make([]int, len(tasks))
	for i, x := range tasks {
		total += x.Work
		if x.Work > 12_000 {
			giantWork += x.Work
		}
		edges += len(x.Before)
		for _, b := range x.Before {
			if b >= i {
				t.Fatalf("%s needs a later one", x.Name)
			}
			depth[i] = max(depth[i], depth[b]+1)
		}
		deepest = max(deepest, depth[i]+1)
	}
	t.Logf("%.0f core-hours, %.0f %% in giants, %.2f edges each, depth %d, bound %.2f h on 4, %.2f h on 100",
		total/3600, 100*giantWork/total, float64(edges)/float64(len(tasks)), deepest,
		Bound(tasks, Fleet(4))/3600, Bound(tasks, Fleet(100))/3600)
	if h := total / 3600; h < 850 || h > 1000 {
		t.Errorf("%.0f core-hours", h)
	}
	if deepest < 20 || deepest > 50 {
		t.Errorf("%d deep", deepest)
	}
}

// The bound of small sets is known by hand.
func TestBoundsAreThoseOfHand(t *testing.T) {
	chain := []Task{{Work: 100}, {Work: 100, Before: []int{0}}}
	for _, c := range []struct {
		name  string
		tasks []Task
		cores []float64
		want  float64
	}{
		{"a chain runs on the fastest", chain, []float64{10, 5}, 20},
		{"work over cores", []Task{{Work: 30}, {Work: 30}, {Work: 30}}, []float64{10, 5}, 6},
		{"one giant on the fastest", []Task{{Work: 90}, {Work: 1}}, []float64{10, 5, 5}, 9},
		{"two giants on the two fastest", []Task{{Work: 90}, {Work: 90}}, []float64{10, 5, 5}, 12},
		{"serial parts scale with nothing", []Task{{Serial: 4}, {Serial: 4}}, []float64{10, 10}, 4},
		{"small ones to the slow, large ones to the fast", []Task{{Serial: 10}, {Work: 100}}, []float64{10, 1}, 10},
	} {
		if got := Bound(c.tasks, c.cores); math.Abs(got-c.want) > 0.1 {
			t.Errorf("%s: %.3f, want %.3f", c.name, got, c.want)
		}
	}
}
