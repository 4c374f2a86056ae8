package claims

import (
	"errors"
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// acquainted makes n peers that may claim and have heard one another.
func acquainted(t *testing.T, now Now, n int) []*Replica {
	t.Helper()
	var peers []*Replica
	for i := range n {
		peers = append(peers, synced(i+1, now))
	}
	for _, p := range peers {
		p.nextBeat = 0
		exchange(t, now, peers, p, p.Step(now, Tick{}))
	}
	return peers
}

func refused(effects []Effect) (alarms int) {
	for _, e := range effects {
		if _, ok := e.(Alarm); ok {
			alarms++
		}
	}
	return alarms
}

func TestABanIgnoresWhatComesLaterWhoeverHeardOfItWhen(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 3)
	a, b, bad := peers[0], peers[1], peers[2]
	old, late, held := testJob("old"), testJob("late"), testJob("held")
	exchange(t, now, peers, a, a.Step(now, Post{testRound(old, late, held)}))
	exchange(t, now, peers, bad, bad.Step(now, Take{held.Key}))
	exchange(t, now, peers, bad, bad.Step(now, Take{old.Key}))
	exchange(t, now, peers, bad, bad.Step(now, Finished{good(old, "x")}))

	// a bans it; b does not hear of that yet, and takes what it says next.
	now.Wall += 1000
	now.Boot += 1000
	ban := a.Step(now, Post{Directive{Verb: VerbBan, Scope: bad.self}})
	now.Wall += 1000
	now.Boot += 1000
	rest := []*Replica{a, b}
	exchange(t, now, rest, bad, bad.Step(now, Take{late.Key}))
	if _, held := b.Holder(late.Key, now); !held {
		t.Fatal("b, which knows of no ban, refuses the claim")
	}
	if _, held := a.Holder(late.Key, now); held || a.Refused.Banned == 0 {
		t.Errorf("a takes the claim of a peer that it banned (%+v)", a.Refused)
	}
	exchange(t, now, rest, a, ban)
	if a.Digest() != b.Digest() {
		t.Error("the boards differ for good")
	}
	for _, r := range rest {
		if _, held := r.Holder(late.Key, now); held {
			t.Error("the claim of a banned peer holds a job")
		}
		if r.live(bad.self, now) {
			t.Error("a banned peer counts as live")
		}
		if _, still := r.Holder(held.Key, now); still {
			t.Error("a banned peer keeps what it had claimed")
		}
		if list := r.BuiltBy(bad.self); len(list) != 1 || list[0].Key != old.Key {
			t.Errorf("what it built is listed as %v", list)
		}
		if o, ok := r.Banned(bad.self); !ok || o.Author != a.self {
			t.Errorf("the ban is shown as %+v", o)
		}
	}
	if slices.ContainsFunc(b.board.all(), func(e *entry) bool { return e.rec.Key() == ClaimKey(late.Key) }) {
		t.Error("a record from after the ban stays on a board")
	}
	// It may not lift the ban itself, and claims nothing once it knows.
	if refused(bad.Step(now, Post{Directive{Verb: VerbBan, Scope: bad.self, Off: true}})) == 0 {
		t.Error("a peer lifts its own ban")
	}
	exchange(t, now, peers, a, ban)
	if ok, why := bad.MayClaim(); ok || why != "the swarm has banned this peer" {
		t.Errorf("the banned peer may claim: %v %q", ok, why)
	}
	// Lifted, it counts again.
	now.Wall += 1000
	now.Boot += 1000
	exchange(t, now, peers, b, b.Step(now, Post{Directive{Verb: VerbBan, Scope: bad.self, Off: true}}))
	bad.nextBeat = 0
	exchange(t, now, peers, bad, bad.Step(now, Tick{}))
	if !a.live(bad.self, now) {
		t.Error("after the ban was lifted the peer does not count as live")
	}
}

