package claimstest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
)

// Fault is one thing that goes wrong, for a time.
type Fault struct {
	At, For int64 // ms
	Kind    string
	A, B    int // nodes
	Amount  int64
}

func (f Fault) String() string {
	return fmt.Sprintf("%.3f s %s a=%d b=%d for %.3f s amount=%d", float64(f.At)/1000, f.Kind, f.A, f.B, float64(f.For)/1000, f.Amount)
}

// Chaos is a whole run: it follows from a seed, and can be run with fewer
// faults than the seed gave it.
type Chaos struct {
	Seed   uint64
	Nodes  int
	Jobs   int
	Net    NetOptions
	Faults []Fault
}

const (
	chaosEnds  = 150_000 // when the last fault is over, ms
	chaosLimit = 1_800_000
)

// NewChaos draws a run from a seed: three to seven peers, up to 50 jobs, and
// every fault there is.
func NewChaos(seed uint64) Chaos {
	rng := rand.New(rand.NewPCG(seed, 0xc4a05))
	c := Chaos{Seed: seed, Nodes: 3 + rng.IntN(5), Jobs: 1 + rng.IntN(50)}
	c.Net = NetOptions{MinDelay: 1, MaxDelay: []int64{5, 80, 400, 3000}[rng.IntN(4)], Loss: []int{0, 10, 200}[rng.IntN(3)], Duplicate: []int{0, 50}[rng.IntN(2)]}
	kinds := []string{"partition", "oneway", "cut", "crash", "crash-unsaid", "suspend", "clock", "leave", "offline", "channel", "restore", "clone"}
	for range rng.IntN(9) {
		f := Fault{Kind: kinds[rng.IntN(len(kinds))], At: rng.Int64N(100_000), A: rng.IntN(c.Nodes), Amount: rng.Int64N(20_001) - 10_000}
		f.B = (f.A + 1 + rng.IntN(c.Nodes-1)) % c.Nodes
		f.For = 1000 + rng.Int64N([]int64{5_000, 40_000, chaosEnds - 2000}[rng.IntN(3)])
		f.For = min(f.For, chaosEnds-f.At-1000)
		c.Faults = append(c.Faults, f)
	}
	if rng.IntN(6) == 0 { // the hardware clock runs on local time until the time service has set it
		at := rng.Int64N(80_000)
		c.Faults = append(c.Faults, Fault{Kind: "ahead", At: at, For: 1000 + rng.Int64N(60_000), A: rng.IntN(c.Nodes), Amount: 3_600_000})
	}
	return c
}

// world makes the world of a run; the jobs follow from the seed alone.
func (c Chaos) world(keep bool) (*World, error) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x10b5))
	var specs []Spec
	for i := range c.Jobs {
		work := (2 + rng.Int64N(12)) * 1000
		switch n := rng.IntN(40); {
		case n == 0:
			work *= 20 // still under way when the faults are over
		case n < 5:
			work *= 8
		}
		var before []build.Key
		for range rng.IntN(3) {
			if i > 0 {
				before = append(before, specs[max(0, i-1-rng.IntN(8))].Job.Key)
			}
		}
		s, err := NewSpec("j"+strconv.Itoa(i), work*(50+rng.Int64N(100))/100, work, rng.Int64N(2000), unique(before)...)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	w := NewWorld(c.Seed, Options{Net: c.Net, Progress: 2000, Fetch: 400, Copies: 1, CopyDelay: 3000}, specs)
	w.Trace.Keep = keep
	settle := []int64{claims.SettleLAN, claims.SettleWAN}[rng.IntN(2)]
	for i := range c.Nodes {
		n := w.AddNode(string(rune('a'+i)), (1+rng.Int64N(4))*1000, 1+rng.IntN(2), settle)
		n.skew = rng.Int64N(8001) - 4000
	}
	return w, nil
}

func unique(keys []build.Key) []build.Key {
	if len(keys) == 2 && keys[0] == keys[1] {
		return keys[:1]
	}
	return keys
}

// Run carries a run through and returns the first violation of a law, or nil.
func (c Chaos) Run(keep bool) (*World, *Violation, error) {
	w, err := c.world(keep)
	if err != nil {
		return nil, nil, err
	}
	l := newLaws(w)
	for _, f := range c.Faults {
		l.calm = max(l.calm, f.At+f.For)
		w.At(f.At, func() { w.inflict(f) })
	}
	for _, n := range w.Nodes {
		w.At(w.rng.Int64N(2000), n.Start)
	}
	posted := false
	var post func()
	post = func() {
		for _, n := range w.Nodes {
			if n.Up() {
				w.PostRound(n)
				posted = true
				return
			}
		}
		w.At(w.now+1000, post)
	}
	w.At(3000, post)
	failed := func() bool { return l.first != nil }
	for !failed() && (w.now < l.calm || !posted || !w.Done()) && w.now < chaosLimit {
		w.RunUntil(w.now+1000, failed)
		l.quiet()
	}
	// Everything is built and nothing goes wrong any more: what is still lost
	// on the way is repaired by anti-entropy within a few of its periods.
	for end := w.now + 45_000; !failed() && w.now < end; {
		w.RunUntil(w.now+5_000, failed)
		l.quiet()
	}
	if !failed() {
		l.settled()
	}
	return w, l.first, nil
}

