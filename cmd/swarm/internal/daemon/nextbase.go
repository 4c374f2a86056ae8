package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// roots is what looks into bases and grows them: emerge.Roots, and a test's.
type roots interface {
	PlanNext(ctx context.Context, req emerge.NextRequest) (*build.Plan, error)
	Grow(ctx context.Context, ref build.BaseRef, bundle *build.Bundle, repos map[string]string, add []worker.RootFile, log io.Writer, use func(on *base.Root, upper string) error) error
	Clean(ctx context.Context, ref build.BaseRef, bundle *build.Bundle, repos map[string]string, log io.Writer, use func(on *base.Root, upper string, gone []build.CPV) error) error
}

// nextBase is one update of a base under way. The toolchain comes first, as a
// round of its own, and the rest is planned and built on the base with the new
// one in it.
type nextBase struct {
	d     *Daemon
	roots roots
	req   control.BaseUpdate
	tell  func(name, state, format string, args ...any)
	ask   emerge.NextRequest // without atoms
	gen   int                // generation that comes of it
}

// UpdateBase makes the next generation of a base of packages that the swarm
// builds for it. It may be broken off and asked for again: what is built counts.
func (d *Daemon) UpdateBase(ctx context.Context, req control.BaseUpdate, say func(control.FreshStep)) (info control.BaseInfo, err error) {
	n := &nextBase{d: d, req: req, tell: func(name, state, format string, args ...any) {
		say(control.FreshStep{Name: name, State: state, Text: fmt.Sprintf(format, args...)})
	}}
	if d.Ground != nil && d.Ground.Roots != nil {
		n.roots = d.Ground.Roots
	}
	man, err := n.prepare(ctx)
	if err != nil {
		return info, err
	}
	old := n.ask.Base
	if err := n.stages(ctx, man); err != nil {
		return info, updateError(req, err)
	}
	switch {
	case req.DryRun:
		n.tell("base", "done", "not updated: this was a look only")
	case n.ask.Base == old:
		n.tell("base", "done", "%s is up to date: generation %d stays", req.Name, man.Generation)
	default:
		if err := n.name(ctx); err != nil {
			return info, err
		}
	}
	return d.ShowBase(ctx, req.Name)
}

func updateError(req control.BaseUpdate, err error) error {
	if _, ok := errors.AsType[*control.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	e := &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 500)}
	if errors.Is(err, emerge.ErrResolve) || errors.Is(err, emerge.ErrNoPackage) {
		e.Hint = "swarm target diff " + req.Target + " shows how this machine's configuration differs from the target's"
	}
	return e
}

// prepare finds what the update is planned from.
func (n *nextBase) prepare(ctx context.Context) (*build.Base, error) {
	d := n.d
	if n.roots == nil {
		return nil, &control.Error{Kind: control.KindUsage, Message: "this peer cannot look into bases: builds cannot be isolated here", Hint: "run it on a peer that builds, or as root"}
	}
	ref, err := d.baseNamed(ctx, n.req.Name)
	if err != nil {
		return nil, err
	}
	man, err := d.Ground.Bases.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if man.Kind == build.BaseHost {
		return nil, &control.Error{Kind: control.KindUsage, Message: "base " + n.req.Name + " is this machine's own root", Hint: "update the machine, then: swarm base add --host " + n.req.Name}
	}
	t, err := d.target(ctx, n.req.Target)
	if err != nil {
		return nil, err
	}
	if t == nil || t.State != build.TargetLive {
		return nil, &control.Error{Kind: control.KindNotFound, Message: "no target " + build.OneLine(n.req.Target, 64), Hint: "swarm target ls lists them; --target NAME says whose configuration the base has"}
	}
	n.gen = man.Generation + 1
	n.ask = emerge.NextRequest{Target: t.Name, Base: ref, BundleCID: t.Bundle, Strict: t.Rebuild == build.RebuildStrict, KeepSource: d.Ground.keepSource}
	if n.ask.Bundle, err = d.bundle(ctx, t.Bundle); err != nil {
		return nil, err
	}
	pp, err := d.portage()
	if err != nil {
		return nil, err
	}
	trees, err := pp.Portage.Trees(ctx)
	if err != nil {
		return nil, err
	}
	for _, tree := range trees {
		if !slices.ContainsFunc(n.ask.Bundle.Repos, func(r build.BundleRepo) bool { return r.Name == tree.Name }) {
			continue
		}
		cid, err := pp.Snapshots.Keep(ctx, tree)
		if err != nil {
			return nil, fmt.Errorf("keep a snapshot of %s: %w", tree.Name, err)
		}
		n.ask.Trees = append(n.ask.Trees, build.Snapshot{Name: tree.Name, Digest: tree.Digest, CID: cid})
	}
	n.tell("trees", "done", "%s of this machine", plural(len(n.ask.Trees), "repository"))
	n.ask.Repos, err = d.Ground.Trees.Open(ctx, n.ask.Trees)
	return man, err
}