func TestACancelledRoundStopsItsBuildsAndNoOther(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	only, shared := testJob("only"), testJob("shared")
	r := synced(1, now)
	r.Step(now, Post{testRound(only, shared)})
	r.Step(now, Post{NewRound(build.Round{ID: "r2", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
		Jobs: 1, Plan: &build.Plan{Target: "t", Jobs: []build.Job{shared}}})})
	for _, j := range []build.Job{only, shared} {
		r.Step(now, Take{j.Key})
		r.Step(now, Progress{BeatJob{Key: j.Key, Compiling: true, Phase: "compile", InvestedMS: 5000}})
	}
	now.Wall += 10
	var stopped []build.Key
	for _, e := range r.Step(now, Post{Directive{Verb: VerbCancel, Scope: "r1"}}) {
		if s, ok := e.(Stop); ok {
			stopped = append(stopped, s.Key)
		}
	}
	if !slices.Equal(stopped, []build.Key{only.Key}) {
		t.Errorf("stopped %v, want what no other round asks for", stopped)
	}
	if _, wanted := r.Wanted(only.Key); wanted {
		t.Error("the job of a cancelled round is still wanted")
	}
	if rs := r.Rounds(); rs[0].State == rs[1].State {
		t.Errorf("the rounds are shown as %s and %s", rs[0].State, rs[1].State)
	}
	if list, _ := r.failures(only.Key, "t"); len(list) > 0 {
		t.Error("a cancelled build counts as a failure")
	}
	// Who asks for the round again, later, gets it.
	now.Wall += 10
	again := testRound(only, shared).(roundBody)
	again.Counter = 2
	r.Step(now, Post{again})
	if _, wanted := r.Wanted(only.Key); !wanted {
		t.Error("a round that was asked for again stays cancelled")
	}
}

func TestTwoStrangersDoNotVouchForEachOther(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 4)
	a, b, s1, s2 := peers[0], peers[1], peers[2], peers[3]
	ack := func(r, of *Replica) {
		exchange(t, now, peers, r, r.Step(now, Post{Directive{Verb: VerbAck, Scope: of.self}}))
	}
	if n := len(a.Strangers()); n != 3 {
		t.Fatalf("%d strangers at first, want all 3", n)
	}
	ack(s1, s2)
	ack(s2, s1)
	if refused(s1.Step(now, Post{Directive{Verb: VerbAck, Scope: s1.self}})) == 0 {
		t.Error("a peer vouches for itself")
	}
	ack(a, b)
	ack(b, s1) // b is known at a, so its word counts there
	if got := a.Strangers(); len(got) != 0 {
		t.Errorf("a, which knows b, which knows s1, which knows s2, still calls %d strangers", len(got))
	}
	if got := b.Strangers(); !slices.Equal(got, []string{a.self}) {
		t.Errorf("b calls strangers %v, want a alone, which nobody at b has seen", got)
	}
	ack(a, s1) // the same word again, by another, replaces nobody's
	if got := b.Strangers(); len(got) != 1 {
		t.Errorf("b calls %d strangers", len(got))
	}
}

func TestOrdersNameWhoAndWhen(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 2)
	exchange(t, now, peers, peers[1], peers[1].Step(now, Post{Directive{Verb: VerbPause, Scope: ScopeAll, Reason: "noise"}}))
	now.Wall += 5000
	exchange(t, now, peers, peers[0], peers[0].Step(now, Post{Directive{Verb: VerbDrain, Scope: peers[0].self}}))
	got := peers[0].Orders()
	if len(got) != 2 || got[0].Verb != VerbDrain || got[1].Author != peers[1].self || got[1].Stamp.Millis() != testWall || got[1].Reason != "noise" {
		t.Errorf("%+v", got)
	}
	exchange(t, now, peers, peers[0], peers[0].Step(now, Post{Directive{Verb: VerbPause, Scope: ScopeAll, Off: true}}))
	if got := peers[1].Orders(); len(got) != 1 {
		t.Errorf("after resume %d orders are in force", len(got))
	}
}

