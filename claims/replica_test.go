package claims

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

const testWall = 1_800_000_000_000

func testKey(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n)}, ed25519.SeedSize))
}

func newPeer(n int, now Now) *Replica {
	return NewReplica(Config{Key: testKey(n), Instance: uint64(n), Rand: rand.New(rand.NewPCG(uint64(n), 1))}, nil, now)
}

// synced makes a peer that may claim, with a willing report.
func synced(n int, now Now) *Replica {
	r := newPeer(n, now)
	r.synced = true
	r.Step(now, Report{Beat{Nick: fmt.Sprintf("peer%d", n), Slots: 1, Speed: 1000, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}}})
	return r
}

func testJob(name string, needs ...build.Key) build.Job {
	pre := []build.Facet{{Name: "CPV", Value: "app-misc/" + name + "-1"}}
	k, err := build.KeyOf(pre)
	if err != nil {
		panic(err)
	}
	cpv, err := build.ParseCPV("app-misc/" + name + "-1")
	if err != nil {
		panic(err)
	}
	j := build.Job{Key: k, Builder: build.BuilderSample, CPV: cpv, Slot: "0", Repo: "t", Preimage: pre}
	for _, n := range needs {
		j.Needs = append(j.Needs, build.Edge{Key: n, Kind: build.Buildtime})
	}
	return j
}

func testRound(jobs ...build.Job) Body {
	return NewRound(build.Round{ID: "r1", Target: "t", Priority: build.Normal, State: build.RoundOpen, Counter: 1,
		Jobs: len(jobs), Plan: &build.Plan{Target: "t", Jobs: jobs}})
}

func good(j build.Job, blob string) build.Outcome {
	return build.Outcome{Key: j.Key, CPV: j.CPV, Target: "t", Class: build.Good,
		Artifact: &build.Artifact{CID: cas.Sum([]byte(blob)).String(), Size: int64(len(blob))}}
}

// exchange delivers everything that a step tells others to the other peers,
// and what follows from it, until nothing more is said.
func exchange(t testing.TB, now Now, peers []*Replica, from *Replica, effects []Effect) {
	t.Helper()
	type letter struct {
		to, from *Replica
		ev       Event
	}
	var queue []letter
	find := func(id string) *Replica {
		for _, p := range peers {
			if p.self == id {
				return p
			}
		}
		return nil
	}
	post := func(from *Replica, effects []Effect) {
		for _, e := range effects {
			switch e := e.(type) {
			case Publish:
				for _, p := range peers {
					if p != from {
						queue = append(queue, letter{p, from, Received{from.self, []wire.Opened{e.Record}}})
					}
				}
			case Send:
				to := find(e.Peer)
				b, err := EncodeSync(e.Msg)
				if err != nil {
					t.Fatal(err)
				}
				m, err := DecodeSync(b)
				if err != nil {
					t.Fatal(err)
				}
				var recs []wire.Opened
				for _, raw := range m.Records {
					o, err := wire.Open(raw)
					if err != nil {
						t.Fatal(err)
					}
					recs = append(recs, o)
				}
				m.Records = nil
				if len(recs) > 0 {
					queue = append(queue, letter{to, from, Received{from.self, recs}})
				}
				queue = append(queue, letter{to, from, Synced{from.self, m}})
			}
		}
	}
	post(from, effects)
	for n := 0; len(queue) > 0; n++ {
		if n > 100_000 {
			t.Fatal("the peers talk without end")
		}
		l := queue[0]
		queue = queue[1:]
		if l.to != nil {
			post(l.to, l.to.Step(now, l.ev))
		}
	}
}