// stages takes the base through its stages; n.ask.Base is the newest of them.
func (n *nextBase) stages(ctx context.Context, man *build.Base) error {
	for _, s := range []struct {
		name  string
		atoms []string
	}{{"toolchain", emerge.ToolchainOf(man)}, {"system", []string{"@system"}}} {
		if len(s.atoms) == 0 {
			n.tell(s.name, "done", "the base has none")
			continue
		}
		n.tell(s.name, "doing", "the base's own Portage works out %s", strings.Join(s.atoms, " "))
		n.ask.Atoms = s.atoms
		plan, err := n.roots.PlanNext(ctx, n.ask)
		if err != nil {
			return err
		}
		for _, note := range slices.Concat(plan.Dropped, plan.Missing) {
			n.tell(s.name, "warn", "left out: %s: %s", note.Atom, note.Reason)
		}
		if len(plan.Want) == 0 {
			n.tell(s.name, "done", "up to date")
			continue
		}
		n.announce(s.name, plan)
		if n.req.DryRun {
			continue
		}
		if err := n.stage(ctx, s.name, plan); err != nil {
			return err
		}
	}
	if n.req.Depclean && !n.req.DryRun {
		return n.clean(ctx)
	}
	return nil
}

// clean takes away what the base no longer needs. An update does not fail for it.
func (n *nextBase) clean(ctx context.Context) error {
	n.tell("depclean", "doing", "the base's own Portage looks what nothing needs any more")
	var log bytes.Buffer
	ref := n.ask.Base
	took := 0
	err := n.roots.Clean(ctx, ref, n.ask.Bundle, n.ask.Repos, &log, func(on *base.Root, upper string, gone []build.CPV) error {
		took = len(gone)
		next, err := n.d.Ground.Bases.AddLayer(ctx, on, upper, base.Next{
			Name: ref.Name, Generation: n.gen, Source: fmt.Sprintf("generation %d, updated by the swarm for target %s", n.gen-1, n.ask.Target),
		})
		if err == nil {
			n.ask.Base = next
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		n.tell("depclean", "warn", "nothing is taken away: %s", build.OneLine(err.Error(), 300))
	case took == 0:
		n.tell("depclean", "done", "everything is needed")
	default:
		n.tell("depclean", "done", "%s taken away", plural(took, "package"))
	}
	return nil
}

// announce says what is built, and what that means for machines that run it.
func (n *nextBase) announce(stage string, plan *build.Plan) {
	var names []string
	for i := range plan.Jobs {
		if slices.Contains(plan.Want, plan.Jobs[i].Key) {
			names = append(names, plan.Jobs[i].CPV.String())
		}
	}
	n.tell(stage, "done", "%s: %s (%s in all)", plural(len(names), "package"), build.OneLine(strings.Join(names, " "), 400), plural(len(plan.Jobs), "job"))
	for _, name := range names {
		if strings.HasPrefix(name, "sys-libs/glibc-") || strings.HasPrefix(name, "sys-libs/musl-") {
			n.tell(stage, "warn", "what is built on it needs %s: release that to your machines before you give their target this base", name)
		}
	}
}

// stage has the swarm build a plan, and grows the base by what was wanted.
func (n *nextBase) stage(ctx context.Context, name string, plan *build.Plan) error {
	plan.Command = n.req.Command
	q := *n.d.Requester
	q.Manual = true // a base is no release
	old, err := n.rounds(ctx)
	if err != nil {
		return err
	}
	round, err := q.Submit(ctx, plan, build.Normal)
	if err != nil {
		return err
	}
	if err := n.d.replace(ctx, old, plan); err != nil {
		return err
	}
	n.tell(name, "doing", "round %s builds them", round)
	artifacts, err := n.built(ctx, name, round, plan)
	if err != nil {
		return err
	}
	var add []worker.RootFile
	for i, a := range artifacts {
		path, err := n.d.localBlob(ctx, a.cid)
		if err != nil {
			return fmt.Errorf("fetch %s: %w", a.job.CPV, err)
		}
		add = append(add, worker.RootFile{Entry: build.RootEntry{CPV: a.job.CPV, Slot: a.job.Slot, Key: a.job.Key}, Path: path})
		n.tell(name, "doing", "%d of %d are here", i+1, len(artifacts))
	}
	var log bytes.Buffer
	ref := n.ask.Base
	err = n.roots.Grow(ctx, ref, n.ask.Bundle, n.ask.Repos, add, &log, func(on *base.Root, upper string) error {
		next, err := n.d.Ground.Bases.AddLayer(ctx, on, upper, base.Next{
			Name: ref.Name, Generation: n.gen, Source: fmt.Sprintf("generation %d, updated by the swarm for target %s", n.gen-1, n.ask.Target),
		})
		n.ask.Base = next
		return err
	})
	if err != nil {
		return err
	}
	n.tell(name, "done", "%s installed", plural(len(add), "package"))
	return n.d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbCancel, Scope: round, Reason: "the base " + ref.Name + " has them"}}}
	})
}

