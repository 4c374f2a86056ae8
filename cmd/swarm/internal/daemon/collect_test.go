package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

func TestMentionsFindsNamesInAnything(t *testing.T) {
	a, b := cas.Sum([]byte("a")), cas.Sum([]byte("b"))
	text := "bafkr4i" + a.String() + "\x00" + a.String()[:30] + b.String() + "bafkr4ibut-too-short"
	var got []cid.Cid
	mentions([]byte(text), func(c cid.Cid) { got = append(got, c) })
	if len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("found %v, want %v", got, []cid.Cid{a, b})
	}
}

// A blob goes a day after the last reference to it: not while it is pinned, or
// named by a channel's release, or by a record that this version cannot read.
func TestOnlyWhatNothingRefersToForADayIsDropped(t *testing.T) {
	dir := t.TempDir()
	p := agenttest.Start(t, t.TempDir())
	put := func(data string) cid.Cid {
		t.Helper()
		info, err := p.Store.Put(t.Context(), bytes.NewReader([]byte(data)), cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		return info.CID
	}
	now := time.Now()
	holdings := NewHoldings(p.Board, p.Store)
	host := p2ptest.NewNet(1).Host("me")
	newCollector := func() *Collector {
		c := &Collector{Board: p.Board, Net: host, Store: p.Store, Holdings: holdings, Log: p.Log, File: filepath.Join(dir, "garbage.json"),
			Fetch: Fetch(p.Board, p.Store, nil)}
		c.now = func() time.Time { return now }
		c.wait = func(_ context.Context, d time.Duration) error { now = now.Add(d); return nil }
		c.Serve()
		now = now.Add(replication.PromiseFor)
		return c
	}
	garbage, pinned, inside := put("garbage"), put("pinned"), put("inside a release")
	shown := put("a release that names " + inside.String())
	for i := range p.Store.All() {
		if err := holdings.Announce(t.Context(), i.CID); err != nil {
			t.Fatal(err)
		}
	}
	pin := func(off bool) {
		p.Do(func(*claims.Replica, claims.Now) []claims.Event {
			return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: pinned.String(), Off: off}}}
		})
	}
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	pin(false)
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		head := release.Next(&release.Channel{Target: "desktop", Name: release.Stable}, shown.String(), now)
		return []claims.Event{claims.Post{Body: claims.NewChannel(head)}}
	})
	held := func(c cid.Cid) bool {
		_, err := p.Store.Stat(c)
		onBoard := false
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			onBoard = len(r.Holders(c.String(), true, now)) == 1
			return nil
		})
		if onBoard != (err == nil) {
			t.Errorf("%s: stored: %v, on the board: %v", c, err == nil, onBoard)
		}
		return onBoard
	}
	collect := func(c *Collector, when string, want ...cid.Cid) {
		t.Helper()
		if _, err := c.Collect(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		left := map[cid.Cid]bool{}
		for _, x := range want {
			left[x] = true
		}
		for _, x := range []cid.Cid{garbage, pinned, inside, shown} {
			if held(x) != left[x] {
				t.Errorf("%s: %s is held: %v", when, x, !left[x])
			}
		}
	}
	c := newCollector()
	collect(c, "at once", garbage, pinned, inside, shown)
	now = now.Add(23 * time.Hour)
	c = newCollector() // a restart does not count the day anew
	collect(c, "after 23 hours", garbage, pinned, inside, shown)
	if _, copied := c.Sort([32]byte(digest(t, garbage))); copied {
		t.Error("garbage is copied between peers")
	}
	now = now.Add(time.Hour)
	if r, err := c.Collect(t.Context(), true); err != nil || len(r.Garbage) != 1 || !r.Garbage[0].Due || r.Kept != 3 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	collect(c, "after a day", pinned, inside, shown)
	pin(true)
	collect(c, "unpinned", pinned, inside, shown)
	now = now.Add(25 * time.Hour)
	collect(c, "a day after", inside, shown)
}

func digest(t *testing.T, c cid.Cid) [32]byte {
	t.Helper()
	d, err := cas.Digest(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Without the release that a channel shows nobody knows what it keeps.
func TestNothingIsGarbageWhileAReleaseCannotBeRead(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		elsewhere := cas.Sum([]byte("elsewhere"))
		head := release.Next(&release.Channel{Target: "desktop", Name: release.Stable}, elsewhere.String(), time.Now())
		return []claims.Event{claims.Post{Body: claims.NewChannel(head)}}
	})
	// Nobody has it: then it keeps nothing from being garbage for ever.
	if _, err := FindRoots(t.Context(), p.Board, p.Store, Fetch(p.Board, p.Store, nil)); err != nil {
		t.Error(err)
	}
	if err := NewHoldings(p.Board, p.Store).Announce(t.Context(), cas.Sum([]byte("elsewhere"))); err != nil {
		t.Fatal(err)
	}
	cut := func(context.Context, cid.Cid, []string) error { return errors.New("cut off") }
	if roots, err := FindRoots(t.Context(), p.Board, p.Store, Fetch(p.Board, p.Store, cut)); err == nil {
		t.Errorf("roots are %v", roots)
	}
}

