package claims

import (
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
)

func TestAPeerThatTakesNoCopyKeepsNothingFromBeingSafe(t *testing.T) {
	const room = 1 << 40
	for name, c := range map[string]struct {
		third  Beat
		wanted int // copies
		also   bool
	}{
		"with room":                         {Beat{Stores: true, StoreFree: room}, 3, false},
		"its link costs":                    {Beat{Stores: true, StoreFree: room, Metered: true}, 2, false},
		"full":                              {Beat{Stores: true, StoreFree: StoreHeadroom}, 2, false},
		"it stores nothing":                 {Beat{StoreFree: room}, 2, false},
		"full, and it has the blob already": {Beat{Stores: true, StoreFree: StoreHeadroom}, 3, true},
	} {
		now := Now{Wall: testWall, Boot: 1000}
		job := testJob("a")
		a, b, third := synced(1, now), synced(2, now), synced(3, now)
		peers := []*Replica{a, b, third}
		c.third.Nick, c.third.Slots, c.third.Accepting, c.third.Builders = "third", 1, true, []build.Builder{build.BuilderSample}
		exchange(t, now, peers, third, third.Step(now, Report{c.third}))
		now.Wall, now.Boot = now.Wall+2*BeatMillis, now.Boot+2*BeatMillis
		for _, p := range peers {
			exchange(t, now, peers, p, p.Step(now, Tick{}))
		}
		exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
		exchange(t, now, peers, a, a.Step(now, Finished{Outcome: good(job, "blob")}))
		d, err := cas.Digest(cas.Sum([]byte("blob")))
		if err != nil {
			t.Fatal(err)
		}
		has := func(p *Replica) {
			exchange(t, now, peers, p, p.Step(now, Post{Holdings{Shard: int(d[0]) % HoldShards, CIDs: [][]byte{d[:]}}}))
		}
		look := func() JobInfo {
			t.Helper()
			for _, i := range a.SurveyRound("r1", now) {
				return i
			}
			t.Fatal("no job")
			return JobInfo{}
		}
		has(a)
		if c.also {
			has(third)
		}
		if i := look(); i.State != JobAvailable || i.Wanted != c.wanted {
			t.Errorf("%s: %s with %d copies of %d, want %d", name, i.State, i.Copies, i.Wanted, c.wanted)
		}
		if alone := (&c.third).Takes(4, 1); alone != (c.third.Stores && c.third.StoreFree == room) {
			t.Errorf("%s: it takes what is on one peer alone: %v", name, alone)
		}
		has(b)
		if i := look(); (i.State == JobSafe) != (i.Copies >= c.wanted) {
			t.Errorf("%s: %s with %d copies of %d", name, i.State, i.Copies, i.Wanted)
		}
	}
}

func TestWhatOnePeerHasWaitsForTheOneWhoseLinkCosts(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1000}
	job := testJob("a")
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, b, b.Step(now, Report{Beat{Nick: "b", Stores: true, StoreFree: 1 << 40, Metered: true}}))
	now.Wall, now.Boot = now.Wall+2*BeatMillis, now.Boot+2*BeatMillis
	for _, p := range peers {
		exchange(t, now, peers, p, p.Step(now, Tick{}))
	}
	exchange(t, now, peers, a, a.Step(now, Post{testRound(job)}))
	exchange(t, now, peers, a, a.Step(now, Finished{Outcome: good(job, "blob")}))
	d, err := cas.Digest(cas.Sum([]byte("blob")))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range peers {
		exchange(t, now, peers, p, p.Step(now, Post{Holdings{Shard: int(d[0]) % HoldShards, CIDs: [][]byte{d[:]}}}))
		for _, info := range a.SurveyRound("r1", now) {
			if info.Copies != i+1 || info.Wanted != 2 || (info.State == JobSafe) != (i == 1) {
				t.Errorf("%s with %d of %d copies", info.State, info.Copies, info.Wanted)
			}
		}
	}
}
