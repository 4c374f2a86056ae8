package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// AddBase makes a base and pins its blobs, which are anybody's then.
func (d *Daemon) AddBase(ctx context.Context, req control.BaseRequest) (info control.BaseInfo, err error) {
	bases, own := d.Ground.Bases, d.Ground.Own
	var ref build.BaseRef
	switch {
	case req.Host:
		version := ""
		if own != nil {
			version = own.Version
		}
		ref, err = bases.AddHost(ctx, req.Name, version)
	case req.Stage3 != "":
		err = d.took.tell(ctx, "check and unpack the archive", "stage3", func() (err error) {
			ref, err = bases.AddStage(ctx, req.Name, base.Stage{File: req.Stage3, Signature: req.Signature, Keyring: req.Keyring, Unsigned: req.Unsigned})
			return err
		})
	case req.From == "/":
		if own == nil {
			return info, &control.Error{Kind: control.KindUsage, Message: "this machine has no Portage whose @system could be a base", Hint: "swarm base add " + req.Name + " --stage3 FILE"}
		}
		ref, err = bases.AddDirectory(ctx, req.Name, "the packages of @system of "+d.About.Nick, func(dir string) error {
			return own.FillSystem(ctx, dir, func(what string, done, all int) {
				progress.Tell(ctx, progress.Step{What: what, Done: int64(done), All: int64(all)})
			})
		})
	default:
		return info, &control.Error{Kind: control.KindUsage, Message: "a base wants something to be made from", Hint: "swarm base add --stage3 FILE NAME, or --from / NAME"}
	}
	if err != nil {
		return info, baseError(req, err)
	}
	c, err := ref.CID()
	if err != nil {
		return info, err
	}
	err = d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: c.String(), Reason: pinBase + req.Name}}}
	})
	if err != nil {
		return info, err
	}
	return d.ShowBase(ctx, req.Name)
}

// baseError adds what to do about a base that could not be made.
func baseError(req control.BaseRequest, err error) error {
	e := &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 500)}
	switch {
	case errors.Is(err, base.ErrUnsigned):
		e.Hint = "put the .asc file beside the archive and name the keys with --keyring FILE; --unsigned takes it without"
	case errors.Is(err, base.ErrSignature):
		e.Hint = "download archive and signature again; if it stays so, they are not what Gentoo released"
	case errors.Is(err, emerge.ErrNoPackage):
		e.Hint = "swarm base add " + req.Name + " --stage3 FILE"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		e.Hint = "the daemon reads the file: name one that it can read"
	}
	return e
}

// pinBase begins the reason of the pin that keeps a base; its name follows.
const pinBase = "base "

// baseNamed is what a base's name means here or else, since one machine adds a
// base for all, what its newest pin on the board says.
func (d *Daemon) baseNamed(ctx context.Context, name string) (build.BaseRef, error) {
	n, err := d.Ground.Bases.Named(name)
	if errors.Is(err, base.ErrNoBase) {
		if ref, berr := d.baseOnBoard(ctx, name); berr != nil || !ref.IsZero() {
			return ref, berr
		}
		return build.BaseRef{}, &control.Error{Kind: control.KindNotFound, Message: build.OneLine(err.Error(), 300), Hint: "swarm base ls, or swarm base add " + name}
	}
	if err != nil {
		return build.BaseRef{}, err
	}
	return n.Newest(), nil
}

// baseOnBoard is the base that was pinned under a name last; zero if none is.
func (d *Daemon) baseOnBoard(ctx context.Context, name string) (ref build.BaseRef, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		var newest uint64
		for _, o := range r.Records() {
			var pin claims.Directive
			if o.Type() != claims.TypeDirective || o.Stamp() < newest || build.Unmarshal(o.Body(), &pin) != nil ||
				pin.Verb != claims.VerbPin || pin.Off || pin.Reason != pinBase+name {
				continue
			}
			c, perr := cas.Parse(pin.Scope)
			if perr != nil {
				continue
			}
			if digest, derr := cas.Digest(c); derr == nil {
				ref, newest = build.BaseRef{Name: name, Digest: hex.EncodeToString(digest[:])}, o.Stamp()
			}
		}
		return nil
	})
	return ref, err
}

