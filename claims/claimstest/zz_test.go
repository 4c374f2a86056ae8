package claimstest

import (
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"testing"
	"time"
)

func TestZZ(t *testing.T) {
	debug.SetGCPercent(400)
	c := Cell{Drones: 1000, Jobs: 2847, WAN: true}
	tasks := GenerateDAG(1, c.Jobs, false)
	bound := Bound(tasks, Fleet(c.Drones))
	w, err := c.world(1, tasks, cellOptions(c))
	if err != nil {
		t.Fatal(err)
	}
	w.At(makespanRound, func() { w.PostRound(w.Nodes[0]) })
	f, _ := os.Create("/tmp/heart.k.cpu")
	pprof.StartCPUProfile(f)
	began := time.Now()
	next := began
	n := 0
	w.RunUntil(makespanRound+int64(bound*1000*10), func() bool {
		n++
		if n%1000 == 0 && time.Now().After(next) {
			next = next.Add(5 * time.Second)
			fmt.Printf("%5.1f s: %.1f s of bound %.0f s, %d done, %+v, queue %d\n", time.Since(began).Seconds(), float64(w.now)/1000, bound, len(w.done), w.Stats, len(w.queue.items))
		}
		return w.Done() || time.Since(began) > 60*time.Second && os.Getenv("ALL") == ""
	})
	fmt.Printf("%5.1f s: %.1f s of bound %.0f s, %d done, %+v, queue %d\n", time.Since(began).Seconds(), float64(w.now)/1000, bound, len(w.done), w.Stats, len(w.queue.items))
	pprof.StopCPUProfile()
	f.Close()
}