func TestNobodyWaitsForAPausedDroneToTakeAJob(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 2)
	exchange(t, now, peers, peers[0], peers[0].Step(now, Post{Directive{Verb: VerbDrain, Scope: peers[1].self}}))
	for _, r := range peers {
		for _, p := range r.Peers(now) {
			if p.Beat.Accepting != (p.ID == peers[0].self) {
				t.Errorf("%s accepts %v: %s", r.Name(p.ID), p.Beat.Accepting, p.Beat.Why)
			}
		}
	}
}

func TestTheMarkOfATwinGoesWithTheTwin(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := synced(1, now)
	pass := func(ms int64) []Effect {
		now.Boot, now.Wall = now.Boot+ms, now.Wall+ms
		return r.Step(now, Tick{})
	}
	if r.Step(now, Twin{}); r.cloned == false {
		t.Fatal("the word of a twin changes nothing")
	}
	pass(TwinMillis - 1)
	if ok, _ := r.MayClaim(); ok {
		t.Error("it claims again while the twin may be there")
	}
	if wake := r.NextWake(now); wake > now.Boot+2 {
		t.Errorf("it would look again in %d ms", wake-now.Boot)
	}
	changed := slices.ContainsFunc(pass(1), func(e Effect) bool { _, ok := e.(Changed); return ok })
	if ok, why := r.MayClaim(); !ok || !changed {
		t.Errorf("after the twin has gone it does not claim: %s", why)
	}
	// A twin that is known by its Beats says so when it leaves.
	clone := NewReplica(Config{Key: testKey(1), Instance: 77}, nil, now)
	clone.synced = true
	hear := func(ev Event) {
		for _, e := range clone.Step(now, ev) {
			if p, ok := e.(Publish); ok {
				r.Step(now, Received{"x", []wire.Opened{p.Record}})
			}
		}
	}
	hear(Report{Beat{Nick: "copy"}})
	if ok, _ := r.MayClaim(); ok {
		t.Fatal("a clone's Beat is not noticed")
	}
	hear(Leave{})
	pass(1)
	if ok, why := r.MayClaim(); !ok {
		t.Errorf("the clone took its leave, and still: %s", why)
	}
}

func TestARestartedPeerIsNotMuteThoughItsClockWasSetBack(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 2)
	a, b := peers[0], peers[1]
	var mark hlc.Time
	for range 5 { // Beats alone, which no journal keeps
		now.Boot, now.Wall = now.Boot+IdleBeatMillis, now.Wall+IdleBeatMillis
		effects := a.Step(now, Tick{})
		for i, e := range effects {
			if m, ok := e.(Mark); ok {
				mark = m.Stamp
			}
			if p, ok := e.(Publish); ok && hlc.Time(p.Record.Stamp()) >= mark {
				t.Errorf("effect %d says %s before the mark %s is kept", i, hlc.Time(p.Record.Stamp()), mark)
			}
		}
		exchange(t, now, peers, a, effects)
	}
	heard := hlc.Time(b.peers[a.self].rec.Stamp())
	back := Now{Wall: now.Wall - 20_000, Boot: 10}
	again := NewReplica(Config{Key: testKey(1), Instance: 99, Mark: mark}, nil, back)
	again.synced = true
	exchange(t, now, []*Replica{again, b}, again, again.Step(back, Report{Beat{Nick: "again"}}))
	if got := hlc.Time(b.peers[a.self].rec.Stamp()); got <= heard || b.Name(a.self) != "again" {
		t.Errorf("its first Beat after the restart is stamped %s, the last before it %s", got, heard)
	}
}

