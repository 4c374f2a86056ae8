package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// version makes a job of a package in some version.
func version(t *testing.T, cpv string, needs ...build.Job) build.Job {
	t.Helper()
	c, err := build.ParseCPV(cpv)
	if err != nil {
		t.Fatal(err)
	}
	j := agenttest.Job(t, cpv, needs...)
	j.CPV = c
	return j
}

// ask posts a round that a person releases.
func ask(p *agenttest.Peer, id string, jobs ...build.Job) {
	p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewRound(build.Round{ID: id, Target: "t", Priority: build.Normal, Requester: p.Self, State: build.RoundOpen,
			Counter: 1, Created: uint64(r.Stamp(now)), Jobs: len(jobs), Manual: true, Plan: &build.Plan{Target: "t", Jobs: jobs}})}}
	})
}

func finalize(t *testing.T, pub *Publisher, without ...string) *Released {
	t.Helper()
	req := Request{Target: "t"}
	for _, w := range without {
		a, err := build.ParseAtom(w)
		if err != nil {
			t.Fatal(err)
		}
		req.Without = append(req.Without, a)
	}
	out, err := pub.Finalize(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func heldBack(hs []Held) string {
	var out []string
	for _, h := range hs {
		out = append(out, h.CPV.String()+": "+h.Reason)
	}
	return strings.Join(out, "\n")
}

func state(t *testing.T, p *agenttest.Peer, id string) build.RoundState {
	t.Helper()
	var s build.RoundState
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		rd, _, _ := r.Round(id)
		s = rd.State
		return nil
	})
	return s
}

func TestARoundForAPersonIsReleasedByThatPersonAlone(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	a, b := version(t, "x/a-1"), version(t, "x/b-1")
	ask(p, "r1", a, b)
	pub := run(t, p)
	built(t, p, a)
	if due, err := pub.due(t.Context()); err != nil || len(due) != 0 {
		t.Fatalf("due: %v, %v", due, err)
	}
	s, err := pub.Stage(t.Context(), Request{Target: "t"})
	if err != nil || len(s.Manifest.Entries) != 1 || heldBack(s.Held) != "x/b-1: is not built yet" {
		t.Fatalf("staged %d, held back %q: %v", len(s.Manifest.Entries), heldBack(s.Held), err)
	}
	out := finalize(t, pub)
	if names(&out.Manifest) != "a" || out.Shown.Version != 1 || out.Listing.New != 1 {
		t.Errorf("released %q as %+v", names(&out.Manifest), out.Listing)
	}
	if state(t, p, "r1") != build.RoundOpen {
		t.Error("the round is closed with a package missing")
	}
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); !errors.Is(err, ErrNothing) {
		t.Errorf("again: %v", err)
	}
	failed(p, b)
	s, err = pub.Stage(t.Context(), Request{Target: "t"})
	if err != nil || !strings.Contains(heldBack(s.Held), "x/b-1: does not build: no") {
		t.Errorf("held back %q: %v", heldBack(s.Held), err)
	}
	built(t, p, b)
	finalize(t, pub)
	if state(t, p, "r1") != build.RoundClosed {
		t.Error("the round stays open though all of it is released")
	}
}

func TestAChannelIsMovedWhenASecondPeerHasTheRelease(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	a := version(t, "x/a-1")
	ask(p, "r1", a)
	built(t, p, a)
	var copied string
	pub.Replicate = func(ctx context.Context, c cid.Cid, copies int) error {
		p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
			if r.Channel("t", release.Stable) != nil || copies != 2 {
				t.Errorf("%d copies, and the channel shows %v", copies, r.Channel("t", release.Stable))
			}
			return nil
		})
		copied = c.String()
		return nil
	}
	if out := finalize(t, pub); out.Shown.Release != copied {
		t.Errorf("copied %q, shown %q", copied, out.Shown.Release)
	}
}

