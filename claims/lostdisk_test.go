package claims

import (
	"testing"

	"github.com/build-swarm/swarm/build"
)

// A builder loses its disk right after it has reported a package that nobody
// else has. The job is built again, by somebody, once: after that it is done for
// good, although the first outcome still names a blob that nobody holds.
func TestAPackageWhoseBuilderLostItsDiskIsBuiltOnceMore(t *testing.T) {
	for name, dies := range map[string]bool{"the disk alone": false, "the whole machine": true} {
		t.Run(name, func(t *testing.T) {
			now := Now{Wall: testWall, Boot: 1000}
			job := testJob("a")
			a, b := synced(1, now), synced(2, now)
			peers := []*Replica{a, b}
			held := func(blob string, yes bool) Holdings {
				d := cidDigest(good(job, blob).Artifact.CID)
				h := Holdings{Shard: int(d[0]) % HoldShards}
				if yes {
					h.CIDs = [][]byte{d}
				}
				return h
			}
			build1 := func(r *Replica, blob string) {
				exchange(t, now, peers, r, r.Step(now, Take{job.Key}))
				exchange(t, now, peers, r, r.Step(now, Post{held(blob, true)}))
				exchange(t, now, peers, r, r.Step(now, Finished{good(job, blob)}))
			}
			state := func() JobState { return b.SurveyRound("r1", now)[0].State }
			exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
			now.Boot += IdleBeatMillis // both have been heard of
			for _, p := range peers {
				exchange(t, now, peers, p, p.Step(now, Tick{}))
			}
			build1(a, "first")
			if !state().Done() {
				t.Fatalf("built, and %s", state())
			}
			if dies {
				peers = []*Replica{b}
			} else {
				exchange(t, now, peers, a, a.Step(now, Post{held("first", false)}))
			}
			builds, minutes := 0, 0
			for range 3 * 60 * 6 { // three hours, every ten seconds
				now.Boot, now.Wall = now.Boot+10_000, now.Wall+10_000
				for _, p := range peers {
					exchange(t, now, peers, p, p.Step(now, Tick{}))
				}
				if state() == JobReady {
					if builds++; builds > 1 {
						t.Fatalf("it is to be built again after %d ms", now.Boot)
					}
					minutes = int(now.Boot / 60_000)
					build1(b, "second")
				}
			}
			most := 1
			if dies {
				most = 16 // it may come back for a quarter of an hour
			}
			if builds != 1 || minutes > most {
				t.Errorf("built again %d times, after %d minutes, want once within %d", builds, minutes, most)
			}
			if !state().Done() || len(b.Results(job.Key)) != 2 {
				t.Errorf("in the end it is %s with %d outcomes", state(), len(b.Results(job.Key)))
			}
			if g, _ := b.Good(job.Key, now); g == nil || g.Artifact.CID != good(job, "second").Artifact.CID || g.Class != build.Good {
				t.Errorf("the canonical outcome is %+v", g)
			}
		})
	}
}