// A target's base is named by the hex of its manifest's digest, and the manifest
// names the layers.
func TestATargetKeepsItsBase(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	layer := cas.Sum([]byte("a layer"))
	manifest, err := p.Store.Put(t.Context(), bytes.NewReader([]byte("layers: "+layer.String())), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	d := digest(t, manifest.CID)
	bundle := cas.Sum([]byte("a bundle"))
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewTarget(build.Target{Name: "desktop", Version: 1, State: build.TargetLive, Arch: "amd64",
			Bundle: bundle.String(), Base: build.BaseRef{Name: "stage3", Digest: hex.EncodeToString(d[:])}})}}
	})
	roots, err := FindRoots(t.Context(), p.Board, p.Store, Fetch(p.Board, p.Store, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cid.Cid{manifest.CID, layer, bundle} {
		if _, kept := roots[digest(t, c)]; !kept {
			t.Errorf("%s is not kept: %v", c, roots)
		}
	}
}

func TestOpenAndNewestRoundsKeepWhatTheyWanted(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	built := map[string]cid.Cid{}
	for n, round := range []struct {
		id    string
		state build.RoundState
	}{{"old", build.RoundClosed}, {"open", build.RoundOpen}, {"newest", build.RoundClosed}} {
		plan := &build.Plan{Target: "default", Jobs: []build.Job{agenttest.Job(t, "pkg-"+round.id)}}
		info, err := p.Store.Put(t.Context(), bytes.NewReader([]byte(round.id)), cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		built[round.id] = info.CID
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			rd := build.Round{ID: round.id, Target: "default", Priority: build.Normal, Requester: p.Self, State: round.state, Counter: 1, Created: uint64(n + 1), Jobs: 1, Plan: plan}
			out := build.Outcome{Key: plan.Jobs[0].Key, CPV: plan.Jobs[0].CPV, Class: build.Good, Epoch: 1, Artifact: &build.Artifact{CID: info.CID.String(), Size: info.Size}}
			return []claims.Event{claims.Post{Body: claims.NewRound(rd)}, claims.Post{Body: claims.NewOutcome(out)}}
		})
	}
	roots, err := FindRoots(t.Context(), p.Board, p.Store, Fetch(p.Board, p.Store, nil))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"old": false, "open": true, "newest": true} {
		r, got := roots[digest(t, built[id])]
		if got != want || got && r.Class != replication.Wanted {
			t.Errorf("what round %s wanted is kept: %v (%+v)", id, got, r)
		}
	}
}

// What a holder answers is what it holds, keeps and knows to be referred to.
func TestHoldersAreAskedOverAStream(t *testing.T) {
	a, b := agenttest.Start(t, t.TempDir()), agenttest.Start(t, t.TempDir())
	b.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	net := p2ptest.NewNet(1)
	collector := func(p *agenttest.Peer, name string) *Collector {
		c := &Collector{Board: p.Board, Net: net.Host(name), Store: p.Store, Holdings: NewHoldings(p.Board, p.Store), Log: p.Log,
			File: filepath.Join(t.TempDir(), "garbage.json"), Fetch: Fetch(p.Board, p.Store, nil)}
		c.Serve()
		return c
	}
	asker, holder := collector(a, "a"), collector(b, "b")
	drop := func(data string, why replication.Reason, there bool) replication.Drop {
		t.Helper()
		d := replication.Drop{Info: cas.Info{CID: cas.Sum([]byte(data))}, Reason: why, Others: []string{"b", "nobody"}}
		if there {
			if _, err := b.Store.Put(t.Context(), bytes.NewReader([]byte(data)), d.CID); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	pinned := drop("pinned", replication.Garbage, true)
	b.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: pinned.CID.String()}}}
	})
	intended := drop("intended", replication.Surplus, true)
	holder.ledger = replication.NewLedger(time.Now().Add(-time.Hour))
	if !holder.ledger.Intend(time.Now(), intended.CID, replication.Surplus) {
		t.Fatal("the holder may not drop")
	}
	for _, x := range []struct {
		drop replication.Drop
		want replication.Answer
	}{
		{drop("garbage", replication.Garbage, true), replication.Agreed},
		{pinned, replication.Referenced},
		{drop("surplus", replication.Surplus, true), replication.Kept},
		{intended, replication.Dropping},
		{drop("not there", replication.Surplus, false), replication.NotHeld},
	} {
		got := asker.ask(t.Context(), []replication.Drop{x.drop})[x.drop.CID]
		slices.Sort(got)
		if want := []replication.Answer{replication.Silent, x.want}; !slices.Equal(got, want) {
			t.Errorf("%s: answers %v, want %v", x.drop.CID, got, want)
		}
	}
	if holder.ledger.Intend(time.Now(), cas.Sum([]byte("surplus")), replication.Surplus) {
		t.Error("the holder drops what it promised to keep")
	}
	if _, err := holder.answer(t.Context(), "a", []byte("not a question")); err == nil {
		t.Error("nonsense is answered")
	}
}

func TestSourcesAreKeptAsLongAsSomethingIsBuiltOfThem(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	kept, old := cas.Sum([]byte("source")), cas.Sum([]byte("old source"))
	src := func(name string) build.Source {
		return build.Source{Name: name, Size: 6, Hash: "SHA256:" + strings.Repeat("0", 64)}
	}
	c := &Collector{Board: p.Board, Store: p.Store, Log: p.Log, Fetch: Fetch(p.Board, p.Store, nil), now: time.Now, Source: func(s build.Source) (cid.Cid, bool) {
		x, ok := map[string]cid.Cid{"a.tar": kept, "old.tar": old}[s.Name]
		return x, ok
	}}
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	job := agenttest.Job(t, "app")
	job.Sources = []build.Source{src("a.tar"), src("unknown.tar")}
	p.Ask(job)
	keeps := func(x cid.Cid) bool {
		t.Helper()
		roots, err := c.mark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, err := cas.Digest(x)
		if err != nil {
			t.Fatal(err)
		}
		_, ok := roots[d]
		return ok
	}
	if !keeps(kept) || keeps(old) {
		t.Errorf("kept: the source of a job %t, another %t", keeps(kept), keeps(old))
	}
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbCancel, Scope: "r1"}}}
	})
	if keeps(kept) {
		t.Error("it is kept though nobody asks for the job any more")
	}
}
