package claims

import (
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// The same package asked for twice is one job, also when the second asking comes
// from a mended base, or with other needs: the newest that still asks decides,
// on every peer, in whichever order the rounds came.
func TestAJobIsThatOfTheNewestRoundThatAsksForIt(t *testing.T) {
	lib := testJob("lib")
	plain, needy := testJob("app"), testJob("app", lib.Key)
	round := func(id, base string, at int64, jobs ...build.Job) Body {
		return NewRound(build.Round{ID: id, Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1, Created: uint64(hlc.New(at)),
			Jobs: len(jobs), Plan: &build.Plan{Target: "t", Base: build.BaseRef{Name: base}, Jobs: jobs}})
	}
	first, second := round("zz", "broken", testWall, plain), round("aa", "mended", testWall+1, lib, needy)
	for _, order := range [][]Body{{first, second}, {second, first}} {
		now := Now{Wall: testWall + 10, Boot: 1000}
		r := synced(1, now)
		expect := func(when, base string, ready int) {
			t.Helper()
			if g := r.GroundOf(plain.Key); g.Base.Name != base {
				t.Errorf("%s: the job starts from base %q, want %q", when, g.Base.Name, base)
			}
			if got := r.Ready(nil, 10, now); len(got) != ready || ready == 1 && got[0].Job.Key == needy.Key && base == "mended" {
				t.Errorf("%s: %d jobs are ready, want %d: %+v", when, len(got), ready, got)
			}
		}
		for _, b := range order {
			r.Step(now, Post{b})
		}
		expect("asked for twice", "mended", 1) // lib; app waits for it
		now.Wall += 10
		r.Step(now, Post{Directive{Verb: VerbCancel, Scope: "aa"}})
		expect("the newest cancelled", "broken", 1) // app, which waits for nothing here
		if got := r.Ready(nil, 10, now); len(got) == 1 && got[0].Job.Key != plain.Key {
			t.Errorf("%s is ready", got[0].Job.CPV)
		}
		now.Wall += 10
		r.Step(now, Post{Directive{Verb: VerbCancel, Scope: "zz"}})
		expect("all cancelled", "mended", 0)
	}
}
