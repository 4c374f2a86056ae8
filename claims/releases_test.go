package claims

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims/wire"
)

func listed(n uint64, text string) release.Listing {
	return release.Listing{Target: "t", Release: cas.Sum([]byte(text)).String(), Number: n, Created: 1_800_000_000, Packages: 3, State: release.Kept}
}

func headOf(prev *release.Channel, text string) release.Channel {
	if prev == nil {
		prev = &release.Channel{Target: "t", Name: release.Stable}
	}
	return release.Next(prev, cas.Sum([]byte(text)).String(), time.UnixMilli(testWall))
}

func alarms(effects []Effect) string {
	var out []string
	for _, e := range effects {
		if a, ok := e.(Alarm); ok {
			out = append(out, a.Code+": "+a.Text)
		}
	}
	return strings.Join(out, "\n")
}

func TestListingsAndSubscriptionsReachEveryPeer(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1_000_000}
	a, b := synced(1, now), synced(2, now)
	peers := []*Replica{a, b}
	exchange(t, now, peers, a, a.Step(now, Post{NewListing(listed(1, "one"))}))
	exchange(t, now, peers, b, b.Step(now, Post{NewListing(listed(2, "two"))}))
	exchange(t, now, peers, a, a.Step(now, Post{NewSubscription(release.Subscription{Target: "t", Peer: a.Self(), Installed: cas.Sum(nil).String(), Packages: 7})}))
	held := release.NewHeldBack("t", 1, []release.HeldPackage{{CID: cas.Sum(nil).String(), CPV: build.CPV{Category: "x", Name: "a", Version: "1"}, Reason: "it fails", Installing: true}})
	exchange(t, now, peers, a, a.Step(now, Post{NewHeldBack(release.NewHeldBack("t", 1, nil))}))
	exchange(t, now, peers, b, b.Step(now, Post{NewHeldBack(held)}))
	for _, r := range peers {
		if got := r.HeldBack("t"); !got.Same(&held) {
			t.Errorf("held back: %+v", got)
		}
		if got := r.Releases("t"); len(got) != 2 || got[0].Number != 2 || got[0].Author != b.Self() {
			t.Errorf("releases: %+v", got)
		}
		if got := r.Subscriptions(""); len(got) != 1 || got[0].Packages != 7 {
			t.Errorf("subscriptions: %+v", got)
		} else if r.Subscribed(got[0]).Millis() != testWall || r.Subscribed(release.Subscription{Target: "t", Peer: b.Self()}) != 0 {
			t.Errorf("subscribed at %v, b at %v", r.Subscribed(got[0]), r.Subscribed(release.Subscription{Target: "t", Peer: b.Self()}))
		}
	}
	// Nobody speaks for another machine.
	effects := b.Step(now, Post{NewSubscription(release.Subscription{Target: "t", Peer: a.Self(), Gone: true})})
	if !strings.Contains(alarms(effects), ErrAuthor.Error()) {
		t.Errorf("b took a's subscription away: %v", effects)
	}
}

// Two people finalize at once, or on both sides of a broken network.
func TestTwoHeadsAtOnceEndInOneStateAndAnAlarm(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1_000_000}
	for name, more := range map[string]int{"at once": 0, "and one side went on": 1} {
		t.Run(name, func(t *testing.T) {
			a, b := synced(1, now), synced(2, now)
			peers := []*Replica{a, b}
			first := headOf(nil, "base")
			exchange(t, now, peers, a, a.Step(now, Post{NewChannel(first)}))
			if b.Channel("t", release.Stable) == nil {
				t.Fatal("the first head did not arrive")
			}
			// Apart.
			ha, hb := headOf(&first, "a's"), headOf(&first, "b's")
			ea := a.Step(now, Post{NewChannel(ha)})
			eb := b.Step(now, Post{NewChannel(hb)})
			for i := range more {
				hb = headOf(&hb, fmt.Sprint("b's next ", i))
				eb = b.Step(now, Post{NewChannel(hb)})
			}
			// Together again.
			told := ""
			deliver := func(to *Replica, effects []Effect) {
				for _, e := range effects {
					if p, ok := e.(Publish); ok && p.Record.Type() == TypeChannel {
						told += alarms(to.Step(now, Received{Records: []wire.Opened{p.Record}}))
					}
				}
			}
			deliver(b, ea)
			deliver(a, eb)
			if ca, cb := a.Channel("t", release.Stable), b.Channel("t", release.Stable); *ca != *cb || ca.Compare(ha) < 0 || ca.Compare(hb) < 0 {
				t.Errorf("they show %+v and %+v", ca, cb)
			}
			if !strings.Contains(told, "channel: version ") || !strings.Contains(told, " was made ") {
				t.Errorf("nobody is told: %q", told)
			}
			// Each peer finds both on the board, until one of them is pruned.
			for _, r := range peers {
				r.Step(now, Post{NewListing(listed(2, "a's"))})
				r.Step(now, Post{NewListing(listed(2, "b's"))})
				if c := Contested(r.Releases("")); len(c) != 2 {
					t.Errorf("contested: %+v", c)
				}
				gone := listed(2, "a's")
				gone.State = release.Pruned
				r.Step(Now{Wall: testWall + 1000, Boot: now.Boot + 1000}, Post{NewListing(gone)})
				if c := Contested(r.Releases("")); len(c) != 0 {
					t.Errorf("contested still: %+v", c)
				}
			}
		})
	}
}

func TestAHeadThatFollowsIsNoAlarm(t *testing.T) {
	now := Now{Wall: testWall, Boot: 1_000_000}
	a := synced(1, now)
	one := headOf(nil, "one")
	two := headOf(&one, "two")
	back := release.Next(&two, one.Release, time.UnixMilli(testWall)) // a rollback
	for _, h := range []release.Channel{one, two, back} {
		if told := alarms(a.Step(now, Post{NewChannel(h)})); told != "" {
			t.Errorf("version %d: %s", h.Version, told)
		}
	}
}
