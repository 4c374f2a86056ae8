package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// portage is the Portage of this machine.
func (d *Daemon) portage() (PortagePlanner, error) {
	if p, ok := d.Planners[build.BuilderPortage].(PortagePlanner); ok {
		return p, nil
	}
	return PortagePlanner{}, &control.Error{Kind: control.KindUsage, Message: "this peer has no Portage to ask", Hint: "swarm version shows what it found; run this on a Gentoo machine"}
}

// AddTarget evaluates a configuration and puts it on the board.
func (d *Daemon) AddTarget(ctx context.Context, req control.TargetRequest) (control.TargetReply, error) {
	if !build.ValidTarget(req.Name) {
		return control.TargetReply{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("target %q: want a short word of a-z, 0-9, dot, dash", build.OneLine(req.Name, 80)), Hint: "for example: swarm target add desktop"}
	}
	b, err := d.evaluate(ctx, req.From)
	if err != nil {
		return control.TargetReply{}, err
	}
	return d.putTarget(ctx, req, b)
}

// evaluate has Portage evaluate a configuration: the daemon's own, or that of
// another root of this machine.
func (d *Daemon) evaluate(ctx context.Context, from string) (*build.Bundle, error) {
	pp, err := d.portage()
	if err != nil {
		return nil, err
	}
	p := pp.Portage
	if from != "" && from != "/" {
		if !filepath.IsAbs(from) {
			return nil, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("%q is no absolute path", build.OneLine(from, 80)), Hint: "for example: --from /mnt/laptop"}
		}
		if p, err = emerge.Detect(ctx, emerge.Config{Emerge: p.Emerge, ConfigRoot: from}); err != nil {
			return nil, err
		}
	}
	b, err := p.Evaluate(ctx)
	if errors.Is(err, emerge.ErrUnusable) {
		return nil, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 600), Hint: "emerge --info has to work first"}
	}
	return b, err
}

// putTarget writes a version of a target, unless it would say what the present
// one says.
func (d *Daemon) putTarget(ctx context.Context, req control.TargetRequest, b *build.Bundle) (control.TargetReply, error) {
	enc, err := build.Marshal(b)
	if err != nil {
		return control.TargetReply{}, fmt.Errorf("encode the configuration: %w", err)
	}
	info, err := d.Store.Put(ctx, bytes.NewReader(enc), cid.Undef)
	if err != nil {
		return control.TargetReply{}, fmt.Errorf("keep the configuration: %w", err)
	}
	if err := d.Requester.Announce(ctx, info.CID); err != nil {
		return control.TargetReply{}, fmt.Errorf("announce the configuration: %w", err)
	}
	old, err := d.target(ctx, req.Name)
	if err != nil {
		return control.TargetReply{}, err
	}
	t := build.Target{
		Name: req.Name, Version: 1, State: build.TargetLive, Arch: b.Arch, CHOST: b.CHOST, Profile: b.Profile, CPU: b.CPU,
		Bundle: info.CID.String(), Rebuild: req.Rebuild,
	}
	reply := control.TargetReply{Schema: view.Schema, Bundle: *b, BundleKB: int64(len(enc)), Changes: []build.Change{}, New: true}
	if old != nil {
		t.Version = old.Version + 1
		if old.State == build.TargetLive {
			reply.New = false
			t.Base = old.Base
			if t.Rebuild == "" {
				t.Rebuild = old.Rebuild
			}
			if was, err := d.bundle(ctx, old.Bundle); err == nil {
				reply.Changes = append(reply.Changes, b.Diff(was)...)
			}
		}
	}
	switch {
	case req.Base == "none":
		t.Base = build.BaseRef{}
	case req.Base != "" && d.Ground == nil:
		return control.TargetReply{}, &control.Error{Kind: control.KindUsage, Message: "this peer keeps no bases", Hint: "swarm base add NAME makes one"}
	case req.Base != "":
		if t.Base, err = d.baseNamed(ctx, req.Base); err != nil {
			return control.TargetReply{}, err
		}
	}
	reply.Changed = old == nil || !sameTarget(old.Target, t)
	if err := t.Validate(); err != nil {
		return control.TargetReply{}, err
	}
	if reply.Changed {
		if err := d.Requester.Replicate(ctx, info.CID, 2); err != nil {
			return control.TargetReply{}, fmt.Errorf("copy the configuration to a second peer: %w", err)
		}
		err := d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
			return []claims.Event{claims.Post{Body: claims.NewTarget(t)}}
		})
		if err != nil {
			return control.TargetReply{}, fmt.Errorf("publish the target: %w", err)
		}
	}
	reply.TargetLine, err = d.targetLine(ctx, req.Name)
	return reply, err
}

// sameTarget compares two targets but for their versions.
func sameTarget(a, b build.Target) bool {
	return a.State == b.State && a.Bundle == b.Bundle && a.Base == b.Base && a.Rebuild == b.Rebuild
}

// target is a target as the board has it, a removed one too; nil = never there.
func (d *Daemon) target(ctx context.Context, name string) (t *claims.Target, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		t = r.Target(name)
		return nil
	})
	return t, err
}

