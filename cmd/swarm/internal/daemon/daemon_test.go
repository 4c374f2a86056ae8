package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/p2p"
)

func clock(nick string, aheadS int64, state string) view.Peer {
	return view.Peer{Nick: nick, AheadMS: aheadS * 1000, State: state}
}

func TestWrongClocksAreNamed(t *testing.T) {
	me := view.Peer{Self: true, Nick: "me"}
	for name, x := range map[string]struct {
		peers []view.Peer
		want  []string
	}{
		"all right":               {[]view.Peer{me, clock("a", 1, "idle"), clock("b", -2, "idle")}, nil},
		"alone":                   {[]view.Peer{me}, nil},
		"one fast peer":           {[]view.Peer{me, clock("a", 600, "away"), clock("b", 0, "idle")}, []string{"the clock of a is 600 s ahead of this machine's"}},
		"ours is fast":            {[]view.Peer{me, clock("a", -600, "idle"), clock("b", -601, "idle")}, []string{"this machine's clock is 601 s ahead of most peers"}},
		"ours is fast, of two":    {[]view.Peer{me, clock("a", -600, "idle")}, []string{"this machine's clock is 600 s ahead of most peers"}},
		"ours is slow":            {[]view.Peer{me, clock("a", 600, "away"), clock("b", 600, "away")}, nil}, // the board says so
		"an old Beat, handed on":  {[]view.Peer{me, clock("a", -600, "away"), clock("b", 0, "idle"), clock("c", 0, "idle")}, nil},
		"a quiet peer's Beat":     {[]view.Peer{me, clock("a", -59, "storing")}, nil},
		"one that left long ago":  {[]view.Peer{me, clock("a", -9000, "gone")}, nil},
		"one fast, one slow peer": {[]view.Peer{me, clock("a", 300, "away"), clock("b", -300, "idle"), clock("c", 0, "idle")}, []string{"the clock of a is 300 s"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := clockWarnings(x.peers)
			if len(got) != len(x.want) {
				t.Fatalf("got %q, want %q", got, x.want)
			}
			for i := range got {
				if !strings.Contains(got[i], x.want[i]) {
					t.Errorf("got %q, want %q", got[i], x.want[i])
				}
			}
		})
	}
}

