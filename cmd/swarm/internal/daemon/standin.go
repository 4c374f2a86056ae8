package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// away is another machine that is planned for here: of a target that is not this
// machine's, and what that machine has published of itself.
type away struct {
	nick   string
	bundle *build.Bundle
	set    *release.Installed // nil: it has published nothing, and packages were named
	lent   map[build.CPV]string
}

// another is the machine whose target it is, or the consumer that was named. What
// is installed here says nothing about what that machine needs; what it has
// published does.
func (d *Daemon) another(ctx context.Context, req control.FreshRequest, t *claims.Target, step func(string, string, string, ...any)) (*away, error) {
	a := &away{}
	var err error
	if a.bundle, err = d.bundle(ctx, t.Bundle); err != nil {
		return nil, err
	}
	var sub *release.Subscription
	var refused error
	var told int64 // milliseconds since 1970
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		who := t.Author
		if req.For != "" {
			if who, refused = peerNamed(r, req.For, now); refused != nil {
				return nil
			}
		}
		a.nick, a.lent = r.Name(who), lentBy(r, t.Name, who)
		subs := slices.DeleteFunc(r.Subscriptions(t.Name), func(s release.Subscription) bool { return s.Peer == r.Self() })
		i := slices.IndexFunc(subs, func(s release.Subscription) bool { return s.Peer == who })
		switch {
		case i >= 0:
		case req.For == "" && len(subs) == 1:
			i, a.nick, a.lent = 0, r.Name(subs[0].Peer), lentBy(r, t.Name, subs[0].Peer)
		case req.For == "" && len(subs) > 1:
			var names []string
			for _, s := range subs {
				names = append(names, r.Name(s.Peer))
			}
			refused = &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("%s have published what they have installed for target %s", build.OneLine(strings.Join(names, ", "), 200), t.Name),
				Hint: "say for which: swarm fresh --target " + t.Name + " --for " + names[0]}
		}
		if i >= 0 {
			sub, told = &subs[i], r.Subscribed(subs[i]).Millis()
		}
		return nil
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, err
	}
	if sub == nil && (len(req.Atoms) == 0 || slices.ContainsFunc(req.Atoms, func(atom string) bool { return strings.HasPrefix(atom, "@") })) {
		return nil, &control.Error{Kind: control.KindUsage,
			Message: fmt.Sprintf("target %s is not this machine's, and %s has not published what it has installed: nobody else can say what it needs", t.Name, a.nick),
			Hint:    fmt.Sprintf("on %s: swarm portage setup --target %s; or name packages: swarm fresh --target %s ATOM...", a.nick, t.Name, t.Name)}
	}
	if sub == nil {
		step("configuration", "warn", "target %s, version %d, of %s, which publishes nothing of what it has installed: planned for an empty root", t.Name, t.Version, a.nick)
		return a, nil
	}
	if a.set, err = publish.LoadInstalled(ctx, d.Store, d.Requester.Fetch, sub.Installed); err != nil {
		return nil, fmt.Errorf("read what %s has installed: %w", a.nick, err)
	}
	step("configuration", "done", "target %s, version %d, for %s, with the %s that it published %s ago", t.Name, t.Version, a.nick, plural(len(a.set.Packages), "package"),
		age(max(0, time.Now().UnixMilli()-told)/1000))
	return a, nil
}

// lentBy are the installed packages that a machine has lent to rounds of its own for
// a target, as far as these are known; of each the last.
func lentBy(r *claims.Replica, target, peer string) map[build.CPV]string {
	out := map[build.CPV]string{}
	for _, rd := range r.Rounds() {
		_, p, _ := r.Round(rd.ID)
		if rd.Target != target || rd.Requester != peer || p == nil {
			continue
		}
		for i := range p.Jobs {
			for _, e := range p.Jobs[i].Root.All() {
				if e.Seed != "" && out[e.CPV] == "" {
					out[e.CPV] = e.Seed
				}
			}
		}
	}
	return out
}

// standIn makes this machine's Portage plan for the other machine, until done is
// called.
func (d *Daemon) standIn(ctx context.Context, pp PortagePlanner, a *away, target string, step func(string, string, string, ...any)) (_ PortagePlanner, done func() error, err error) {
	repos, err := d.placesOf(ctx, pp, a.bundle, target, step)
	if err != nil {
		return pp, nil, err
	}
	dir, err := os.MkdirTemp("", "swarm-standin-")
	if err != nil {
		return pp, nil, fmt.Errorf("stand in for %s: %w", a.nick, err)
	}
	done = func() error { return os.RemoveAll(dir) }
	pp.Portage, err = pp.Portage.StandIn(ctx, dir, emerge.Machine{Bundle: a.bundle, Repos: repos, Installed: a.set})
	if err != nil {
		return pp, nil, errors.Join(err, done())
	}
	return pp, done, nil
}

// placesOf says where the repositories of a configuration lie here: this machine's
// own, and of those that it lacks the snapshots of the target's newest round.
func (d *Daemon) placesOf(ctx context.Context, pp PortagePlanner, b *build.Bundle, target string, step func(string, string, string, ...any)) (map[string]string, error) {
	own, err := pp.Portage.Trees(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, t := range own {
		out[t.Name] = t.Path
	}
	var lacks []string
	for _, r := range b.Repos {
		if out[r.Name] == "" {
			lacks = append(lacks, r.Name)
		}
	}
	if len(lacks) == 0 {
		return out, nil
	}
	var brought []build.Snapshot
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, rd := range r.Rounds() {
			if _, p, _ := r.Round(rd.ID); rd.Target == target && p != nil && len(p.Trees) > 0 {
				brought = p.Trees
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range lacks {
		i := slices.IndexFunc(brought, func(s build.Snapshot) bool { return s.Name == name })
		if i < 0 || d.Ground == nil {
			return nil, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("target %s uses the repository %s, which this machine lacks, and no round of the target has brought a snapshot of it", target, name),
				Hint: "add the repository here (eselect repository enable " + name + "), or run swarm fresh on a machine that has it"}
		}
		at, err := d.Ground.Trees.Open(ctx, brought[i:i+1])
		if err != nil {
			return nil, err
		}
		out[name] = cmp.Or(at[name], out[name])
		step("tree", "done", "%s %.8s comes from the target's newest round: this machine has none", name, brought[i].Digest)
	}
	return out, nil
}
