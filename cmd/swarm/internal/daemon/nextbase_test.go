package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/request"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// grown stands for Portage in a base: it wants each job until the base has it.
type grown struct {
	t     *testing.T
	bases *base.Store
	jobs  map[string]build.Job // by first atom
	asked []string             // what was planned, on which base
}

func (g *grown) PlanNext(_ context.Context, req emerge.NextRequest) (*build.Plan, error) {
	g.asked = append(g.asked, fmt.Sprintf("%s on %.6s", req.Atoms[0], req.Base.Digest))
	man, err := g.bases.Manifest(g.t.Context(), req.Base)
	if err != nil {
		return nil, err
	}
	plan := &build.Plan{Target: req.Target, Base: req.Base}
	j := g.jobs[req.Atoms[0]]
	if !slices.ContainsFunc(man.Packages, func(p build.Installed) bool { return p.CPV == j.CPV }) {
		plan.Jobs, plan.Want = []build.Job{j}, []build.Key{j.Key}
	}
	return plan, nil
}

func (g *grown) Grow(ctx context.Context, ref build.BaseRef, _ *build.Bundle, _ map[string]string, add []worker.RootFile, _ io.Writer, use func(*base.Root, string) error) error {
	on, err := g.bases.Open(ctx, ref)
	if err != nil {
		return err
	}
	upper := g.t.TempDir()
	for _, f := range add {
		if _, err := os.Stat(f.Path); err != nil {
			return err
		}
		entry(g.t, upper, f.Entry.CPV, f.Entry.Slot)
	}
	return use(on, upper)
}

// Clean takes away what is named useless, and nothing else.
func (g *grown) Clean(ctx context.Context, ref build.BaseRef, _ *build.Bundle, _ map[string]string, _ io.Writer, use func(*base.Root, string, []build.CPV) error) error {
	on, err := g.bases.Open(ctx, ref)
	if err != nil {
		return err
	}
	upper := g.t.TempDir()
	var gone []build.CPV
	for _, p := range on.Manifest.Packages {
		if p.CPV.Name != "useless" {
			continue
		}
		at := filepath.Join(upper, "var/db/pkg", p.CPV.Category, p.CPV.PF())
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), unix.Mknod(at, unix.S_IFCHR, 0)); err != nil {
			return err
		}
		gone = append(gone, p.CPV)
	}
	if len(gone) == 0 {
		return nil
	}
	return use(on, upper, gone)
}