// settled runs on until the boards are equal, for ten minutes at the most: an
// idle peer speaks once a minute, and a fifth of what it says may be lost.
func (l *laws) settled() {
	w := l.w
	equal := func() bool {
		for _, n := range w.Nodes {
			if n.gone {
				continue
			}
			if !n.up || n.rep.Digest() != w.Nodes[0].rep.Digest() || len(n.drone.running) > 0 {
				return false
			}
		}
		// With many Beats lost a lease may end now and then.
		n, _ := w.unseen()
		return n == nil
	}
	for end := w.now + 600_000; w.now < end && !equal(); {
		w.RunUntil(w.now+1000, nil)
	}
	l.converged()
	l.complete()
	if w.rng.IntN(16) == 0 {
		l.signed()
	}
}

// inflict begins a fault and plans its end.
func (w *World) inflict(f Fault) {
	a, b := w.Nodes[f.A], w.Nodes[f.B]
	end := func(do func()) { w.At(w.now+f.For, do) }
	switch f.Kind {
	case "partition":
		var cut [][2]*Node
		for i, x := range w.Nodes {
			for _, y := range w.Nodes[i+1:] {
				if (x.n+f.A)%2 != (y.n+f.A)%2 {
					cut = append(cut, [2]*Node{x, y}, [2]*Node{y, x})
				}
			}
		}
		for _, p := range cut {
			w.Cut(p[0], p[1])
		}
		end(func() {
			for _, p := range cut {
				w.Mend(p[0], p[1])
			}
		})
	case "cut":
		w.Cut(a, b)
		w.Cut(b, a)
		end(func() { w.Mend(a, b); w.Mend(b, a) })
	case "oneway":
		w.Cut(a, b)
		end(func() { w.Mend(a, b) })
	case "offline": // alone, as a pulled cable
		for _, o := range w.Nodes {
			if o != a {
				w.Cut(a, o)
				w.Cut(o, a)
			}
		}
		end(func() {
			for _, o := range w.Nodes {
				if o != a {
					w.Mend(a, o)
					w.Mend(o, a)
				}
			}
		})
	case "crash":
		a.Crash("fault")
		end(a.restart)
	case "crash-unsaid":
		a.crashAfterPersist = true
		end(a.restart)
	case "leave":
		a.Leave()
		end(a.restart)
	case "suspend":
		a.Suspend()
		end(a.Resume)
	case "clock":
		by := f.Amount - a.skew
		a.SetSkew(f.Amount)
		end(func() { a.SetSkew(a.skew - by) })
	case "ahead":
		a.SetSkew(a.skew + f.Amount)
		end(func() { a.SetSkew(a.skew - f.Amount) })
	case "channel":
		a.postChannel(f.Amount)
		end(func() { b.postChannel(f.Amount + 1) })
	case "restore": // from a backup: the journal is as old as the fault is long
		old := maps.Clone(a.journal)
		end(func() {
			a.Crash("restored")
			a.journal = old
			a.restored++
			a.restart()
		})
	case "clone": // the machine was copied while it ran, and both copies run
		c := w.addClone(a)
		c.Start()
		end(func() {
			c.Crash("switched off")
			c.gone = true
			a.Crash("restarted, as the alarm says")
			a.restart()
		})
	}
}

func (n *Node) restart() {
	n.crashAfterPersist = false
	if !n.up {
		n.Start()
	}
}

// postChannel moves the channel on, as this peer sees it.
func (n *Node) postChannel(salt int64) {
	if !n.Up() {
		return
	}
	prev := n.rep.Channel("t", "stable")
	if prev == nil {
		prev = &release.Channel{Target: "t", Name: "stable"}
	}
	next := release.Next(prev, cas.Sum([]byte(strconv.FormatInt(salt, 10))).String(), time.UnixMilli(n.now().Wall))
	n.step(claims.Post{Body: claims.NewChannel(next)})
}

// Shrink removes faults from a failing run as long as it still fails.
func (c Chaos) Shrink() (Chaos, *Violation) {
	_, v, err := c.Run(false)
	if err != nil || v == nil {
		return c, v
	}
	for i := 0; i < len(c.Faults); {
		fewer := c
		fewer.Faults = append(append([]Fault{}, c.Faults[:i]...), c.Faults[i+1:]...)
		if _, v2, err := fewer.Run(false); err == nil && v2 != nil && v2.Law == v.Law {
			c, v = fewer, v2
		} else {
			i++
		}
	}
	return c, v
}