// someRecords makes records of every kind by several authors.
func someRecords(t testing.TB, now Now) []wire.Opened {
	t.Helper()
	a, b := testJob("a"), testJob("b")
	var out []wire.Opened
	for n := 1; n <= 3; n++ {
		r := newPeer(n, now)
		for i, body := range []Body{
			testRound(a, b),
			Claim{Key: a.Key, Peer: r.self, Epoch: uint64(n), Stamp: hlc.New(testWall - int64(n)), State: ClaimHeld},
			Claim{Key: b.Key, Peer: r.self, Epoch: 1, Stamp: hlc.New(testWall - int64(n)), State: ClaimCompiling},
			Claim{Key: b.Key, Peer: r.self, Epoch: 1, Stamp: hlc.New(testWall - int64(n)), State: ClaimReturned, Update: 1},
			Directive{Verb: VerbPause, Scope: "all", Off: n == 2},
			Decline{Key: a.Key, Peer: r.self, Until: hlc.New(testWall + 5), Reason: "no"},
			Holdings{Shard: 0, CIDs: [][]byte{make([]byte, 32)}},
		} {
			o, err := r.seal(Now{Wall: testWall + int64(i), Boot: 1}, body)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, o)
		}
		if n == 2 {
			g := good(a, "x")
			g.Epoch = 2
			o, err := r.seal(now, NewOutcome(g))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, o)
		}
	}
	unknown, err := wire.Seal(testKey(1), wire.Record{Type: "future", Key: "future/x", Order: []byte{9}, Author: wire.PeerID(testKey(1).Public().(ed25519.PublicKey)), Stamp: uint64(hlc.New(testWall))})
	if err != nil {
		t.Fatal(err)
	}
	return append(out, unknown)
}

func TestAnyOrderAndRepetitionGivesTheSameBoard(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	recs := someRecords(t, now)
	want := newPeer(9, now)
	want.Step(now, Received{"x", recs})
	if want.Count() < 10 {
		t.Fatalf("only %d records were kept", want.Count())
	}
	rapid.Check(t, func(rt *rapid.T) {
		got := newPeer(8, now)
		order := rapid.Permutation(slices.Concat(recs, recs)).Draw(rt, "order")
		for len(order) > 0 {
			n := rapid.IntRange(1, len(order)).Draw(rt, "batch")
			got.Step(now, Received{"x", order[:n]})
			order = order[n:]
		}
		if got.Digest() != want.Digest() || got.Count() != want.Count() {
			rt.Fatalf("%d records, digest %x; want %d, %x", got.Count(), got.Digest(), want.Count(), want.Digest())
		}
		for i, o := range got.Records() {
			if o.Hash() != want.Records()[i].Hash() {
				rt.Fatalf("record %s differs though the digests agree", o.Key())
			}
		}
		if got.board.sums != recount(got.board) {
			rt.Fatal("incremental sums differ from a recount")
		}
	})
}

func recount(b *board) (sums [Buckets]uint64) {
	for n := range b.bucket {
		for _, e := range b.bucket[n] {
			sums[n] += sumOf(e.rec)
		}
	}
	return sums
}

func TestClaimOfABuiltKeyLeavesTheBoard(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := newPeer(9, now)
	r.Step(now, Received{"x", someRecords(t, now)})
	a := testJob("a")
	e := r.board.get(ClaimKey(a.Key))
	if e == nil || e.body.(Claim).Epoch != 3 {
		t.Errorf("the claim of epoch 3, after the good outcome of epoch 2, is gone: %+v", e)
	}
}

func TestTheFirstClaimantOfAnEpochKeepsIt(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	// Both claim before either hears of the other: b a second later.
	ea := a.Step(now, Take{job.Key})
	later := Now{Wall: now.Wall + 1000, Boot: now.Boot + 10}
	eb := b.Step(later, Take{job.Key})
	exchange(t, later, peers, a, ea)
	exchange(t, later, peers, b, eb)
	for _, r := range peers {
		h, ok := r.Holder(job.Key, later)
		if !ok || h.Peer != a.self {
			t.Errorf("%s sees holder %+v, %v; want the first claimant", r.Name(r.self), h, ok)
		}
	}
	if len(b.own) != 0 {
		t.Error("the loser still holds its claim")
	}
	settled := Now{Wall: later.Wall + SettleLAN, Boot: later.Boot + SettleLAN}
	if !slices.ContainsFunc(a.Step(settled, Tick{}), func(e Effect) bool { w, ok := e.(Won); return ok && w.Key == job.Key }) {
		t.Error("the winner was not told to compile after the settle delay")
	}
}

