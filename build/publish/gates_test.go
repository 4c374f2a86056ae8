package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// drone makes install tests: packages of these names fail, and why.
type drone struct {
	p       *agenttest.Peer
	fails   map[string]string
	answer  *Installed // instead of all that
	asked   []string   // what was new, each time
	present bool
}

func (d *drone) install(ctx context.Context, _, manifest, before string) (Installed, error) {
	m, err := LoadManifest(ctx, d.p.Store, d.p.NoPeers, manifest)
	if err != nil {
		return Installed{}, err
	}
	var old *release.Manifest
	if before != "" {
		if old, err = LoadManifest(ctx, d.p.Store, d.p.NoPeers, before); err != nil {
			return Installed{}, err
		}
	}
	out := Installed{Peer: "beta"}
	var fresh []string
	for _, c := range release.Diff(old, m) {
		if c.New == nil {
			continue
		}
		fresh = append(fresh, c.New.CPV.Name)
		if why := d.fails[c.New.CPV.Name]; why != "" {
			out.Failed = append(out.Failed, Tried{c.New.Key, c.New.CPV, why})
		} else {
			out.Packages++
		}
	}
	d.asked = append(d.asked, strings.Join(fresh, " "))
	switch {
	case d.answer != nil:
		return *d.answer, nil
	case !d.present:
		return Installed{Why: "there is no other drone for it"}, nil
	}
	return out, nil
}

func tested(p *agenttest.Peer) (*Publisher, *drone) {
	pub, d := publisher(p), &drone{p: p, fails: map[string]string{}, present: true}
	pub.Install = d.install
	return pub, d
}

func TestWhatCannotBeInstalledIsHeldBackWithWhatNeedsItAndTheRestIsReleased(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub, d := tested(p)
	lib, other := version(t, "x/lib-1"), version(t, "x/other-1")
	app := version(t, "x/app-1", lib)
	ask(p, "r1", lib, app, other)
	for _, j := range []build.Job{lib, app, other} {
		built(t, p, j)
	}
	d.fails["lib"] = "preinst phase: no such user"
	out := finalize(t, pub)
	if names(&out.Manifest) != "other" || !slices.Equal(d.asked, []string{"app lib other", "other"}) {
		t.Errorf("released %q, the drone was asked for %q", names(&out.Manifest), d.asked)
	}
	want := "x/app-1: needs x/lib-1, which is not in the release\nx/lib-1: beta could not install it: preinst phase: no such user"
	if got := heldBack(out.Held); got != want {
		t.Errorf("held back:\n%s", got)
	}
	if got := out.Install.String(); got != "beta installed 1 packages into a fresh root" {
		t.Errorf("the install test: %s", got)
	}
	if state(t, p, "r1") != build.RoundOpen {
		t.Error("the round is closed with packages held back")
	}

	// Every peer stages the same, and nothing new means no other try.
	s, err := pub.Stage(t.Context(), Request{Target: "t"})
	if err != nil || len(s.Changes) != 0 || heldBack(s.Held) != want {
		t.Errorf("staged: %d changes, held back:\n%s\n%v", len(s.Changes), heldBack(s.Held), err)
	}
	d.asked = nil
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); !errors.Is(err, ErrNothing) || d.asked != nil {
		t.Errorf("by itself again: %v, asked %q", err, d.asked)
	}
	// A person may have it tried again: it fails, and nothing is left.
	out, err = pub.Finalize(t.Context(), Request{Target: "t", Again: true})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "x/lib-1: beta could not install it: preinst phase: no such user") || !slices.Equal(d.asked, []string{"app lib"}) {
		t.Errorf("on demand: %v, asked %q", err, d.asked)
	}
	if got := out.Install.String(); !strings.Contains(got, "1 could not be installed") {
		t.Errorf("the install test: %s", got)
	}
	// Something new has all of it tried; nobody being there mends nothing.
	more := version(t, "x/more-1")
	ask(p, "r2", more)
	built(t, p, more)
	d.present = false
	out, err = pub.Finalize(t.Context(), Request{Target: "t"})
	if err != nil || names(&out.Manifest) != "more other" || heldBack(out.Held) != want {
		t.Errorf("with no drone there: %q, held back:\n%s\n%v", names(&out.Manifest), heldBack(out.Held), err)
	}
	// Once it installs it goes in, and nothing is said of it any more.
	d.present, d.fails = true, nil
	if out = finalizeAgain(t, pub); names(&out.Manifest) != "app lib more other" || len(out.Held) != 0 {
		t.Errorf("mended: %q, held back:\n%s", names(&out.Manifest), heldBack(out.Held))
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if h := r.HeldBack("t"); len(h.Packages) != 0 || h.At == 0 {
			t.Errorf("the board says %+v", h)
		}
		return nil
	})
}

