package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// Releases lists what the board knows of a target's releases.
func (d *Daemon) Releases(ctx context.Context, target string) (control.ReleasesReply, error) {
	reply := control.ReleasesReply{Schema: view.Schema, Target: target, Releases: []control.Release{}, Consumers: []control.Consumer{}, Repos: []build.Revision{}, Held: []control.Held{}}
	var refused error
	err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		if refused = knownTarget(r, target); refused != nil {
			return nil
		}
		reply.Head, reply.RolledBack = r.Channel(target, release.Stable), r.RolledBack(target)
		all := r.Releases(target)
		contested := claims.Contested(all)
		back, _ := publish.Find(all, reply.Head, "") // none: nothing is marked
		for _, l := range all {
			reply.Releases = append(reply.Releases, line(r, l, reply.Head, back, contested))
		}
		kept := r.HeldBack(target)
		reply.HeldAt = kept.At
		for _, h := range kept.Packages {
			reply.Held = append(reply.Held, control.Held{CPV: h.CPV.String(), USE: []string{}, Reason: h.Reason})
		}
		for _, s := range r.Subscriptions(target) {
			reply.Consumers = append(reply.Consumers, control.Consumer{Peer: s.Peer, Nick: r.Name(s.Peer), Packages: s.Packages})
		}
		return nil
	})
	if err = errors.Join(err, refused); err != nil || reply.Head == nil {
		return reply, err
	}
	m, err := publish.LoadManifest(ctx, d.Store, d.Requester.Fetch, reply.Head.Release)
	if err != nil {
		return reply, releaseError(err)
	}
	reply.Repos = append(reply.Repos, m.Repos...)
	return reply, nil
}

func line(r *claims.Replica, l claims.Listed, head *release.Channel, back claims.Listed, contested []claims.Listed) control.Release {
	return control.Release{
		Listing: l.Listing, By: r.Name(l.Author), Shown: head != nil && head.Release == l.Release,
		Before: back.Release == l.Release, Contested: slices.Contains(contested, l),
	}
}

// released reads what a target's channel shows, nil for nothing yet, and all
// that is listed for it.
func (d *Daemon) released(ctx context.Context, target string) (head *release.Channel, all []claims.Listed, err error) {
	var unknown error
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		unknown = knownTarget(r, target)
		head, all = r.Channel(target, release.Stable), r.Releases(target)
		return nil
	})
	return head, all, errors.Join(err, unknown)
}

// knownTarget refuses a name that nothing on the board has.
func knownTarget(r *claims.Replica, target string) error {
	var names []string
	for _, rd := range r.Rounds() {
		names = append(names, rd.Target)
	}
	for _, c := range r.Channels() {
		names = append(names, c.Target)
	}
	slices.Sort(names)
	if names = slices.Compact(names); slices.Contains(names, target) {
		return nil
	}
	hint := "swarm build ATOM asks for packages; they are released when they are built"
	if len(names) > 0 {
		hint = "give one of these with --target: " + strings.Join(names, ", ")
	}
	return &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("nothing was asked for or released for target %q", build.OneLine(target, 80)), Hint: hint}
}

// Finalize releases what is built, or says what would be.
func (d *Daemon) Finalize(ctx context.Context, req control.FinalizeRequest) (control.FinalizeReply, error) {
	ask := publish.Request{Target: req.Target, Again: true}
	for _, a := range req.Without {
		atom, err := build.ParseAtom(a)
		if err != nil || atom.Category == "" {
			return control.FinalizeReply{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("%q names no package", build.OneLine(a, 80)), Hint: "for example: swarm finalize --without dev-libs/openssl"}
		}
		ask.Without = append(ask.Without, atom)
	}
	if err := d.mayRelease(ctx, req.Target); err != nil {
		return control.FinalizeReply{}, err
	}
	if req.Try {
		s, err := d.Publisher.Stage(ctx, ask)
		if err != nil {
			return control.FinalizeReply{}, releaseError(err)
		}
		return staged(s), nil
	}
	out, err := d.Publisher.Finalize(ctx, ask)
	switch {
	case err == nil:
		reply := staged(&out.Staged)
		reply.Released, reply.Number, reply.CID = true, out.Listing.Number, out.Shown.Release
		return reply, nil
	case out != nil && errors.Is(err, publish.ErrNothing):
		reply := staged(&out.Staged)
		err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
			reply.RolledBack = r.RolledBack(req.Target)
			return nil
		})
		return reply, err
	case out != nil && errors.Is(err, publish.ErrRefused):
		reply := staged(&out.Staged)
		reply.Refused = strings.TrimPrefix(err.Error(), publish.ErrRefused.Error()+": ")
		return reply, nil
	}
	return control.FinalizeReply{}, releaseError(err)
}