func TestLinksThatAreNotAsTheyShouldBeAreNamed(t *testing.T) {
	link := func(change func(*p2p.PeerInfo)) []p2p.PeerInfo {
		i := p2p.PeerInfo{ID: "12D3KooWnas", Static: true}
		change(&i)
		return []p2p.PeerInfo{i}
	}
	nas := []view.Peer{{ID: "12D3KooWnas", Nick: "nas", State: "away"}}
	for name, x := range map[string]struct {
		known []p2p.PeerInfo
		peers []view.Peer
		up    time.Duration
		want  string
	}{
		"fine":                      {link(func(i *p2p.PeerInfo) { i.Connected = true }), nas, time.Hour, ""},
		"never reached":             {link(func(i *p2p.PeerInfo) { i.Problem = p2p.ErrRefused }), nil, time.Second, "no connection to 12D3KooWnas: refused"},
		"off, as its line says":     {link(func(i *p2p.PeerInfo) { i.Problem = p2p.ErrNoAnswer }), nas, time.Hour, ""},
		"another swarm's by now":    {link(func(i *p2p.PeerInfo) { i.Problem = p2p.ErrSwarmKeyMismatch }), nas, time.Hour, "swarm key mismatch"},
		"found by chance, and gone": {link(func(i *p2p.PeerInfo) { i.Static, i.Problem = false, p2p.ErrRefused }), nil, time.Hour, ""},
		"found, with our own name":  {link(func(i *p2p.PeerInfo) { i.Static, i.Problem = false, p2p.ErrSameIdentity }), nil, time.Hour, "this machine's own identity"},
		"connected and silent":      {link(func(i *p2p.PeerInfo) { i.Connected = true }), nil, time.Minute, "swarm init --new-identity"},
		"connected a moment ago":    {link(func(i *p2p.PeerInfo) { i.Connected = true }), nil, time.Second, ""},
		"not tried yet":             {link(func(*p2p.PeerInfo) {}), nil, time.Hour, ""},
	} {
		got := linkWarnings(x.known, x.peers, x.up)
		if (len(got) == 1) != (x.want != "") || len(got) == 1 && !strings.Contains(got[0], x.want) {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}

func TestALinkThatFailsIsToldInPlainWords(t *testing.T) {
	err := fmt.Errorf("%w: %w", p2p.ErrUnreachable, p2p.ErrSwarmKeyMismatch)
	if got := problem(err); !strings.HasPrefix(got, "swarm key mismatch: does not hold this swarm's key") {
		t.Errorf("a wrong key: %q", got)
	}
	if got := problem(fmt.Errorf("%w: %w", p2p.ErrUnreachable, p2p.ErrRefused)); !strings.HasPrefix(got, "refused the connection") {
		t.Errorf("refused: %q", got)
	}
}

func TestWhatDoesNotPassByItselfHasARemedy(t *testing.T) {
	for why, want := range map[string]string{
		"this identity also runs elsewhere":           "swarm init --new-identity",
		"the clock is 600 s behind the other peers":   "chronyc makestep",
		"the board is not yet compared with a peer's": "",
		"this peer is stopping":                       "",
		"":                                            "",
	} {
		if got := remedy(why); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", why, got, want)
		}
	}
}

func names(p *build.Plan) (out []string) {
	for i := range p.Jobs {
		out = append(out, p.Jobs[i].CPV.Name)
	}
	slices.Sort(out)
	return out
}

func TestTheBuiltInPlannerKnowsItsSets(t *testing.T) {
	p := SamplePlanner{Toolchain: sample.Toolchain{Why: "no compiler here"}, Target: "t"}
	plan := func(atoms ...string) *build.Plan {
		t.Helper()
		got, err := p.Plan(context.Background(), atoms)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	all := plan("@samples")
	if got := names(all); !slices.Equal(got, []string{"sample-backup", "sample-doc", "sample-greet", "sample-menu"}) || len(all.Missing) != 0 || len(all.Dropped) == 0 {
		t.Errorf("@samples: %q, missing %v, dropped %d", got, all.Missing, len(all.Dropped))
	}
	if got := names(plan("@broken")); !slices.Equal(got, []string{"sample-broken-script"}) {
		t.Errorf("@broken: %q", got)
	}
	if got := names(plan("@samples", "@broken")); len(got) != 5 || !slices.Contains(got, "sample-broken-script") {
		t.Errorf("both: %q", got)
	}
	if got := names(plan("@broken", "sample-doc")); !slices.Equal(got, []string{"sample-broken-script", "sample-doc"}) {
		t.Errorf("@broken and a name: %q", got)
	}
	mixed := plan("@samples", "nosuch")
	if len(mixed.Jobs) != 4 || len(mixed.Missing) != 1 || mixed.Missing[0].Atom != "nosuch" {
		t.Errorf("a name beside all: %d jobs, missing %v", len(mixed.Jobs), mixed.Missing)
	}
	if got := plan("nosuch"); len(got.Jobs) != 0 || len(got.Missing) != 1 {
		t.Errorf("an unknown name: %d jobs, missing %v; want it named once", len(got.Jobs), got.Missing)
	}
	_, err := p.Plan(context.Background(), []string{"@world"})
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Kind != control.KindUsage || !strings.Contains(e.Hint, "--with portage @world") {
		t.Errorf("@world: %v", err)
	}
}

func TestAnEmptyPlanSaysWhy(t *testing.T) {
	for name, x := range map[string]struct {
		plan       build.Plan
		text, hint string
	}{
		"a sample that is not one": {build.Plan{Missing: []build.Note{{Atom: "x", Reason: "there is no such sample package"}, {Atom: "y", Reason: "neither"}}}, "x: there is no such sample package (and 1 more)", "@samples"},
		"no such ebuild":           {build.Plan{Missing: []build.Note{{Atom: "a/x", Reason: "no ebuild"}}}, "a/x: no ebuild", "emerge --search"},
		"dropped":                  {build.Plan{Dropped: []build.Note{{Atom: "a/x", Reason: "masked"}}}, "a/x: masked", ""},
		"nothing at all":           {build.Plan{}, "nothing to build", ""},
	} {
		e, ok := errors.AsType[*control.Error](nothingPlanned(&x.plan))
		if !ok || e.Kind != control.KindNotFound || e.Message != x.text || (x.hint == "") != (e.Hint == "") || !strings.Contains(e.Hint, x.hint) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