func TestRollbackShowsTheOlderReleaseUnderANewHead(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	lib1, lib2, tool := version(t, "x/lib-1"), version(t, "x/lib-2"), version(t, "x/tool-1")
	ask(p, "r1", lib1)
	built(t, p, lib1)
	one := finalize(t, pub)
	ask(p, "r2", lib2, tool)
	built(t, p, lib2)
	built(t, p, tool)
	two := finalize(t, pub)

	back, err := pub.Rollback(t.Context(), "t", "", true)
	if err != nil || back.To.Number != 1 || back.From.Number != 2 || !slices.Equal(back.Downs, []Down{{"x/lib", "0", "2", "1"}, {"x/tool", "0", "1", ""}}) {
		t.Fatalf("a dry run says %+v: %v", back, err)
	}
	if back, err = pub.Rollback(t.Context(), "t", "", false); err != nil {
		t.Fatal(err)
	}
	if back.Shown.Release != one.Shown.Release || back.Shown.Version != 3 || back.Shown.Timestamp < two.Shown.Timestamp+release.Step || back.Shown.Previous != two.Shown.Release {
		t.Errorf("the head is %+v", back.Shown)
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if !r.RolledBack("t") {
			t.Error("nobody sees that it was rolled back")
		}
		return nil
	})
	if _, err := pub.Rollback(t.Context(), "t", "", true); !errors.Is(err, ErrUnknown) {
		t.Errorf("there is nothing before the first release, and it says %v", err)
	}
	if _, err := pub.Rollback(t.Context(), "t", "1", true); !errors.Is(err, ErrNothing) {
		t.Errorf("it is shown already, and it says %v", err)
	}
	// And forward again, by name.
	if back, err = pub.Rollback(t.Context(), "t", Short(two.Shown.Release), false); err != nil || len(back.Downs) != 0 || back.Shown.Version != 4 {
		t.Errorf("forward: %+v, %v", back, err)
	}
}

func TestAfterARollbackNothingIsReleasedByItself(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := run(t, p)
	one, two := version(t, "x/a-1"), version(t, "x/a-2")
	ask(p, "m1", one)
	built(t, p, one)
	finalize(t, pub)
	ask(p, "m2", two)
	built(t, p, two)
	finalize(t, pub)
	if _, err := pub.Rollback(t.Context(), "t", "1", false); err != nil {
		t.Fatal(err)
	}
	other := version(t, "x/b-1")
	p.Ask(other) // r1: by itself
	built(t, p, other)
	if due, err := pub.due(t.Context()); err != nil || len(due) != 0 {
		t.Errorf("due: %v, %v", due, err)
	}
	out := finalize(t, pub)
	if names(&out.Manifest) != "a b" || out.Manifest.Entries[0].CPV.Version != "1" {
		t.Errorf("released %q: what was rolled back is back", names(&out.Manifest))
	}
}

func TestGlibcIsNeverDowngraded(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	old, young := version(t, "sys-libs/glibc-2.40"), version(t, "sys-libs/glibc-2.41-r1")
	ask(p, "r1", old)
	built(t, p, old)
	finalize(t, pub)
	ask(p, "r2", young)
	built(t, p, young)
	finalize(t, pub)
	_, err := pub.Rollback(t.Context(), "t", "1", false)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "sys-libs/glibc would go from 2.41-r1 to 2.40") {
		t.Errorf("got %v", err)
	}
}

// Both machines that had what is shown are gone, and with them its list.
func TestAChannelWhoseReleaseIsNowhereCanBeRolledBack(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	old := version(t, "sys-libs/glibc-2.40")
	ask(p, "r1", old)
	built(t, p, old)
	finalize(t, pub)
	tool := version(t, "x/tool-1")
	ask(p, "r2", tool)
	built(t, p, tool)
	lost, err := cas.Parse(finalize(t, pub).Shown.Release)
	if err != nil {
		t.Fatal(err)
	}
	d, err := cas.Digest(lost)
	if err != nil {
		t.Fatal(err)
	}
	pub.Fetch = func(ctx context.Context, c cid.Cid) error {
		if c == lost {
			return errors.New("no holder delivers the blob")
		}
		return p.NoPeers(ctx, c)
	}
	if _, err := pub.Rollback(t.Context(), "t", "1", false); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("a peer has it and does not answer: %v", err)
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		shard := claims.Holdings{Shard: int(d[0]) % claims.HoldShards}
		for other := range r.Blobs() {
			if int(other[0])%claims.HoldShards == shard.Shard && other != d {
				shard.CIDs = append(shard.CIDs, other[:])
			}
		}
		slices.SortFunc(shard.CIDs, bytes.Compare)
		return []claims.Event{claims.Post{Body: shard}}
	})
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); err == nil || !strings.Contains(err.Error(), "swarm rollback") {
		t.Errorf("finalize: %v", err)
	}
	// glibc does not go down all the same.
	set := release.Installed{Target: "t", Packages: []release.InstalledPackage{{CPV: build.CPV{Category: "sys-libs", Name: "glibc", Version: "2.41"}, Slot: "2.2"}}}
	if err := Subscribe(t.Context(), p.Board, p.Store, p.Announce, &set); err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Rollback(t.Context(), "t", "1", false); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "glibc") {
		t.Errorf("back before what a consumer has: %v", err)
	}
	if err := Unsubscribe(t.Context(), p.Board, "t"); err != nil {
		t.Fatal(err)
	}
	back, err := pub.Rollback(t.Context(), "t", "1", false)
	if err != nil || !back.Unread || back.To.Number != 1 {
		t.Errorf("back: %+v, %v", back, err)
	}
}