func finalizeAgain(t *testing.T, pub *Publisher) *Released {
	t.Helper()
	out, err := pub.Finalize(t.Context(), Request{Target: "t", Again: true})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatWaitsForWhatIsNotBuiltSaysItsName(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	lib := version(t, "x/lib-1")
	app := version(t, "x/app-1", lib)
	ask(p, "r1", lib, app)
	built(t, p, app)
	s, err := pub.Stage(t.Context(), Request{Target: "t"})
	if want := "x/app-1: needs x/lib-1, which is not in the release\nx/lib-1: is not built yet"; err != nil || heldBack(s.Held) != want {
		t.Errorf("held back:\n%s\n%v", heldBack(s.Held), err)
	}
}

func TestAReplacementThatFailsLeavesWhatIsShown(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub, d := tested(p)
	old := version(t, "x/lib-1")
	ask(p, "r1", old)
	built(t, p, old)
	finalize(t, pub)
	// The same version, built anew, and something that runs with either.
	young := version(t, "x/lib-1-r1")
	young.CPV = old.CPV
	app := version(t, "x/app-1", young)
	ask(p, "r2", young, app)
	builtText(t, p, young, "built anew", build.Pair{Name: "KEYWORDS", Value: "amd64"}, build.Pair{Name: "SLOT", Value: "0"})
	built(t, p, app)
	d.fails["lib"] = "it collides at /usr/bin/x with x/more-1"
	out := finalize(t, pub)
	if got := out.Manifest.Entries; names(&out.Manifest) != "app lib" || got[1].Key != old.Key {
		t.Errorf("released %+v, held back:\n%s", got, heldBack(out.Held))
	}
}

func TestAMachinesFaultHoldsNoPackageBack(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub, d := tested(p)
	a := version(t, "x/a-1")
	ask(p, "r1", a)
	built(t, p, a)
	d.answer = &Installed{Broke: true, Why: "beta: no space left on the device (while x/a-1 was installed)"}
	_, err := pub.Finalize(t.Context(), Request{Target: "t", Again: true})
	if !errors.Is(err, ErrRefused) || !errors.Is(err, errBroke) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("finalize: %v", err)
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if h := r.HeldBack("t"); len(h.Packages) != 0 {
			t.Errorf("it is held against %+v", h.Packages)
		}
		return nil
	})
	// That nobody can try holds nothing up, and is said.
	d.answer = &Installed{Why: "there is no other drone for it"}
	out := finalizeAgain(t, pub)
	if got := out.Install.String(); got != "not made: there is no other drone for it" {
		t.Errorf("it says %q", got)
	}
}

func TestAReleaseIsTriedAgainForSomethingNewOrWhenAMachineMayBeWell(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	refused, broke := attempt{mark: "a"}, attempt{mark: "a", until: now.Add(retry)}
	if !(attempt{}).again("a", now) || !refused.again("b", now) || refused.again("a", now.Add(time.Hour)) {
		t.Error("what was refused is tried again for something new alone")
	}
	if broke.again("a", now.Add(retry-1)) || !broke.again("a", now.Add(retry)) || !broke.again("b", now) {
		t.Error("what a machine could not end is tried again after a while")
	}
}