func TestAClockThatWasAheadAndIsSetRightSaysItsWordAnew(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	fast := Now{Wall: testWall + 7_200_000, Boot: 1000} // the hardware clock runs on local time
	a, b := synced(1, fast), synced(2, now)
	both := []*Replica{a, b}
	job := testJob("a")
	exchange(t, now, both, b, b.Step(now, Post{testRound(job)}))
	lost := a.Step(fast, Post{NewOutcome(good(job, "x"))})
	for _, e := range append(lost, a.Step(fast, Post{Holdings{Shard: 0, CIDs: nil}})...) {
		if p, ok := e.(Publish); ok {
			b.Step(now, Received{a.self, []wire.Opened{p.Record}})
		}
	}
	if b.Refused.Future == 0 || len(b.Results(job.Key)) > 0 {
		t.Fatal("what comes from two hours ahead is taken")
	}
	// The time service sets the clock; a hears b and finds that they agree.
	now.Wall, now.Boot = now.Wall+5000, now.Boot+5000
	b.nextBeat = 0
	exchange(t, now, both, b, b.Step(now, Tick{}))
	if len(b.Results(job.Key)) != 1 {
		t.Error("the finished build that it reported meanwhile is lost to the others")
	}
	if _, may := b.live(a.self, now), a.board.count; may == 0 || !b.live(a.self, now) {
		t.Error("it is still mute")
	}
	if a.Digest() != b.Digest() {
		t.Errorf("boards differ: %d and %d records", a.Count(), b.Count())
	}
	if wall := a.clock.Last().Millis(); wall > now.Wall+hlc.MaxAheadMillis {
		t.Errorf("its stamps are still %d s ahead", (wall-now.Wall)/1000)
	}
}

// What it said of itself while its clock was wrong must not shadow what it says
// now, or it counts as gone for as long as the clock was ahead.
func TestAPeerIsHeardAtOnceWhenItsClockIsSetRight(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 2)
	a, b := peers[0], peers[1]
	beatOf := func(at Now) (out []wire.Opened) {
		a.nextBeat = 0
		for _, e := range a.Step(at, Tick{}) {
			if p, ok := e.(Publish); ok && p.Record.Type() == TypeBeat {
				out = append(out, p.Record)
			}
		}
		return out
	}
	old := b.peers[a.self].rec
	fast := Now{Wall: now.Wall + 3_600_000, Boot: now.Boot + 5000}
	now.Wall, now.Boot = now.Wall+5000, now.Boot+5000
	b.Step(now, Received{a.self, beatOf(fast)})
	if b.live(a.self, now) || b.Refused.Future == 0 {
		t.Fatal("a Beat from an hour ahead is believed")
	}
	b.Step(now, Received{a.self, []wire.Opened{old}})
	if b.live(a.self, now) {
		t.Error("a Beat that was heard before is heard again")
	}
	now.Wall, now.Boot = now.Wall+5000, now.Boot+5000
	b.nextBeat = 0
	exchange(t, now, peers, b, b.Step(now, Tick{})) // by which a finds that its clock is right
	b.Step(now, Received{a.self, beatOf(now)})
	if !b.live(a.self, now) {
		t.Error("its clock is right again, and it is still refused")
	}
}

func TestABeatWithRootsThatCannotBeIsRefused(t *testing.T) {
	key := make([]byte, 32)
	for name, b := range map[string]Beat{
		"too many":         {Roots: slices.Repeat([][]byte{key}, MaxRoots+1)},
		"no key":           {Roots: [][]byte{key[:31]}},
		"slower than ever": {InstallMS: MaxInstallMS + 1},
		"a time before":    {InstallMS: -1},
	} {
		b.PeriodMS = BeatMillis
		if err := b.check(""); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Beat{PeriodMS: BeatMillis, Roots: slices.Repeat([][]byte{key}, MaxRoots), InstallMS: 5000}).check(""); err != nil {
		t.Error(err)
	}
}