// mayRelease refuses where this peer could write nothing, or the target is not
// known.
func (d *Daemon) mayRelease(ctx context.Context, target string) error {
	var refused error
	err := d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		if refused = knownTarget(r, target); refused != nil {
			return nil
		}
		if ok, why := r.MayClaim(); !ok {
			refused = &control.Error{Kind: control.KindInternal, Message: "this peer cannot move a channel now: " + why, Hint: "swarm status says what to do; another peer of the swarm can do it"}
		}
		return nil
	})
	return errors.Join(err, refused)
}

func staged(s *publish.Staged) control.FinalizeReply {
	reply := control.FinalizeReply{Schema: view.Schema, Target: s.Target, Packages: len(s.Manifest.Entries), Changes: changes(s.Changes), Held: held(s.Held), Consumers: []string{}}
	if s.Head != nil {
		reply.Number, reply.CID = s.Head.Version, s.Head.Release
	}
	for i := range s.Manifest.Entries {
		reply.Bytes += s.Manifest.Entries[i].Artifact.Size
	}
	if s.Install != nil {
		reply.InstallTest = build.OneLine(s.Install.String(), 1000)
	}
	for _, c := range s.Consumers {
		reply.Consumers = append(reply.Consumers, c.Name)
	}
	return reply
}

func held(hs []publish.Held) []control.Held {
	out := make([]control.Held, 0, len(hs))
	for _, h := range hs {
		c := control.Held{USE: append([]string{}, h.USE...), Reason: build.OneLine(h.Reason, 300)}
		if !h.CPV.IsZero() {
			c.CPV = h.CPV.String()
		}
		out = append(out, c)
	}
	return out
}

func changes(cs []release.Change) []control.Change {
	out := make([]control.Change, 0, len(cs))
	for _, c := range cs {
		e := c.New
		if e == nil {
			e = c.Old
		}
		out = append(out, control.Change{Kind: string(c.Kind), CPV: e.CPV.String(), USE: append([]string{}, strings.Fields(e.USE())...), Size: e.Artifact.Size, CID: e.Artifact.CID})
	}
	return out
}

// releaseError is an error of package publish for people.
func releaseError(err error) error {
	e := &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 1000)}
	switch {
	case errors.Is(err, publish.ErrUnknown):
		e.Kind, e.Hint = control.KindNotFound, "swarm releases lists them"
		e.Message = strings.TrimPrefix(e.Message, publish.ErrUnknown.Error()+": ")
	case errors.Is(err, publish.ErrRefused):
		e.Message = strings.TrimPrefix(e.Message, publish.ErrRefused.Error()+": ")
		e.Hint = "swarm releases lists what there is"
	case errors.Is(err, publish.ErrNothing):
		e.Message = strings.TrimPrefix(e.Message, publish.ErrNothing.Error()+": ")
		e.Hint = "swarm releases lists what there is"
	}
	return e
}

// Rollback moves a channel to another kept release.
func (d *Daemon) Rollback(ctx context.Context, req control.RollbackRequest) (control.RollbackReply, error) {
	if err := d.mayRelease(ctx, req.Target); err != nil {
		return control.RollbackReply{}, err
	}
	b, err := d.Publisher.Rollback(ctx, req.Target, req.Release, req.Try)
	if err != nil {
		return control.RollbackReply{}, releaseError(err)
	}
	reply := control.RollbackReply{Schema: view.Schema, Target: req.Target, Done: !req.Try, From: b.From.Number, To: b.To.Number, Release: b.To.Release, Repos: append([]build.Revision{}, b.Repos...), Downs: []control.Down{}, Unread: b.Unread}
	for _, x := range b.Downs {
		reply.Downs = append(reply.Downs, control.Down{Package: x.CP, Slot: x.Slot, From: x.From, To: x.To})
	}
	return reply, nil
}