// entry writes an entry of a package database.
func entry(t *testing.T, root string, c build.CPV, slot string) {
	t.Helper()
	dir := filepath.Join(root, "var/db/pkg", c.Category, c.PF())
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "SLOT"), []byte(slot+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// buildAll builds, or fails, whatever is asked for, until ctx ends.
func buildAll(ctx context.Context, p *agenttest.Peer, fails string) {
	changed := p.Board.Changed()
	for ctx.Err() == nil {
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			var evs []claims.Event
			for _, i := range r.Survey(now) {
				if i.Good != nil || len(i.Failures) > 0 {
					continue
				}
				o := build.Outcome{Key: i.Job.Key, CPV: i.Job.CPV, Target: i.Target, Class: build.Good, Started: uint64(r.Stamp(now))}
				if i.Job.CPV.Name == fails {
					o.Class, o.Reason = build.BadPackage, "it does not compile"
				} else {
					info, err := p.Store.Put(ctx, strings.NewReader(string(i.Job.Key)), cid.Undef)
					if err != nil {
						continue
					}
					o.Artifact = &build.Artifact{CID: info.CID.String(), Size: info.Size, MD5: strings.Repeat("0", 32), SHA1: strings.Repeat("0", 40)}
				}
				evs = append(evs, claims.Post{Body: claims.NewOutcome(o)})
			}
			return evs
		})
		for i, err := range p.Store.All() {
			if err == nil {
				_ = p.Announce(ctx, i.CID) // said again on the next change
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// update is an update of a base that has an old libc.
func update(t *testing.T, fails string) (*nextBase, *grown, build.BaseRef, *[]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: making a base takes root")
	}
	p := agenttest.Start(t, t.TempDir())
	shelf := &Shelf{}
	shelf.Use(p.Store, func(ctx context.Context, c cid.Cid) error { return p.NoPeers(ctx, c) }, p.Announce)
	bases := base.New(t.TempDir(), shelf, "amd64")
	p.Until("the peer may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	ref, err := bases.AddDirectory(t.Context(), "b", "a test", func(dir string) error {
		entry(t, dir, build.CPV{Category: "sys-libs", Name: "glibc", Version: "1"}, "0")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g := &grown{t: t, bases: bases, jobs: map[string]build.Job{"sys-libs/glibc": agenttest.Job(t, "libc"), "@system": agenttest.Job(t, "shell")}}
	var said []string
	n := &nextBase{
		d: &Daemon{Agent: p.Board, Store: p.Store, Ground: &Ground{Bases: bases}, Requester: &request.Requester{
			Self: p.Self, Board: p.Board, Store: p.Store, Announce: p.Announce, Fetch: p.NoPeers, Replicate: func(context.Context, cid.Cid, int) error { return nil },
		}},
		roots: g, gen: 1, ask: emerge.NextRequest{Target: "desk", Base: ref},
		req: control.BaseUpdate{Name: "b", Target: "desk", Command: "swarm base update b"},
		tell: func(name, state, format string, args ...any) {
			said = append(said, name+" "+state+" "+fmt.Sprintf(format, args...))
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); buildAll(ctx, p, fails) }()
	t.Cleanup(func() { cancel(); <-ended })
	return n, g, ref, &said
}

func TestTheRestOfABaseIsBuiltWithTheNewToolchain(t *testing.T) {
	n, g, old, said := update(t, "")
	man, err := g.bases.Manifest(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.stages(t.Context(), man); err != nil {
		t.Fatal(err)
	}
	if named, err := g.bases.Named("b"); err != nil || named.Newest() != old {
		t.Errorf("before all of it is built the name means %v, %v", named, err)
	}
	if err := n.name(t.Context()); err != nil {
		t.Fatal(err)
	}
	next, err := g.bases.Manifest(t.Context(), n.ask.Base)
	if err != nil {
		t.Fatal(err)
	}
	if next.Generation != 1 || len(next.Packages) != 3 || len(next.Layers) != 3 {
		t.Errorf("generation %d holds %v in %d layers", next.Generation, next.Packages, len(next.Layers))
	}
	if len(g.asked) != 2 || g.asked[0] != fmt.Sprintf("sys-libs/glibc on %.6s", old.Digest) || g.asked[1] == fmt.Sprintf("@system on %.6s", old.Digest) {
		t.Errorf("planned %q, want the rest on the base with the new toolchain", g.asked)
	}
	if named, err := g.bases.Named("b"); err != nil || named.Newest() != n.ask.Base || len(named.Generations) != 2 {
		t.Errorf("the name means %v, %v", named, err)
	}
	// Nothing of it waits for anybody any longer, and again there is nothing to do.
	if err := n.d.Agent.Do(t.Context(), func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, rd := range r.Rounds() {
			if rd.State == build.RoundOpen || !rd.Manual {
				t.Errorf("round %+v", rd)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := n.ask.Base
	if err := n.stages(t.Context(), next); err != nil || n.ask.Base != before {
		t.Errorf("again: %v, %v\n%s", n.ask.Base, err, strings.Join(*said, "\n"))
	}
}

func TestABaseOfWhichSomethingCannotBeBuiltStaysAsItIs(t *testing.T) {
	n, g, old, _ := update(t, "shell")
	man, err := g.bases.Manifest(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	err = n.stages(t.Context(), man)
	e, ok := errors.AsType[*control.Error](err)
	if !ok || !strings.Contains(e.Message, "shell") || !strings.HasPrefix(e.Hint, "swarm why ") {
		t.Errorf("got %v, want the package and what to type", err)
	}
	if named, err := g.bases.Named("b"); err != nil || named.Newest() != old {
		t.Errorf("the name means %v, %v", named, err)
	}
	if bytes.Contains([]byte(err.Error()), []byte("\n")) {
		t.Error("more than one line")
	}
}

func TestWhatABaseNoLongerNeedsIsTakenAway(t *testing.T) {
	n, g, old, said := update(t, "")
	g.jobs["@system"] = agenttest.Job(t, "useless")
	n.req.Depclean = true
	man, err := g.bases.Manifest(t.Context(), old)
	if err == nil {
		err = n.stages(t.Context(), man)
	}
	if err != nil {
		t.Fatal(err)
	}
	next, err := g.bases.Manifest(t.Context(), n.ask.Base)
	if err != nil || slices.ContainsFunc(next.Packages, func(p build.Installed) bool { return p.CPV.Name == "useless" }) || len(next.Packages) != 2 {
		t.Errorf("the base holds %v, %v", next, err)
	}
	if last := (*said)[len(*said)-1]; last != "depclean done 1 package taken away" {
		t.Errorf("said last: %q", last)
	}
}

// TestOldGenerationsOfABaseLoseTheirPins but for those that something builds on, or
// that a person has pinned.
func TestOldGenerationsOfABaseLoseTheirPins(t *testing.T) {
	n, g, ref, said := update(t, "")
	pin := func(ref build.BaseRef, reason string) claims.Event {
		c, err := ref.CID()
		if err != nil {
			t.Fatal(err)
		}
		return claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: c.String(), Reason: reason}}
	}
	gens := []build.BaseRef{ref}
	for i := range base.KeepGenerations + 2 {
		on, err := g.bases.Open(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		upper := t.TempDir()
		entry(t, upper, build.CPV{Category: "app-misc", Name: fmt.Sprintf("p%d", i), Version: "1"}, "0")
		if ref, err = g.bases.AddLayer(t.Context(), on, upper, base.Next{Name: "b", Generation: i + 1, Source: "a test"}); err == nil {
			err = g.bases.Name(ref)
		}
		if err != nil {
			t.Fatal(err)
		}
		gens = append(gens, ref)
	}
	target := build.Target{Name: "desk", Version: 1, State: build.TargetLive, Arch: "amd64", Bundle: "bafkr4iamppe6rjxma5cwactb4x5k3ok62wjmgymhv662sed6giuisem66y", Base: gens[1]}
	do := func(f func(r *claims.Replica) []claims.Event) {
		t.Helper()
		if err := n.d.Agent.Do(t.Context(), func(r *claims.Replica, _ claims.Now) []claims.Event { return f(r) }); err != nil {
			t.Fatal(err)
		}
	}
	do(func(*claims.Replica) []claims.Event {
		evs := []claims.Event{claims.Post{Body: claims.NewTarget(target)}, pin(gens[0], "mine")}
		for _, g := range gens[1:] {
			evs = append(evs, pin(g, pinBase+"b"))
		}
		return evs
	})
	if err := n.d.pruneBase(t.Context(), "b", n.tell); err != nil {
		t.Fatal(err)
	}
	var pinned []string
	do(func(r *claims.Replica) []claims.Event {
		for _, o := range r.Orders() {
			pinned = append(pinned, o.Scope)
		}
		return nil
	})
	for i, ref := range gens {
		c, err := ref.CID()
		if err != nil {
			t.Fatal(err)
		}
		if want := i != 2; slices.Contains(pinned, c.String()) != want { // of all it is old, and nobody's
			t.Errorf("generation %d is pinned: %t, want %t\n%s", i, !want, want, strings.Join(*said, "\n"))
		}
	}
	if n, err := g.bases.Named("b"); err != nil || len(n.Generations) != len(gens)-1 {
		t.Errorf("the name means %v, %v", n, err)
	}
}