func TestAGivenBackJobOpensTheNextEpoch(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	exchange(t, now, peers, a, a.Step(now, GiveBack{job.Key, "test"}))
	if _, held := b.Holder(job.Key, now); held {
		t.Fatal("a returned claim still holds")
	}
	exchange(t, now, peers, b, b.Step(now, Take{job.Key}))
	h, ok := a.Holder(job.Key, now)
	if !ok || h.Peer != b.self || h.Epoch != 2 {
		t.Errorf("holder %+v, %v; want b under epoch 2", h, ok)
	}
}

func TestALeaseEndsByTheObserversClockAndInvestedWorkAddsGrace(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	now.Boot += 100
	now.Wall += 100
	exchange(t, now, peers, a, a.Step(now, Progress{BeatJob{Key: job.Key, Phase: "compile", Compiling: true, InvestedMS: 600_000}}))
	now.Boot += 6000
	now.Wall += 6000
	exchange(t, now, peers, a, a.Step(now, Tick{}))
	end := LeasePeriods*int64(BeatMillis) + 600_000/4
	// The wall clock may say what it likes.
	if _, held := b.Holder(job.Key, Now{Wall: now.Wall + 1e9, Boot: now.Boot + end - 1}); !held {
		t.Error("the lease ended before its time")
	}
	if h, held := b.Holder(job.Key, Now{Wall: now.Wall, Boot: now.Boot + end + 1}); held {
		t.Errorf("the lease holds after its time: %+v", h)
	}
}

func TestAReplayedBeatRenewsNothing(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	a, b := synced(1, now), synced(2, now)
	a.nextBeat = 0
	var beat wire.Opened
	for _, e := range a.Step(now, Tick{}) {
		if p, ok := e.(Publish); ok {
			beat = p.Record
		}
	}
	b.Step(now, Received{a.self, []wire.Opened{beat}})
	end := LeasePeriods*int64(IdleBeatMillis) + 1
	later := Now{Wall: now.Wall + end, Boot: now.Boot + end}
	b.Step(later, Received{a.self, []wire.Opened{beat}})
	if b.live(a.self, later) {
		t.Error("an old Beat made a silent peer live")
	}
}

func TestADepartingPeersJobsAreFreeAtOnce(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	exchange(t, now, peers, a, a.Step(now, Leave{}))
	if _, held := b.Holder(job.Key, now); held || b.live(a.self, now) {
		t.Error("a peer that left still holds its job")
	}
}

func TestALateResultEndsTheJobAndIsNeverThrownAway(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Take{job.Key}))
	// a falls silent; b takes over under epoch 2; then a reports after all.
	now.Boot += 120_000
	now.Wall += 120_000
	exchange(t, now, []*Replica{b}, b, b.Step(now, Take{job.Key}))
	if len(b.own) != 1 {
		t.Fatal("b could not take over after the lease")
	}
	out := good(job, "late")
	hold := Holdings{Shard: int(cidDigest(out.Artifact.CID)[0]) % HoldShards, CIDs: [][]byte{cidDigest(out.Artifact.CID)}}
	exchange(t, now, peers, a, a.Step(now, Tick{}))
	exchange(t, now, peers, a, a.Step(now, Post{hold}))
	exchange(t, now, peers, a, a.Step(now, Finished{out}))
	if !b.Available(job.Key, now) {
		t.Error("the late result does not count")
	}
	if len(b.own) != 0 {
		t.Error("b goes on with a job that is done")
	}
}

func cidDigest(text string) []byte {
	d, ok := digestOf(text)
	if !ok {
		panic(text)
	}
	return d[:]
}

func TestNeverIsMoreWorkStoppedForLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := func(name string) BeatJob {
			return BeatJob{
				Epoch: rapid.Uint64Range(1, 3).Draw(t, name+"epoch"), Compiling: rapid.Bool().Draw(t, name+"compiling"),
				InvestedMS: rapid.Int64Range(0, 3).Draw(t, name+"invested"), LeftMS: rapid.Int64Range(0, 3).Draw(t, name+"left"),
			}
		}
		x, y := gen("x"), gen("y")
		xStops, yStops := Yields(x, "x", y, "y"), Yields(y, "y", x, "x")
		if xStops && yStops {
			t.Fatal("both stop")
		}
		if xStops && x.InvestedMS > y.InvestedMS || yStops && y.InvestedMS > x.InvestedMS {
			t.Fatal("more work stopped for less")
		}
		if xStops && !y.Compiling || yStops && !x.Compiling {
			t.Fatal("stopped for a build that has not begun")
		}
	})
}

