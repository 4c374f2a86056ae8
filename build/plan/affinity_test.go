package plan

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// rooted is a job whose root holds these packages.
func rooted(name string, packages ...string) *build.Job {
	j := job(name, 100_000)
	var entries []build.RootEntry
	for _, p := range packages {
		entries = append(entries, build.RootEntry{Key: job(p, 1).Key})
	}
	j.Root = build.NewRoot(entries...)
	return j
}

// keeps is a peer that keeps the roots of jobs and installs a package in 5 s.
func keeps(id string, jobs ...*build.Job) claims.Peer {
	p := peer(id, 1000)
	p.Beat.InstallMS = 5000
	for _, j := range jobs {
		b, err := hex.DecodeString(string(j.Key))
		if err != nil {
			panic(err) // of a constant form
		}
		p.Beat.Roots = append(p.Beat.Roots, b)
	}
	return p
}

func TestARootStartsFromTheLargestKeptOneThatIsASubset(t *testing.T) {
	jobs := map[build.Key]*build.Job{}
	add := func(j *build.Job) *build.Job { jobs[j.Key] = j; return j }
	want := add(rooted("want", "a", "b", "c", "d"))
	small, large, more := add(rooted("small", "a")), add(rooted("large", "c", "b", "a")), add(rooted("more", "a", "b", "c", "d", "e"))
	none := add(rooted("none"))
	forgotten := rooted("forgotten", "a", "b")
	find := func(k build.Key) *build.Job { return jobs[k] }
	for name, x := range map[string]struct {
		kept []*build.Job
		want int64
	}{
		"nothing is kept":               {nil, 20_000},
		"a smaller and a larger":        {[]*build.Job{small, large}, 5_000},
		"its own":                       {[]*build.Job{small, want}, 0},
		"one with a package more":       {[]*build.Job{more}, 20_000},
		"of a job that nobody knows":    {[]*build.Job{forgotten}, 20_000},
		"an empty one":                  {[]*build.Job{none}, 20_000},
		"one that comes and one before": {[]*build.Job{more, small}, 15_000},
	} {
		var a Affinity
		setup := a.Setup([]claims.Peer{keeps("p", x.kept...)}, find)
		if got := setup(want.Key, "p"); got != x.want {
			t.Errorf("%s: %d ms, want %d", name, got, x.want)
		}
		if got := setup(want.Key, "stranger"); got != 0 {
			t.Errorf("a drone that keeps no roots: %d ms", got)
		}
	}
	var a Affinity
	if a.Setup([]claims.Peer{peer("p", 1000)}, find) != nil {
		t.Error("where no drone keeps roots there is something to ask")
	}
}

func TestARootCountsAsSoonAsItsJobIsKnown(t *testing.T) {
	want := rooted("want", "a", "b")
	jobs := map[build.Key]*build.Job{}
	find := func(k build.Key) *build.Job { return jobs[k] }
	peers := []claims.Peer{keeps("p", want)}
	var a Affinity
	a.Setup(peers, find) // the Beat came before the plan
	jobs[want.Key] = want
	if got := a.Setup(peers, find)(want.Key, "p"); got != 0 {
		t.Errorf("%d ms for a root that is kept", got)
	}
}

func TestWhatADroneKeepsFollowsItsNewestBeat(t *testing.T) {
	small, want := rooted("small", "a"), rooted("want", "a", "b")
	find := func(k build.Key) *build.Job { return map[build.Key]*build.Job{small.Key: small, want.Key: want}[k] }
	var a Affinity
	for n, x := range []struct {
		peer claims.Peer
		want int64
	}{{keeps("p"), 10_000}, {keeps("p", small), 5_000}, {keeps("p", small), 5_000}, {keeps("p", want), 0}, {keeps("p"), 10_000}} {
		if got := a.Setup([]claims.Peer{x.peer}, find)(want.Key, "p"); got != x.want {
			t.Errorf("step %d: %d ms, want %d", n, got, x.want)
		}
	}
}

func TestAJobGoesWhereItsRootIs(t *testing.T) {
	ready := rooted("want", "a", "b", "c", "d", "e", "f")
	find := func(k build.Key) *build.Job { return map[build.Key]*build.Job{ready.Key: ready}[k] }
	var a Affinity
	peers := []claims.Peer{keeps("fast"), keeps("near", ready)}
	peers[0].Beat.Speed = 1200 // 83 s and 30 s of set-up, against 100 s
	v := View{Ready: []claims.Candidate{{Job: ready, Work: 100_000}}, Peers: peers, Setup: a.Setup(peers, find)}
	var s Scheduler
	if _, ok, _ := s.Next(&v, "near"); !ok {
		t.Error("the drone that has the root does not get the job")
	}
	v.Setup = nil
	if _, ok, _ := s.Next(&v, "near"); ok {
		t.Error("it gets it without its root, too: nothing is shown")
	}
}

// A swarm of 20 looks at all it can start.
func BenchmarkAffinity(b *testing.B) {
	const packages, n, drones = 500, 144, 20
	jobs := map[build.Key]*build.Job{}
	var list []*build.Job
	for i := range n + drones*16 {
		var needs []string
		for p := range packages {
			if (p*7+i)%(2+i%5) == 0 {
				needs = append(needs, fmt.Sprint("p", p))
			}
		}
		j := rooted(fmt.Sprint("j", i), needs...)
		jobs[j.Key], list = j, append(list, j)
	}
	var peers []claims.Peer
	for d := range drones {
		peers = append(peers, keeps(fmt.Sprint("d", d), list[n+d*16:n+d*16+16]...))
	}
	find := func(k build.Key) *build.Job { return jobs[k] }
	var a Affinity
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			setup := a.Setup(peers, find)
			for _, j := range list[:n] {
				for d := range peers {
					setup(j.Key, peers[d].ID)
				}
			}
		}
	})
	b.Run("one-changed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			p := &peers[i%drones]
			p.Beat.Roots = append(append([][]byte{}, p.Beat.Roots[1:]...), p.Beat.Roots[0])
			setup := a.Setup(peers, find)
			for _, j := range list[:n] {
				for d := range peers {
					setup(j.Key, peers[d].ID)
				}
			}
		}
	})
}