func TestWhatAPersonKeepsOutStaysOut(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	lib := version(t, "x/lib-1")
	app := version(t, "x/app-1", lib)
	more := version(t, "x/more-1")
	ask(p, "r1", lib, app, more)
	for _, j := range []build.Job{lib, app, more} {
		built(t, p, j)
	}
	out := finalize(t, pub, "x/lib")
	if names(&out.Manifest) != "more" || heldBack(out.Held) != "x/app-1: needs x/lib-1, which is not in the release\nx/lib-1: kept out on request" {
		t.Errorf("released %q, held back:\n%s", names(&out.Manifest), heldBack(out.Held))
	}
}

func TestWhatIsTakenOutOfTheShownReleaseIsNamed(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	lib := version(t, "x/lib-1")
	app := version(t, "x/app-1", lib)
	ask(p, "r1", lib, app)
	built(t, p, lib)
	built(t, p, app)
	finalize(t, pub)
	s, err := pub.Stage(t.Context(), Request{Target: "t", Without: []build.Atom{{Category: "x", Name: "lib"}}})
	if err != nil || heldBack(s.Held) != "x/app-1: needs x/lib-1, which is not in the release" {
		t.Errorf("held back %q, %v", heldBack(s.Held), err)
	}
}

func TestPackagesThatAreNotWhatTheirBuilderSaysAreRefused(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	j := version(t, "x/a-1")
	ask(p, "r1", j)
	damaged(t, p, j)
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "x/a-1: its MD5") {
		t.Errorf("got %v", err)
	}
}

func TestSeedsAreInNoRelease(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	lent := version(t, "x/lent-1")
	info, err := p.Store.Put(t.Context(), strings.NewReader("package "+lent.CPV.String()), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	app := version(t, "x/app-1")
	app.Root = build.NewRoot(build.RootEntry{CPV: lent.CPV, Slot: "0", Seed: info.CID.String()})
	ask(p, "r1", lent, app)
	built(t, p, lent) // its bytes are the seed's: somebody reports what was lent as built
	built(t, p, app)
	boot := version(t, "x/boot-1")
	boot.Seed = true // built with other flags, to break a cycle
	ask(p, "r2", boot)
	built(t, p, boot)
	out := finalize(t, pub)
	if names(&out.Manifest) != "app" || !strings.Contains(heldBack(out.Held), "(a seed)") || strings.Contains(heldBack(out.Held), "boot") {
		t.Errorf("released %q, held back %q", names(&out.Manifest), heldBack(out.Held))
	}
}

func TestAConsumersInstalledSetHoldsALibraryBack(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	set := release.Installed{Target: "t", Packages: []release.InstalledPackage{
		{CPV: build.CPV{Category: "x", Name: "app", Version: "1"}, Slot: "0", Meta: []build.Pair{{Name: "RDEPEND", Value: "x/lib:0/1="}}},
		{CPV: build.CPV{Category: "x", Name: "lib", Version: "1"}, Slot: "0/1"},
	}}
	if err := Subscribe(t.Context(), p.Board, p.Store, p.Announce, &set); err != nil {
		t.Fatal(err)
	}
	lib := version(t, "x/lib-2")
	lib.Slot = "0/2"
	ask(p, "r1", lib)
	builtAs(t, p, lib, build.Pair{Name: "SLOT", Value: "0/2"})
	_, err := pub.Finalize(t.Context(), Request{Target: "t"})
	s, serr := pub.Stage(t.Context(), Request{Target: "t"})
	if !errors.Is(err, ErrNothing) || serr != nil || heldBack(s.Held) != "x/lib-2: x/app-1, installed on me, was built against x/lib:0/1 and its rebuild is not in the release" {
		t.Fatalf("%v; held back %q, %v", err, heldBack(s.Held), serr)
	}
	app := version(t, "x/app-1", lib)
	ask(p, "r2", lib, app)
	builtAs(t, p, app, build.Pair{Name: "RDEPEND", Value: "x/lib:0/2="}, build.Pair{Name: "SLOT", Value: "0"})
	if out := finalize(t, pub); names(&out.Manifest) != "app lib" {
		t.Errorf("released %q", names(&out.Manifest))
	}
	if err := Unsubscribe(t.Context(), p.Board, "t"); err != nil {
		t.Fatal(err)
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if s := r.Subscriptions("t"); len(s) != 0 {
			t.Errorf("still subscribed: %+v", s)
		}
		return nil
	})
}