func TestWithGossipOffTheExchangeAloneConverges(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	recs := someRecords(t, now)
	a, b := newPeer(8, now), newPeer(9, now)
	a.Step(now, Received{"x", recs[:len(recs)/2]})
	b.Step(now, Received{"x", recs[len(recs)/3:]})
	both := []*Replica{a, b}
	// The link comes up at both ends; each pulls what it lacks.
	fromB := b.Step(now, Connected{a.self})
	exchange(t, now, both, a, a.Step(now, Connected{b.self}))
	exchange(t, now, both, b, fromB)
	if a.Digest() != b.Digest() || a.Count() == 0 {
		t.Fatalf("boards differ after one comparison: %d and %d records", a.Count(), b.Count())
	}
	now.Boot += 3000
	exchange(t, now, []*Replica{a, b}, a, a.Step(now, Tick{}))
	if !a.synced {
		t.Error("a peer that lacks nothing does not know it")
	}
}

func TestRecordsThatBreakTheRulesAreRefusedAndCounted(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	a := newPeer(1, now)
	victim := newPeer(2, now)
	job := testJob("a")
	forge := func(change func(*wire.Record), body Body) wire.Opened {
		b, err := build.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		stamp := hlc.New(testWall)
		r := wire.Record{Type: body.recordType(), Key: body.recordKey(a.self, stamp), Order: body.recordOrder(a.self, stamp), Author: a.self, Stamp: uint64(stamp), Body: b}
		change(&r)
		o, err := wire.Seal(testKey(1), r)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	claim := Claim{Key: job.Key, Peer: a.self, Epoch: 1, Stamp: hlc.New(testWall), State: ClaimHeld}
	bad := []wire.Opened{
		forge(func(r *wire.Record) { r.Order = append(r.Order, 1) }, claim),
		forge(func(*wire.Record) {}, Claim{Key: job.Key, Peer: victim.self, Epoch: 1, Stamp: 1, State: ClaimHeld}),
		forge(func(r *wire.Record) { r.Key = "claim/" + string(testJob("b").Key) }, claim),
		forge(func(r *wire.Record) { r.Body = []byte{0xff} }, claim),
		forge(func(r *wire.Record) { r.Key = "holds/" + victim.self + "/00" }, Holdings{}),
		forge(func(r *wire.Record) { r.Type = "future"; r.Key = "claim/x" }, claim),
		forge(func(*wire.Record) {}, Claim{Key: job.Key, Peer: a.self, Epoch: 1, Stamp: hlc.New(testWall + 1), State: ClaimHeld}),
	}
	victim.Step(now, Received{a.self, bad})
	if victim.Count() != 0 || victim.Refused.Invalid != uint64(len(bad)) {
		t.Errorf("%d records kept, %d of %d counted as invalid", victim.Count(), victim.Refused.Invalid, len(bad))
	}
	future := forge(func(r *wire.Record) { r.Stamp = uint64(hlc.New(testWall + hlc.MaxAheadMillis + 1)) }, Directive{Verb: VerbPause, Scope: "all"})
	victim.Step(now, Received{a.self, []wire.Opened{future}})
	if victim.Count() != 0 || victim.Refused.Future != 1 {
		t.Errorf("a record of the far future was kept")
	}
}

func TestAClockBehindMostPeersIsSaidAndStopsClaims(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := synced(1, now)
	ahead := Now{Wall: testWall + 600_000, Boot: 1}
	var alarm string
	for n := 2; n <= 3; n++ {
		p := synced(n, ahead)
		p.nextBeat = 0
		for _, e := range p.Step(ahead, Tick{}) {
			if pub, ok := e.(Publish); ok {
				for _, e := range r.Step(now, Received{p.self, []wire.Opened{pub.Record}}) {
					if a, ok := e.(Alarm); ok {
						alarm = a.Code
					}
				}
			}
		}
	}
	if ok, why := r.MayClaim(); ok || alarm != "clock" {
		t.Errorf("MayClaim = %v (%s), alarm %q; want the clock named", ok, why, alarm)
	}
}

func TestAClonedIdentityStopsBuildingAndSaysHowToMend(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := synced(1, now)
	job := testJob("a")
	r.Step(now, Post{testRound(job)})
	r.Step(now, Take{job.Key})
	clone := NewReplica(Config{Key: testKey(1), Instance: 77, Rand: rand.New(rand.NewPCG(1, 1))}, nil, now)
	later := Now{Wall: testWall + 10, Boot: 10}
	var alarm string
	for _, e := range clone.Step(later, Report{Beat{Nick: "copy"}}) {
		if p, ok := e.(Publish); ok {
			for _, e := range r.Step(later, Received{"x", []wire.Opened{p.Record}}) {
				if a, ok := e.(Alarm); ok {
					alarm = a.Text
				}
			}
		}
	}
	if ok, _ := r.MayClaim(); ok || !bytes.Contains([]byte(alarm), []byte("swarm init --new-identity")) {
		t.Errorf("may still claim: %v; alarm %q", ok, alarm)
	}
	if _, held := r.Holder(job.Key, later); held || len(r.own) != 0 {
		t.Error("a job that it had claimed and not begun is kept from others")
	}
}

func TestAnEchoOfAnEarlierLifeIsNoClone(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	before := synced(1, now)
	before.nextBeat = 0
	var echo wire.Opened
	for _, e := range before.Step(now, Tick{}) {
		if p, ok := e.(Publish); ok {
			echo = p.Record
		}
	}
	restart := Now{Wall: testWall + 5000, Boot: 5000}
	again := NewReplica(Config{Key: testKey(1), Instance: 2, Rand: rand.New(rand.NewPCG(1, 1))}, nil, restart)
	again.synced = true
	again.Step(restart, Received{"x", []wire.Opened{echo}})
	if ok, why := again.MayClaim(); !ok {
		t.Errorf("a restarted peer may not claim: %s", why)
	}
}

func TestFailuresBlockAfterTwoDronesAndUnblockForgets(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	job := testJob("a")
	next := testJob("b", job.Key)
	a, b, c := synced(1, now), synced(2, now), synced(3, now)
	peers := []*Replica{a, b, c}
	for _, p := range peers {
		p.nextBeat = 0
		exchange(t, now, peers, p, p.Step(now, Tick{}))
	}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job, next)}))
	fail := func(r *Replica) {
		exchange(t, now, peers, r, r.Step(now, Take{job.Key}))
		exchange(t, now, peers, r, r.Step(now, Finished{build.Outcome{Key: job.Key, CPV: job.CPV, Class: build.BadPackage, Reason: "no", Started: uint64(hlc.New(now.Wall))}}))
	}
	fail(a)
	if s := c.Survey(now); s[0].State != JobReady {
		t.Fatalf("after one failure: %s", s[0].State)
	}
	fail(b)
	s := c.Survey(now)
	if s[0].State != JobBlocked || s[1].State != JobBlocked || s[1].Cause != job.Key {
		t.Fatalf("after two failures: %s, dependant %s by %s", s[0].State, s[1].State, s[1].Cause.Short())
	}
	now.Wall += 1000
	now.Boot += 1000
	exchange(t, now, peers, c, c.Step(now, Post{Directive{Verb: VerbUnblock, Scope: "all"}}))
	if s := a.Survey(now); s[0].State != JobReady || s[1].State != JobWaiting {
		t.Errorf("after unblock: %s, %s", s[0].State, s[1].State)
	}
}