func TestTrialsAreBounded(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub, d := tested(p)
	var jobs []build.Job
	for i := range 2 * trials {
		jobs = append(jobs, version(t, fmt.Sprintf("x/p%d-1", i)))
	}
	ask(p, "r1", jobs...)
	for _, j := range jobs {
		built(t, p, j)
	}
	// Each time another one fails.
	pub.Install = func(ctx context.Context, target, manifest, before string) (Installed, error) {
		d.fails = map[string]string{fmt.Sprintf("p%d", len(d.asked)): "no"}
		return d.install(ctx, target, manifest, before)
	}
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); !errors.Is(err, ErrRefused) || len(d.asked) != trials {
		t.Errorf("after %d tests: %v", len(d.asked), err)
	}
}

func TestADamagedPackageIsHeldBackByItself(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	bad, good := version(t, "x/bad-1"), version(t, "x/good-1")
	ask(p, "r1", bad, good)
	damaged(t, p, bad)
	built(t, p, good)
	out := finalize(t, pub)
	if names(&out.Manifest) != "good" || !strings.Contains(heldBack(out.Held), "x/bad-1: its MD5 is not what its builder says") {
		t.Errorf("released %q, held back:\n%s", names(&out.Manifest), heldBack(out.Held))
	}
}

// damaged reports a package whose digests are not those of its bytes.
func damaged(t *testing.T, p *agenttest.Peer, j build.Job) {
	t.Helper()
	info, err := p.Store.Put(t.Context(), strings.NewReader("bytes"), cid.Undef)
	if err == nil {
		err = p.Announce(t.Context(), info.CID)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Finished{Outcome: build.Outcome{Key: j.Key, CPV: j.CPV, Target: "t", Class: build.Good, Artifact: &build.Artifact{
			CID: info.CID.String(), Size: info.Size, MD5: strings.Repeat("0", 32), SHA1: strings.Repeat("0", 40), MTime: 1}}}}
	})
}

func TestWhatWouldHaveAConsumerCompileIsHeldBack(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	pub := publisher(p)
	first := version(t, "x/first-1")
	ask(p, "r1", first)
	built(t, p, first)
	finalize(t, pub)
	lib, flags, picky, good := version(t, "x/lib-2"), version(t, "x/flags-1"), version(t, "x/picky-1"), version(t, "x/good-1")
	ask(p, "r2", lib, flags, picky, good)
	for _, j := range []build.Job{lib, flags, good} {
		built(t, p, j)
	}
	builtAs(t, p, picky, build.Pair{Name: "RDEPEND", Value: "|| ( x/first[extra] x/none )"}, build.Pair{Name: "SLOT", Value: "0"})
	app := build.CPV{Category: "x", Name: "app", Version: "1"}
	var tried []string
	pub.Try = func(_ context.Context, tr Trial) (out []Compile, err error) {
		tried = append(tried, names(tr.Manifest))
		if names(tr.Before) != "first" || tr.Before.Tree != tr.Manifest.Tree || len(tr.BeforeIndex) == 0 {
			t.Errorf("before: %q", names(tr.Before))
		}
		for _, e := range tr.Manifest.Entries {
			switch e.CPV {
			case lib.CPV: // the consumer's own app is built anew for it
				out = append(out, Compile{"desktop", app, lib.CPV})
			case flags.CPV: // the consumer wants it with other flags
				out = append(out, Compile{"desktop", flags.CPV, build.CPV{}})
			case picky.CPV: // it asks for another first than there is
				out = append(out, Compile{"laptop", first.CPV, build.CPV{}})
			}
		}
		return out, nil
	}
	out := finalize(t, pub)
	want := "x/flags-1: desktop would compile x/flags-1\nx/lib-2: desktop would compile x/app-1\nx/picky-1: laptop would compile x/first-1"
	if names(&out.Manifest) != "first good" || heldBack(out.Held) != want || len(tried) != 2 {
		t.Errorf("released %q after %q, held back:\n%s", names(&out.Manifest), tried, heldBack(out.Held))
	}
	// What no new package answers for is not guessed at.
	more := version(t, "x/more-1")
	ask(p, "r3", more)
	built(t, p, more)
	pub.Try = func(context.Context, Trial) ([]Compile, error) { return []Compile{{"desktop", app, build.CPV{}}}, nil }
	if _, err := pub.Finalize(t.Context(), Request{Target: "t"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "desktop would compile x/app-1") {
		t.Errorf("got %v", err)
	}
}