func TestAResumedObserverJudgesNobodyBeforeItHasCompared(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	peers := acquainted(t, now, 2)
	a, b := peers[0], peers[1]
	job := testJob("a")
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, b, b.Step(now, Take{job.Key}))
	a.Step(now, Connected{b.self})
	now.Boot, now.Wall = now.Boot+3_600_000, now.Wall+3_600_000 // the lid was closed
	a.Step(now, Resumed{})
	if h, held := a.Holder(job.Key, now); !held || h.Peer != b.self {
		t.Error("a lease ended in the observer's sleep")
	}
	if ok, why := a.MayClaim(); ok || why == "" {
		t.Error("it claims before it has compared its board")
	}
	if refused(a.Step(now, Take{job.Key})); a.own[job.Key] != nil {
		t.Error("it took a job that another builds")
	}
	// The other died meanwhile: a lease later that is seen, too.
	now.Boot, now.Wall = now.Boot+LeasePeriods*IdleBeatMillis+1, now.Wall+LeasePeriods*IdleBeatMillis+1
	a.Step(now, Tick{})
	if _, held := a.Holder(job.Key, now); held {
		t.Error("a dead peer's lease never ends after a resume")
	}
}

// A laptop sleeps in the middle of a build, its job is taken over, and it wakes.
func TestAResumedClaimantStopsOnlyForABuildThatEndsEarlier(t *testing.T) {
	for _, c := range []struct {
		name      string
		left      int64
		compiling bool
		stops     bool
	}{
		{"nearly done", 60_000, true, false},
		{"far from it", 7_200_000, true, true},
		{"not begun", 0, false, true},
	} {
		now := Now{Wall: testWall, Boot: 1000}
		peers := acquainted(t, now, 2)
		laptop, nas := peers[0], peers[1]
		job := testJob("a")
		exchange(t, now, peers, nas, nas.Step(now, Post{testRound(job)}))
		exchange(t, now, peers, laptop, laptop.Step(now, Take{job.Key}))
		exchange(t, now, peers, laptop, laptop.Step(now, Progress{BeatJob{Key: job.Key, Phase: "compile", Compiling: c.compiling, InvestedMS: 60_000, LeftMS: c.left}}))
		laptop.nextBeat = 0
		exchange(t, now, peers, laptop, laptop.Step(now, Tick{}))
		now.Boot, now.Wall = now.Boot+3_600_000, now.Wall+3_600_000
		alone := []*Replica{nas}
		exchange(t, now, alone, nas, nas.Step(now, Take{job.Key}))
		if h, _ := nas.Holder(job.Key, now); h.Peer != nas.self {
			t.Fatalf("%s: the job of a sleeping laptop is not taken over", c.name)
		}
		exchange(t, now, alone, nas, nas.Step(now, Progress{BeatJob{Key: job.Key, Phase: "compile", Compiling: true, InvestedMS: 3_000_000, LeftMS: 600_000}}))
		nas.nextBeat = 0
		beat := nas.Step(now, Tick{})

		stopped := false
		note := func(effects []Effect) {
			for _, e := range effects {
				if s, ok := e.(Stop); ok && s.Key == job.Key {
					stopped = true
				}
			}
		}
		note(laptop.Step(now, Resumed{}))
		for _, rec := range nas.Records() {
			note(laptop.Step(now, Received{nas.self, []wire.Opened{rec}}))
		}
		for _, e := range beat {
			if p, ok := e.(Publish); ok {
				note(laptop.Step(now, Received{nas.self, []wire.Opened{p.Record}}))
			}
		}
		if stopped != c.stops {
			t.Errorf("%s: stopped %v, want %v", c.name, stopped, c.stops)
		}
	}
}

func TestAnOrderThatNoPersonGaveIsRefused(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	r := newPeer(1, now)
	for _, d := range []Directive{
		{Verb: "burn", Scope: ScopeAll}, {Verb: VerbPause}, {Verb: VerbPause, Scope: "a/b"}, {Verb: VerbPause, Scope: string(make([]byte, 200))},
		{Verb: VerbAck, Scope: r.self}, {Verb: VerbBan, Scope: r.self},
	} {
		if _, err := r.seal(now, d); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