// rounds lists the open rounds of an update that was broken off.
func (n *nextBase) rounds(ctx context.Context) (ids []string, err error) {
	err = n.d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, rd := range r.Rounds() {
			if rd.State == build.RoundOpen && rd.Requester == r.Self() && rd.Command == build.OneLine(n.req.Command, 200) {
				ids = append(ids, rd.ID)
			}
		}
		return nil
	})
	return ids, err
}

type builtJob struct {
	job *build.Job
	cid string
}

// built waits until what a round wants is built, and lists it in the order in which
// it can be installed.
func (n *nextBase) built(ctx context.Context, stage, round string, plan *build.Plan) (out []builtJob, err error) {
	want := make(map[build.Key]bool, len(plan.Want))
	for _, k := range plan.Want {
		want[k] = true
	}
	changed := n.d.Agent.Changed()
	said := -1
	for {
		var stop error
		done := 0
		out = out[:0]
		err := n.d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			if rd, _, ok := r.Round(round); !ok || rd.State != build.RoundOpen {
				stop = &control.Error{Kind: control.KindInternal, Message: "the round " + round + " was ended before the base was updated", Hint: n.req.Command + " goes on where it was"}
				return nil
			}
			for _, i := range r.SurveyRound(round, now) {
				switch {
				case i.State.Done():
					done++
					if want[i.Job.Key] && i.Good != nil && i.Good.Artifact != nil {
						out = append(out, builtJob{i.Job, i.Good.Artifact.CID})
					}
				case want[i.Job.Key] && i.State == claims.JobBlocked:
					stop = &control.Error{Kind: control.KindInternal, Message: fmt.Sprintf("the base is not updated: %s cannot be built", i.Job.CPV), Hint: "swarm why " + i.Job.CPV.String()}
				}
			}
			return nil
		})
		if err = errors.Join(err, stop); err != nil {
			return nil, err
		}
		if len(out) == len(want) {
			return out, nil
		}
		if done != said {
			n.tell(stage, "doing", "%d of %s built", done, plural(len(plan.Jobs), "job"))
			said = done
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// name lets the base's name mean the new generation, and keeps its blobs.
func (n *nextBase) name(ctx context.Context) error {
	c, err := n.ask.Base.CID()
	if err != nil {
		return err
	}
	if err := n.d.Ground.Bases.Name(n.ask.Base); err != nil {
		return err
	}
	n.tell("base", "done", "%s is generation %d now: %.12s", n.req.Name, n.gen, n.ask.Base.Digest)
	err = n.d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: c.String(), Reason: pinBase + n.req.Name}}}
	})
	if err != nil {
		return err
	}
	return n.d.pruneBase(ctx, n.req.Name, n.tell)
}

// localBlob brings a blob here and says in which file it lies.
func (d *Daemon) localBlob(ctx context.Context, name string) (string, error) {
	c, err := cas.Parse(name)
	if err != nil {
		return "", err
	}
	if err := d.Requester.Fetch(ctx, c); err != nil {
		return "", err
	}
	b, err := d.Store.Open(c)
	if err != nil {
		return "", err
	}
	defer b.Close()
	f, ok := b.(interface{ File() *os.File })
	if !ok {
		return "", fmt.Errorf("blob %s does not lie in a file", c)
	}
	return f.File().Name(), nil
}
