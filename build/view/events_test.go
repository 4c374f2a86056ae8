package view_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

func later(now claims.Now, ms int64) claims.Now {
	return claims.Now{Wall: now.Wall + ms, Boot: now.Boot + ms}
}

// between runs f between two looks, ms apart.
func between(s *viewtest.Swarm, ms int64, f func(now claims.Now)) []view.Event {
	before := view.Look(s.Replica, s.Now)
	s.Now = later(s.Now, ms)
	f(s.Now)
	s.Step(s.Now, claims.Tick{})
	return view.Events(before, view.Look(s.Replica, s.Now))
}

func want(t *testing.T, list []view.Event, kind view.EventKind, text string) view.Event {
	t.Helper()
	i := slices.IndexFunc(list, func(e view.Event) bool { return e.Kind == kind && strings.Contains(e.Text, text) })
	if i < 0 {
		t.Errorf("no event %q with %q in %+v", kind, text, list)
		return view.Event{}
	}
	return list[i]
}

func willing(nick string) claims.Beat {
	return claims.Beat{Nick: nick, Slots: 1, Speed: 4000, Accepting: true, Steady: true, Builders: []build.Builder{build.BuilderPortage}}
}

func TestEventsSayWhatPeersDid(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 2})
	if e := between(s, 1000, func(claims.Now) {}); len(e) != 0 {
		t.Errorf("nothing happened: %+v", e)
	}
	e := between(s, 60_000, func(now claims.Now) { s.Beat(0, now, willing("anvil")) })
	if ev := want(t, e, view.EventAway, "nas fell silent"); ev.AtMS >= s.Now.Wall || !ev.Bad {
		t.Errorf("it was silent before it was noticed: %+v", ev)
	}
	e = between(s, 60_000, func(now claims.Now) {
		s.Beat(0, now, willing("anvil"))
		s.Beat(1, now, willing("nas"))
	})
	want(t, e, view.EventBack, "nas is back after")
	e = between(s, 5_000, func(now claims.Now) {
		b := willing("anvil")
		b.Accepting, b.Why = false, "somebody is at the machine"
		s.Beat(0, now, b)
		s.Post(1, now, claims.Directive{Verb: claims.VerbPause, Scope: s.Peer(0), Reason: "the fans"})
	})
	want(t, e, view.EventHeld, "anvil takes no jobs: pause by nas")
	want(t, e, view.EventOrdered, "pause of anvil, ordered on nas: the fans")
	e = between(s, 5_000, func(now claims.Now) {
		b := willing("anvil")
		b.Leaving = true
		s.Beat(0, now, b)
	})
	want(t, e, view.EventLeft, "anvil stopped")
	// A newcomer.
	big := viewtest.New(viewtest.Options{Drones: 3})
	e = view.Events(view.Look(s.Replica, s.Now), view.Look(big.Replica, big.Now))
	if ev := want(t, e, view.EventJoined, "tower joined"); !ev.Bad {
		t.Errorf("a first sight is for people to see: %+v", ev)
	}
}