func TestARestartedPeerContinuesAboveItsOwnStamps(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	a := synced(1, now)
	var journal []wire.Opened
	for range 3 {
		for _, e := range a.Step(now, Post{Directive{Verb: VerbPause, Scope: "all"}}) {
			if p, ok := e.(Persist); ok {
				journal = append(journal, p.Put...)
			}
		}
	}
	back := Now{Wall: testWall - 3_600_000, Boot: 1} // the clock was set back an hour
	again := NewReplica(Config{Key: testKey(1), Instance: 2, Rand: rand.New(rand.NewPCG(1, 1))}, journal, back)
	again.synced = true
	changed := false
	for _, e := range again.Step(back, Post{Directive{Verb: VerbPause, Scope: "all", Off: true}}) {
		if _, ok := e.(Publish); ok {
			changed = true
		}
	}
	if d, on := again.idx.order(VerbPause, "all"); on || !changed {
		t.Errorf("the newer word of a restored peer is mute: %+v", d)
	}
}

func FuzzDecodeSync(f *testing.F) {
	b, err := EncodeSync(SyncMessage{Sums: make([]uint64, Buckets)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa1, 0x61, 0x77, 0x81, 0x40})
	now := Now{Wall: testWall, Boot: 1}
	r := newPeer(1, now)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeSync(b); err == nil {
			r.Step(now, Synced{"x", m})
		}
	})
}