// bundle reads a configuration, fetching it first if need be. It may have come
// from any peer.
func (d *Daemon) bundle(ctx context.Context, cidText string) (*build.Bundle, error) {
	var b build.Bundle
	if err := d.readBlob(ctx, cidText, build.MaxBundle, &b); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return &b, b.Validate()
}

// readBlob decodes a small blob.
func (d *Daemon) readBlob(ctx context.Context, cidText string, most int64, into any) error {
	c, err := cas.Parse(cidText)
	if err != nil {
		return err
	}
	if err := d.Requester.Fetch(ctx, c); err != nil {
		return err
	}
	f, err := d.Store.Open(c)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Size() > most {
		return fmt.Errorf("blob %s of %d bytes: at most %d", c, f.Size(), most)
	}
	buf := make([]byte, f.Size())
	if _, err := io.ReadFull(f, buf); err != nil {
		return err
	}
	return build.Unmarshal(buf, into)
}

// Targets lists the targets.
func (d *Daemon) Targets(ctx context.Context) ([]control.TargetLine, error) {
	out := []control.TargetLine{}
	err := d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for _, t := range r.Targets() {
			out = append(out, lineOf(r, t, now))
		}
		return nil
	})
	return out, err
}

func lineOf(r *claims.Replica, t claims.Target, now claims.Now) control.TargetLine {
	l := control.TargetLine{Target: t.Target, By: r.Name(t.Author), StampMS: t.Stamp.Millis(), Excluded: []control.Excluded{}}
	if l.CPU == nil {
		l.CPU = []string{} // lists are never null
	}
	for _, p := range r.Peers(now) {
		if p.Beat.Slots == 0 || !p.Live {
			continue
		}
		if why := t.Excludes(p.Beat.Arch, p.Beat.Features); why != "" {
			l.Excluded = append(l.Excluded, control.Excluded{Peer: p.ID, Nick: r.Name(p.ID), Reason: build.OneLine(why, 300)})
		}
	}
	return l
}

func (d *Daemon) targetLine(ctx context.Context, name string) (l control.TargetLine, err error) {
	var missing error
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		t := r.Target(name)
		if t == nil || t.State != build.TargetLive {
			missing = noTarget(r, name)
			return nil
		}
		l = lineOf(r, *t, now)
		return nil
	})
	return l, errors.Join(err, missing)
}

func noTarget(r *claims.Replica, name string) error {
	var names []string
	for _, t := range r.Targets() {
		names = append(names, t.Name)
	}
	hint := "swarm target add NAME makes one of this machine's configuration"
	if len(names) > 0 {
		hint = "there are: " + strings.Join(names, ", ")
	}
	return &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("no target %q", build.OneLine(name, 80)), Hint: hint}
}

// ShowTarget shows a target with its configuration.
func (d *Daemon) ShowTarget(ctx context.Context, name string) (control.TargetReply, error) {
	l, err := d.targetLine(ctx, name)
	if err != nil {
		return control.TargetReply{}, err
	}
	b, err := d.bundle(ctx, l.Target.Bundle)
	if err != nil {
		return control.TargetReply{}, err
	}
	return control.TargetReply{Schema: view.Schema, TargetLine: l, Bundle: *b, Changes: []build.Change{}}, nil
}

// DiffTarget compares a target with another, or with this machine.
func (d *Daemon) DiffTarget(ctx context.Context, name, other string) (control.TargetDiff, error) {
	diff := control.TargetDiff{Schema: view.Schema, From: name, To: other, Changes: []build.Change{}}
	from, err := d.ShowTarget(ctx, name)
	if err != nil {
		return diff, err
	}
	var to *build.Bundle
	if other == "" {
		diff.To = "this machine"
		to, err = d.evaluate(ctx, "")
	} else {
		var t control.TargetReply
		t, err = d.ShowTarget(ctx, other)
		to = &t.Bundle
	}
	if err != nil {
		return diff, err
	}
	diff.Changes = append(diff.Changes, to.Diff(&from.Bundle)...)
	return diff, nil
}

// RemoveTarget takes a target off the board; its releases stay.
func (d *Daemon) RemoveTarget(ctx context.Context, name string) (control.TargetLine, error) {
	l, err := d.targetLine(ctx, name)
	if err != nil {
		return l, err
	}
	gone := build.Target{Name: name, Version: l.Version + 1, State: build.TargetGone}
	err = d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewTarget(gone)}}
	})
	return l, err
}

// base reads what a base holds.
func (d *Daemon) base(ctx context.Context, ref build.BaseRef) ([]build.Installed, error) {
	c, err := ref.CID()
	if err != nil {
		return nil, err
	}
	var b build.Base
	if err := d.readBlob(ctx, c.String(), build.MaxBase, &b); err != nil {
		return nil, fmt.Errorf("read base %s: %w", ref.Name, err)
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("read base %s: %w", ref.Name, err)
	}
	return slices.Clone(b.Packages), nil
}