func TestEventsFollowABuildFromOrderToRelease(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 3})
	s.Now = later(s.Now, 1000)
	round := viewtest.New(viewtest.Options{Drones: 3, Jobs: 2}).Plan
	rd := build.Round{ID: "r7", Target: "desktop", Priority: build.Normal, Requester: s.Self(), State: build.RoundOpen, Counter: 1, Command: "swarm build a b",
		Created: uint64(hlc.New(s.Now.Wall)), Jobs: 2, Plan: round}
	alive := func(now claims.Now, jobs ...[]claims.BeatJob) {
		for i := range 3 {
			b := willing(viewtest.Nick(viewtest.Options{}, i))
			if i < len(jobs) {
				b.Jobs = jobs[i]
			}
			s.Beat(i, now, b)
		}
	}
	e := between(s, 1000, func(now claims.Now) {
		alive(now)
		s.Step(now, claims.Post{Body: claims.NewRound(rd)})
	})
	want(t, e, view.EventOpened, "desktop asked for 2 jobs: swarm build a b (round r7)")
	job := &round.Jobs[0]
	claim := func(i int, epoch uint64, now claims.Now) {
		s.Post(i, now, claims.Claim{Key: job.Key, Peer: s.Peer(i), Epoch: epoch, Stamp: hlc.New(now.Wall - 1), State: claims.ClaimCompiling})
	}
	building := []claims.BeatJob{{Key: job.Key, Epoch: 1, Phase: "compile", InvestedMS: 1000, Compiling: true}}
	e = between(s, 5000, func(now claims.Now) { claim(0, 1, now); alive(now, building) })
	want(t, e, view.EventBegan, "anvil began "+job.CPV.String())
	building[0].Epoch = 2
	e = between(s, 5000, func(now claims.Now) { alive(now, nil, building); claim(1, 2, now) })
	want(t, e, view.EventTaken, "nas took over "+job.CPV.String()+" from anvil")
	fail := func(i int, now claims.Now) {
		s.Post(i, now, claims.NewOutcome(build.Outcome{Key: job.Key, CPV: job.CPV, Target: "desktop", Class: build.BadPackage, Reason: "foo.h is not there", Epoch: 2,
			Started: uint64(hlc.New(now.Wall - 1000)), Millis: 1000}))
	}
	e = between(s, 5000, func(now claims.Now) { alive(now); claim(1, 3, now); fail(1, now) })
	want(t, e, view.EventFailed, "failed on nas: foo.h is not there")
	e = between(s, 5000, func(now claims.Now) { alive(now); fail(2, now) })
	want(t, e, view.EventFailed, "failed on tower")
	want(t, e, view.EventBlocked, job.CPV.String()+" is blocked after 2 failures")
	e = between(s, 5000, func(now claims.Now) {
		alive(now)
		s.Post(0, now, claims.Directive{Verb: claims.VerbUnblock, Scope: string(job.Key)})
	})
	want(t, e, view.EventOrdered, "unblock of "+job.CPV.String()+", ordered on anvil")
	e = between(s, 5000, func(now claims.Now) {
		alive(now)
		c := cas.Sum([]byte("x"))
		d, err := cas.Digest(c)
		if err != nil {
			t.Fatal(err)
		}
		s.Post(2, now, claims.NewOutcome(build.Outcome{Key: job.Key, CPV: job.CPV, Target: "desktop", Class: build.Good, Epoch: 4, Started: uint64(hlc.New(now.Wall - 2000)), Millis: 2000,
			Artifact: &build.Artifact{CID: c.String(), Size: 5}, Inputs: "the same", Content: "one"}))
		s.Post(2, now, claims.Holdings{Shard: int(d[0]) % claims.HoldShards, CIDs: [][]byte{d[:]}})
	})
	if ev := want(t, e, view.EventBuilt, "tower built "+job.CPV.String()+" in 2s"); ev.AtMS > s.Now.Wall || ev.Key != job.Key {
		t.Errorf("%+v", ev)
	}
	again := func(i int, inputs, content string) []view.Event {
		return between(s, 5000, func(now claims.Now) {
			alive(now)
			s.Post(i, now, claims.NewOutcome(build.Outcome{Key: job.Key, CPV: job.CPV, Target: "desktop", Class: build.Good, Epoch: 4, Started: uint64(hlc.New(now.Wall - 2000)), Millis: 2000,
				Artifact: &build.Artifact{CID: cas.Sum([]byte(content)).String(), Size: 5}, Inputs: inputs, Content: content}))
		})
	}
	for _, ev := range again(0, "others", "three") {
		if ev.Kind == view.EventDiffers {
			t.Errorf("two builds from unequal inputs: %s", ev.Text)
		}
	}
	want(t, again(1, "the same", "two"), view.EventDiffers, job.CPV.String()+" was built from equal inputs by tower and nas, and the content is not the same; swarm why "+string(job.Key[:8])+" says where")
	if w, _ := view.Explain(s.Replica, job.Key, s.Now); len(w.Artifacts) != 2 || !strings.HasPrefix(w.Differs, "built from equal inputs by tower and nas") {
		t.Errorf("why: %+v", w)
	}
	e = between(s, 60_000, func(now claims.Now) {
		for i := range 2 {
			s.Beat(i, now, willing("x"))
		}
	})
	want(t, e, view.EventLost, job.CPV.String()+" is on no peer that is here")
	want(t, e, view.EventTrouble, "1 blob on no peer that is here: last held by tower")
	e = between(s, 5000, func(now claims.Now) {
		alive(now)
		rd.State, rd.Counter = build.RoundClosed, 2
		s.Step(now, claims.Post{Body: claims.NewRound(rd)})
		s.Post(0, now, claims.NewChannel(release.Channel{Target: "desktop", Name: "stable", Version: 1, Release: cas.Sum([]byte("r")).String(), Timestamp: now.Wall / 1000}))
	})
	want(t, e, view.EventClosed, "round r7 is closed: 1 of 2 built")
	want(t, e, view.EventReleased, "desktop/stable moved from version 0 to 1")
	want(t, e, view.EventMended, "no more: 1 blob")
}