func TestTwoReleasesOfOneNumberAreFoundAndTakenIn(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	a, b := version(t, "x/a-1"), version(t, "x/b-1")
	ask(p, "r1", a)
	built(t, p, a)
	one := finalize(t, pub)
	// What the other side of a broken network made meanwhile.
	ask(p, "r2", b)
	built(t, p, b)
	s, err := pub.Stage(t.Context(), Request{Target: "t"})
	if err != nil {
		t.Fatal(err)
	}
	theirs := release.Manifest{Target: "t"}
	for _, e := range s.Manifest.Entries {
		if e.CPV.Name == "b" {
			theirs.Entries = append(theirs.Entries, e)
		}
	}
	enc, err := theirs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	info, err := p.Store.Put(t.Context(), strings.NewReader(string(enc)), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		rd, _, _ := r.Round("r2")
		rd.State, rd.Counter = build.RoundClosed, rd.Counter+1 // they closed it
		l := one.Listing
		l.Release = info.CID.String()
		return []claims.Event{claims.Post{Body: claims.NewRound(rd)}, claims.Post{Body: claims.NewListing(l)}}
	})
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if c := claims.Contested(r.Releases("t")); len(c) != 2 {
			t.Errorf("contested: %+v", c)
		}
		if _, err := Find(r.Releases("t"), r.Channel("t", release.Stable), "1"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "names several") {
			t.Errorf("1 names two releases, and Find says %v", err)
		}
		return nil
	})
	if out := finalize(t, pub); names(&out.Manifest) != "a b" {
		t.Errorf("released %q, held %q", names(&out.Manifest), heldBack(out.Held))
	}
}

func TestOldReleasesArePrunedAndPinsStay(t *testing.T) {
	t.Parallel()
	head := release.Channel{Target: "t", Name: release.Stable, Release: "r20", Previous: "r19"}
	var all []claims.Listed
	for n := 20; n >= 1; n-- {
		all = append(all, claims.Listed{Listing: release.Listing{Target: "t", Release: fmt.Sprint("r", n), Number: uint64(n), State: release.Kept, Pin: n == 3}})
	}
	gone := len(aged(all, head))
	if want := 20 - 2 - 1 - KeepReleases; gone != want {
		t.Errorf("%d are pruned, want %d", gone, want)
	}
}

func TestAPrunedReleaseIsNotGoneBackTo(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	for i, v := range []string{"x/a-1", "x/a-2"} {
		j := version(t, v)
		ask(p, fmt.Sprint("r", i), j)
		built(t, p, j)
		finalize(t, pub)
	}
	if _, err := pub.Mark(t.Context(), "t", "2", false, true); !errors.Is(err, ErrRefused) {
		t.Errorf("what is shown is pruned: %v", err)
	}
	if l, err := pub.Mark(t.Context(), "t", "1", true, false); err != nil || !l.Pin {
		t.Errorf("pin: %+v, %v", l, err)
	}
	if _, err := pub.Mark(t.Context(), "t", "1", false, true); err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Rollback(t.Context(), "t", "1", false); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "pruned") {
		t.Errorf("got %v", err)
	}
	if _, err := pub.Rollback(t.Context(), "t", "", false); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}