// Mark pins or prunes a release.
func (d *Daemon) Mark(ctx context.Context, req control.MarkRequest) (control.Release, error) {
	if err := d.mayRelease(ctx, req.Target); err != nil {
		return control.Release{}, err
	}
	l, err := d.Publisher.Mark(ctx, req.Target, req.Release, req.Pin, req.Prune)
	if err != nil {
		return control.Release{}, releaseError(err)
	}
	return control.Release{Listing: l.Listing}, nil
}

// Diff compares two releases, each a number, the end of a CID, or "staging".
// Without a name from is what is shown, and to what is staged.
func (d *Daemon) Diff(ctx context.Context, target, from, to string) (control.DiffReply, error) {
	reply := control.DiffReply{Schema: view.Schema, Target: target, Failing: []control.Held{}, Held: []control.Held{}}
	head, all, err := d.released(ctx, target)
	if err != nil {
		return reply, err
	}
	if to == "" {
		to = control.Staging
	}
	if from == "" && head != nil {
		from = head.Release
	}
	a, since, name, _, err := d.manifest(ctx, target, from, all, head)
	if err != nil {
		return reply, releaseError(err)
	}
	reply.From = name
	b, until, name, out, err := d.manifest(ctx, target, to, all, head)
	if err != nil {
		return reply, releaseError(err)
	}
	reply.Held = held(out)
	reply.To, reply.Changes = name, changes(release.Diff(a, b))
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		reply.Failing = failing(r, target, since, until, now)
		return nil
	})
	return reply, err
}

// manifest finds a release by name, and when it was made, in seconds since
// 1970 (0: before everything; of what is staged: after everything, and with what
// would be held back).
func (d *Daemon) manifest(ctx context.Context, target, name string, all []claims.Listed, head *release.Channel) (*release.Manifest, int64, string, []publish.Held, error) {
	switch name {
	case "":
		return nil, 0, "nothing", nil, nil
	case control.Staging:
		s, err := d.Publisher.Stage(ctx, publish.Request{Target: target})
		if err != nil {
			return nil, 0, "", nil, err
		}
		return &s.Manifest, 1 << 40, control.Staging, s.Held, nil
	}
	l, err := publish.Find(all, head, name)
	if err != nil {
		return nil, 0, "", nil, err
	}
	m, err := publish.LoadManifest(ctx, d.Store, d.Requester.Fetch, l.Release)
	return m, l.Created, fmt.Sprint(l.Number), nil, err
}

// failing lists the packages of a target that failed in a span of time, in
// seconds since 1970, and were not built since.
func failing(r *claims.Replica, target string, since, until int64, now claims.Now) []control.Held {
	out := []control.Held{}
	seen := map[build.Key]bool{}
	for _, rd := range r.Rounds() {
		if rd.Target != target {
			continue
		}
		for _, info := range r.SurveyRound(rd.ID, now) {
			if seen[info.Job.Key] || info.Good != nil {
				continue
			}
			seen[info.Job.Key] = true
			rs := r.Results(info.Job.Key)
			i := slices.IndexFunc(rs, func(o claims.Result) bool {
				return o.Class == build.BadPackage && o.Stamp.Millis()/1000 > since && o.Stamp.Millis()/1000 <= until
			})
			if i >= 0 {
				out = append(out, control.Held{CPV: info.Job.CPV.String(), USE: append([]string{}, info.Job.USE...), Reason: build.OneLine(rs[i].Reason, 200)})
			}
		}
	}
	slices.SortFunc(out, func(a, b control.Held) int { return strings.Compare(a.CPV, b.CPV) })
	return out
}

// Subscribe publishes what this machine has installed.
func (d *Daemon) Subscribe(ctx context.Context, set []byte) error {
	s, err := release.DecodeInstalled(set)
	if err != nil {
		return &control.Error{Kind: control.KindUsage, Message: build.OneLine(err.Error(), 300)}
	}
	if pp, err := d.portage(); err == nil {
		// Without them the set is of use all the same.
		if s.Options, err = pp.Portage.WantOptions(ctx); err != nil {
			d.Ground.Log.Warn("the default options of emerge are not published", "error", err)
		}
	}
	return publish.Subscribe(ctx, d.Agent, d.Store, d.Requester.Announce, s)
}

// Unsubscribe takes it back.
func (d *Daemon) Unsubscribe(ctx context.Context, target string) error {
	return publish.Unsubscribe(ctx, d.Agent, target)
}
