package view

import (
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Work is ready and nobody takes it: that is no healthy swarm, and the command
// that is named has to undo what holds it.
func TestASwarmWhoseDronesAllHoldBackIsBlockedAndNamesTheCure(t *testing.T) {
	now := claims.Now{Wall: wall, Boot: 20_000}
	for _, c := range []struct {
		name, why, do string
		fail          int
		pause         bool
	}{
		{name: "failed too often", why: "3 builds in a row failed here", fail: 3, do: "swarm unblock all"},
		{name: "paused", pause: true, do: "swarm resume all"},
		{name: "its user is there", why: "somebody is at the machine", do: "swarm why --drone "},
	} {
		t.Run(c.name, func(t *testing.T) {
			me, drones := seenBy(t, now, claims.Beat{Nick: "tower", Slots: 1, Speed: 4000, Accepting: c.why == "", Why: c.why, Builders: []build.Builder{build.BuilderSample}})
			lib := *job("lib", 60_000)
			me.Step(now, claims.Post{Body: claims.NewRound(build.Round{ID: "r", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
				Created: uint64(hlc.New(wall)), Plan: &build.Plan{Target: "t", Jobs: []build.Job{lib}}})})
			for n := range c.fail {
				other := job("other"+strings.Repeat("x", n), 1000)
				tell(me, drones[0], now, claims.Finished{Outcome: build.Outcome{Key: other.Key, CPV: other.CPV, Target: "t", Class: build.BadMachine,
					Reason: "cc: Illegal instruction", Started: uint64(hlc.New(wall))}})
			}
			if c.pause {
				me.Step(now, claims.Post{Body: claims.Directive{Verb: claims.VerbPause, Scope: claims.ScopeAll}})
			}
			s := Of(me, now)
			if s.Verdict != Blocked || !strings.HasPrefix(s.Next, c.do) || !strings.Contains(s.Sentence, "every drone holds back") {
				t.Errorf("%s: %s; next: %s", s.Verdict, s.Sentence, s.Next)
			}
		})
	}
}