// pruneBase lets go of a base's old generations that nothing builds on: their pins,
// and what is unpacked of them here.
func (d *Daemon) pruneBase(ctx context.Context, name string, tell func(name, state, format string, args ...any)) error {
	used := map[string]bool{}
	err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, t := range r.Targets() {
			used[t.Base.Digest] = true
		}
		for _, rd := range r.Rounds() {
			if _, p, _ := r.Round(rd.ID); rd.State == build.RoundOpen && p != nil {
				used[p.Base.Digest] = true
			}
		}
		for _, o := range r.Orders() {
			if c, err := cas.Parse(o.Scope); err == nil && o.Verb == claims.VerbPin && o.Reason != pinBase+name {
				if digest, err := cas.Digest(c); err == nil {
					used[hex.EncodeToString(digest[:])] = true // somebody wants it kept
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	gone, err := d.Ground.Bases.Prune(ctx, name, func(digest string) bool { return used[digest] })
	if len(gone) > 0 {
		tell("base", "done", "%s let go: the newest %d stay, and what something builds on", plural(len(gone), "old generation"), base.KeepGenerations)
	}
	var off []claims.Event
	for _, digest := range gone {
		c, cerr := build.BaseRef{Name: name, Digest: digest}.CID()
		if err = errors.Join(err, cerr); cerr == nil {
			off = append(off, claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: c.String(), Off: true, Reason: pinBase + name + " pruned"}})
		}
	}
	return errors.Join(err, d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event { return off }))
}

// ListBases lists the bases that have a name here.
func (d *Daemon) ListBases(ctx context.Context) (control.BaseList, error) {
	names, err := d.Ground.Bases.Names()
	if err != nil {
		return control.BaseList{}, err
	}
	list := control.BaseList{Schema: 1, Bases: []control.BaseInfo{}}
	for _, n := range names {
		info, err := d.describe(ctx, n)
		if err != nil {
			return list, err
		}
		info.Packages = nil
		list.Bases = append(list.Bases, info)
	}
	return list, nil
}

// ShowBase describes a base.
func (d *Daemon) ShowBase(ctx context.Context, name string) (control.BaseInfo, error) {
	n, err := d.Ground.Bases.Named(name)
	if errors.Is(err, base.ErrNoBase) {
		return control.BaseInfo{}, &control.Error{Kind: control.KindNotFound, Message: build.OneLine(err.Error(), 300), Hint: "swarm base ls"}
	}
	if err != nil {
		return control.BaseInfo{}, err
	}
	return d.describe(ctx, n)
}

func (d *Daemon) describe(ctx context.Context, n base.Named) (control.BaseInfo, error) {
	ref := n.Newest()
	man, err := d.Ground.Bases.Manifest(ctx, ref)
	if err != nil {
		return control.BaseInfo{}, err
	}
	info := control.BaseInfo{
		Schema: 1, Name: n.Name, Digest: ref.Digest, Kind: man.Kind, Provisional: man.Provisional(), Arch: man.Arch, Generation: man.Generation,
		Added: n.Generations[len(n.Generations)-1].Added, Source: man.Source, Portage: man.Portage, Bytes: man.Bytes(), Packages: man.Packages,
		Earlier: []string{}, Targets: []string{},
	}
	for _, g := range n.Generations[:len(n.Generations)-1] {
		info.Earlier = append(info.Earlier, g.Digest)
	}
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, t := range r.Targets() {
			if t.Base.Digest == ref.Digest {
				info.Targets = append(info.Targets, t.Name)
			}
		}
		return nil
	})
	return info, err
}

// RemoveBase takes a name away, unless a target builds on what it means.
func (d *Daemon) RemoveBase(ctx context.Context, name string) error {
	info, err := d.ShowBase(ctx, name)
	if err != nil {
		return err
	}
	if len(info.Targets) > 0 {
		return &control.Error{Kind: control.KindUsage, Message: "the target " + info.Targets[0] + " builds on the base " + name, Hint: "give the target another base first"}
	}
	if err := d.Ground.Bases.Forget(ctx, name); err != nil {
		return err
	}
	c, err := build.BaseRef{Name: name, Digest: info.Digest}.CID()
	if err != nil {
		return err
	}
	return d.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.VerbPin, Scope: c.String(), Off: true, Reason: pinBase + name + " removed"}}}
	})
}