func FuzzValidate(f *testing.F) {
	for _, o := range someRecords(f, Now{Wall: testWall, Boot: 1}) {
		f.Add(o.Type(), o.Key(), []byte(o.Record().Order), o.Body())
	}
	id := wire.PeerID(testKey(1).Public().(ed25519.PublicKey))
	now := Now{Wall: testWall, Boot: 1}
	f.Fuzz(func(t *testing.T, typ, key string, order, body []byte) {
		o, err := wire.Seal(testKey(1), wire.Record{Type: typ, Key: key, Order: order, Author: id, Stamp: uint64(hlc.New(testWall)), Body: body})
		if err != nil {
			return
		}
		r := newPeer(2, now)
		r.Step(now, Received{"x", []wire.Opened{o}})
		r.Survey(now)
	})
}

func TestAPeerThatWaitsForAnAnswerSleepsMeanwhile(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	r := newPeer(1, now)
	r.Step(now, Connected{Peer: newPeer(2, now).self})
	steps := 0
	for end := now.Boot + 120_000; now.Boot < end; steps++ {
		next := r.NextWake(now)
		now.Wall, now.Boot = now.Wall+next-now.Boot, next
		r.Step(now, Tick{})
		if now.Boot > 60_000 && steps%2 == 0 {
			r.Step(now, Disconnected{Peer: newPeer(2, now).self})
		}
	}
	if steps > 120 {
		t.Errorf("%d wake-ups in two minutes with nobody answering", steps)
	}
}

func TestBuildsOfManyThatFallSilentTogetherAreLeftAlone(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1}
	job := testJob("x")
	for _, silent := range []int{1, 2} {
		me := synced(1, now)
		for n := 2; n <= 4; n++ {
			p := synced(n, now)
			at := now
			if n <= 1+silent {
				p.Step(at, Take{job.Key})
				p.Step(at, Progress{BeatJob{Key: job.Key, Compiling: true, InvestedMS: 40_000, LeftMS: 200_000}})
			}
			for _, e := range p.Step(Now{now.Wall + 6000, now.Boot + 6000}, Tick{}) {
				if pub, ok := e.(Publish); ok {
					me.Step(Now{now.Wall + 6000, now.Boot + 6000}, Received{p.self, []wire.Opened{pub.Record}})
				}
			}
			for _, rec := range p.Records() {
				me.Step(Now{now.Wall + 6000, now.Boot + 6000}, Received{p.self, []wire.Opened{rec}})
			}
			if n > 1+silent { // this one goes on speaking
				for at := now.Boot + 12_000; at < 120_000; at += 6000 {
					for _, e := range p.Step(Now{now.Wall + at, at}, Tick{}) {
						if pub, ok := e.(Publish); ok {
							me.Step(Now{now.Wall + at, at}, Received{p.self, []wire.Opened{pub.Record}})
						}
					}
				}
			}
		}
		_, held := me.Holder(job.Key, Now{now.Wall + 119_000, 119_000})
		if held != (silent == 2) {
			t.Errorf("with %d of 4 silent for two minutes the build is held: %v", silent, held)
		}
		// For as long as building it anew would take, and no longer.
		if _, held := me.Holder(job.Key, Now{now.Wall + 290_000, 290_000}); held {
			t.Errorf("with %d of 4 silent a build of four minutes is still held after five", silent)
		}
	}
}