func TestEventsOfAStormAreBounded(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 20, Jobs: 2000, Elapsed: 0.9})
	d := view.Look(s.Replica, s.Now)
	before := *d
	before.Jobs = nil
	before.AtMS -= 86_400_000
	e := view.Events(&before, d)
	if len(e) != view.MaxEvents+1 || e[view.MaxEvents].Kind != view.EventMissed || !strings.Contains(e[view.MaxEvents].Text, "more events at once") {
		t.Errorf("%d events, the last %+v", len(e), e[len(e)-1])
	}
	for i := 1; i < view.MaxEvents; i++ {
		if e[i].AtMS < e[i-1].AtMS {
			t.Fatal("out of order")
		}
	}
	if view.Events(nil, d) != nil {
		t.Error("events without a before")
	}
}

func TestWhatOthersWroteStaysOneLine(t *testing.T) {
	s := viewtest.New(viewtest.Options{Drones: 2, Jobs: 40, Failures: 2, Hostile: true})
	before := *view.Look(s.Replica, s.Now)
	before.Peers, before.Rounds = nil, nil
	for i := range before.Jobs {
		before.Jobs[i].State, before.Jobs[i].Failures = "ready", 0
	}
	for _, e := range view.Events(&before, view.Look(s.Replica, s.Now)) {
		if strings.ContainsAny(e.Text, "\x1b\n\u202e") || len(e.Text) > 400 {
			t.Errorf("%q", e.Text)
		}
	}
}

func TestARoundThatBeganAndEndedBetweenTwoLooksIsToldWhole(t *testing.T) {
	s := view.Detail{Snapshot: view.Snapshot{AtMS: viewtest.Wall}}
	after := view.Detail{Snapshot: view.Snapshot{AtMS: viewtest.Wall + 1000, Rounds: []view.Round{
		{ID: "new", State: "closed", Requester: "nas", Command: "swarm build x", Jobs: 3, Done: 3, CreatedMS: viewtest.Wall + 100},
		{ID: "old", State: "closed", Requester: "nas", Command: "swarm build y", Jobs: 1, Done: 1, CreatedMS: viewtest.Wall - 86_400_000},
	}}}
	e := view.Events(&s, &after)
	want(t, e, view.EventOpened, "nas asked for 3 jobs: swarm build x")
	want(t, e, view.EventClosed, "round new is closed: 3 of 3 built")
	if len(e) != 2 {
		t.Errorf("a round of yesterday is news: %+v", e)
	}
}
