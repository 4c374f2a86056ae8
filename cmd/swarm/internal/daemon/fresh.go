package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/request"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// freshWord begins the command of a round that Fresh made: the next one takes
// its place.
const freshWord = "swarm fresh"

// Fresh plans what this machine needs to be up to date, or another one whose target
// is named, and asks the swarm for it: the target's configuration as it is now, both
// plans of Portage, what breaks cycles, and a round in place of the one before.
func (d *Daemon) Fresh(ctx context.Context, req control.FreshRequest, say func(control.FreshStep)) (reply control.FreshReply, err error) {
	var none control.FreshReply
	pp, err := d.portage()
	if err != nil {
		return none, err
	}
	if req.Target == "" {
		req.Target = pp.Target
	}
	atoms, options, err := freshAtoms(req)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	step := func(name, state, format string, args ...any) {
		say(control.FreshStep{Name: name, State: state, Text: fmt.Sprintf(format, args...)})
	}

	old, err := d.earlier(ctx, req)
	if err != nil {
		return none, err
	}
	switch n := len(old); n {
	case 0:
		step("rounds", "done", "no earlier round of this machine is open")
	default:
		step("rounds", "done", "%s of this machine will be replaced; what it has built counts", plural(n, "earlier round"))
	}

	step("configuration", "doing", "Portage evaluates it")
	t, other, err := d.current(ctx, req, step)
	if err != nil {
		return none, err
	}
	if other != nil {
		var done func() error
		if pp, done, err = d.standIn(ctx, pp, other, req.Target, step); err != nil {
			return none, err
		}
		defer func() { err = errors.Join(err, done()) }()
		if other.set != nil {
			options = slices.Concat(other.set.Options, options)
		}
	}
	plan, err := d.planFresh(ctx, pp, req, t, other, atoms, options, step)
	if err != nil {
		return none, err
	}
	crossing, err := d.cross(ctx, plan)
	if err != nil {
		return none, err
	}
	reply = control.FreshReply{Target: req.Target, Needed: len(plan.Want), Base: plan.Base, BuildReply: summary(plan), Crossed: cpvNames(crossing.Taken), Own: cpvNames(crossing.Own)}
	if reply.Have, err = d.have(ctx, plan); err != nil {
		return none, err
	}
	reply.Seeds, reply.Bootstrap = lentIn(plan)
	if b, err := build.Marshal(plan); err == nil {
		reply.PlanBytes = len(b)
	}
	who, where := "this machine", "here"
	if other != nil {
		who, where = other.nick, "on "+other.nick
	}
	tellFresh(step, reply, plan, where)
	switch {
	case len(plan.Jobs) == 0 && len(plan.Dropped)+len(plan.Missing) == 0:
		step("round", "done", "%s is up to date: nothing to ask for", who)
		return reply, nil
	case len(plan.Jobs) == 0:
		return reply, nothingPlanned(plan)
	case req.DryRun:
		step("round", "done", "not asked for: this was a look only")
		return reply, nil
	}
	prio := build.Normal
	if len(plan.Want) <= request.SmallRound {
		prio = build.WaitedFor
	}
	if reply.Round, err = d.Requester.Submit(ctx, plan, prio); err != nil {
		return none, err
	}
	step("round", "done", "%s asks for them", reply.Round)
	return reply, d.replace(ctx, old, plan)
}

// tellFresh says what a plan came to.
func tellFresh(step func(string, string, string, ...any), reply control.FreshReply, plan *build.Plan, where string) {
	step("plan", "done", "%s needed %s; %s in all, %d of them the swarm has", plural(len(plan.Want), "package"), where, plural(len(plan.Jobs), "job"), reply.Have)
	if n := len(reply.Crossed); n > 0 {
		step("other targets", "done", "%s of theirs, built or asked for, serve this one", plural(n, "package"))
	}
	if n := len(reply.Own); n > 0 {
		step("other targets", "done", "%s of theirs not, since what they were built against differs: %s", plural(n, "package"), build.OneLine(strings.Join(reply.Own, " "), 300))
	}
	if n := len(reply.Seeds); n > 0 {
		step("cycles", "done", "%s lent to break cycles: %s", plural(n, "installed package"), strings.Join(reply.Seeds, " "))
	}
	if n := len(reply.Bootstrap); n > 0 {
		step("cycles", "done", "%s with other flags to break cycles: %s", plural(n, "bootstrap build"), strings.Join(reply.Bootstrap, " "))
	}
	if n := len(plan.Dropped) + len(plan.Missing); n > 0 {
		step("left out", "warn", "%s, each with its reason below", plural(n, "package"))
	}
}

// plural counts a thing.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// freshAtoms are what is planned, and the options of emerge for it.
func freshAtoms(req control.FreshRequest) (atoms, options []string, err error) {
	atoms = slices.Clone(req.Atoms)
	for _, a := range atoms {
		if strings.HasPrefix(a, "@") && len(a) > 1 {
			continue
		}
		if _, err := build.ParseAtom(a); err != nil {
			return nil, nil, &control.Error{Kind: control.KindUsage, Message: err.Error(), Hint: "for example: swarm fresh @world"}
		}
	}
	switch {
	case req.Full && len(atoms) == 0:
		atoms = []string{"@system", "@world"}
	case len(atoms) == 0:
		atoms = []string{"@world"}
	}
	if req.Full {
		options = []string{"--emptytree", "--with-bdeps=y"}
	}
	return atoms, options, nil
}

// earlier lists the open rounds that this machine's earlier Fresh made and this
// one takes the place of: all of them if it is for everything, else the same.
func (d *Daemon) earlier(ctx context.Context, req control.FreshRequest) (ids []string, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, rd := range r.Rounds() {
			all := len(req.Atoms) == 0 && req.For == "" && !req.Named && !strings.Contains(rd.Command, " --for ")
			if rd.State == build.RoundOpen && rd.Target == req.Target && rd.Requester == d.Host.Self() && (req.Named || strings.HasPrefix(rd.Command, freshWord)) &&
				(all || rd.Command == build.OneLine(req.Command, 200)) {
				ids = append(ids, rd.ID)
			}
		}
		return nil
	})
	return ids, err
}

// current is the target as this machine's configuration has it: a new version
// if that changed. For a target with another configuration, and for a consumer that
// is named, it is the target as it stands, and the machine that is planned for.
func (d *Daemon) current(ctx context.Context, req control.FreshRequest, step func(string, string, string, ...any)) (build.Target, *away, error) {
	var none build.Target
	old, err := d.target(ctx, req.Target)
	if err != nil {
		return none, nil, err
	}
	if req.For != "" {
		var who string
		var unknown error
		err := d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			who, unknown = peerNamed(r, req.For, now)
			return nil
		})
		if err := errors.Join(err, unknown); err != nil {
			return none, nil, err
		}
		if who == d.Host.Self() {
			req.For = ""
		}
	}
	theirs := old != nil && old.State == build.TargetLive && (old.Author != d.Host.Self() || req.For != "")
	if req.For != "" && !theirs {
		_, err := d.targetLine(ctx, req.Target)
		return none, nil, err
	}
	b, err := d.evaluate(ctx, "")
	if theirs {
		// A machine whose own configuration cannot be read may plan for others.
		mine := false
		if err == nil && req.For == "" {
			was, err := d.bundle(ctx, old.Bundle)
			if err != nil {
				return none, nil, err
			}
			mine = len(b.Diff(was)) == 0
		}
		if !mine {
			other, err := d.another(ctx, req, old, step)
			return old.Target, other, err
		}
		step("configuration", "done", "the same as target %s, version %d", req.Target, old.Version)
		return old.Target, nil, nil
	}
	if err != nil {
		return none, nil, err
	}
	if req.DryRun && old == nil {
		step("configuration", "done", "target %s would be new", req.Target)
		return none, nil, nil
	}
	reply, err := d.putTarget(ctx, control.TargetRequest{Name: req.Target}, b)
	if err != nil {
		return none, nil, err
	}
	switch {
	case reply.New:
		step("configuration", "done", "target %s is new: %s", req.Target, reply.Profile)
	case reply.Changed:
		what := make([]string, 0, 3)
		for _, c := range reply.Changes {
			if len(what) < 3 {
				what = append(what, c.What)
			}
		}
		step("configuration", "done", "target %s is now version %d: %s changed", req.Target, reply.Version, strings.Join(what, ", "))
	default:
		step("configuration", "done", "target %s, version %d, as before", req.Target, reply.Version)
	}
	if n := len(reply.Excluded); n > 0 {
		step("drones", "warn", "%s cannot build for it: %s: %s", plural(n, "drone"), reply.Excluded[0].Nick, reply.Excluded[0].Reason)
	}
	return reply.Target, nil, nil
}

func (d *Daemon) planFresh(ctx context.Context, pp PortagePlanner, req control.FreshRequest, t build.Target, other *away, atoms, options []string,
	step func(string, string, string, ...any),
) (*build.Plan, error) {
	ask := emerge.PlanRequest{
		Target: req.Target, Atoms: atoms, Update: !req.Named, Cache: true, Options: options, Keep: d.keepFile, Bundle: t.Bundle, Base: t.Base, Strict: t.Rebuild == build.RebuildStrict,
	}
	if other != nil {
		// The packages of that machine are not here to be lent.
		ask.Keep, ask.Lent, ask.Cache = nil, func(c build.CPV) string { return other.lent[c] }, false
	}
	if !t.Base.IsZero() {
		if !req.DryRun {
			ask.KeepTree = pp.Snapshots.Keep
		}
		var err error
		if ask.BaseHas, err = d.base(ctx, t.Base); err != nil {
			return nil, err
		}
		step("base", "done", "%s, with %s", t.Base.Name, plural(len(ask.BaseHas), "package"))
	}
	step("plan", "doing", "Portage works out %s", strings.Join(atoms, " "))
	var plan *build.Plan
	words := strings.Join(atoms, " ")
	err := d.took.tell(ctx, "plan "+build.OneLine(words, 60), "fresh "+words, func() (err error) {
		plan, err = pp.ask(ctx, ask)
		return err
	})
	if err != nil {
		return nil, err
	}
	plan.Command = req.Command
	if other != nil {
		plan.Header = other.bundle.Header
	}
	for _, t := range plan.Trees {
		step("tree", "done", "%s %.8s goes with the round: drones build from it, not from their own", t.Name, t.Digest)
	}
	return plan, nil
}

// keepFile stores a file that a plan refers to.
func (d *Daemon) keepFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	info, err := d.Store.Put(ctx, f, cid.Undef)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return info.CID.String(), d.Requester.Announce(ctx, info.CID)
}

// summary is a plan for people.
func summary(p *build.Plan) control.BuildReply {
	reply := control.BuildReply{Schema: view.Schema, Jobs: len(p.Jobs), Wanted: []string{}, Dropped: append([]build.Note{}, p.Dropped...), Missing: append([]build.Note{}, p.Missing...)}
	want := make(map[build.Key]bool, len(p.Want))
	for _, k := range p.Want {
		want[k] = true
	}
	for i := range p.Jobs {
		if want[p.Jobs[i].Key] {
			reply.Wanted = append(reply.Wanted, p.Jobs[i].CPV.String())
		}
	}
	slices.Sort(reply.Wanted)
	return reply
}

// cross takes over what other targets have built, where it may.
func (d *Daemon) cross(ctx context.Context, p *build.Plan) (c build.Crossing, err error) {
	var crossErr error
	err = d.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		c, crossErr = p.Cross(r.Made)
		return nil
	})
	return c, errors.Join(err, crossErr)
}

func cpvNames(cpvs []build.CPV) []string {
	out := make([]string, 0, len(cpvs))
	for _, c := range cpvs {
		out = append(out, c.String())
	}
	return out
}

// have counts the jobs whose artifact a live peer holds.
func (d *Daemon) have(ctx context.Context, p *build.Plan) (n int, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for i := range p.Jobs {
			if r.Available(p.Jobs[i].Key, now) {
				n++
			}
		}
		return nil
	})
	return n, err
}

// lentIn names the seeds and bootstrap builds of a plan.
func lentIn(p *build.Plan) (seeds, boots []string) {
	seeds, boots = []string{}, []string{}
	seen := map[string]bool{}
	for i := range p.Jobs {
		if p.Jobs[i].Seed {
			boots = append(boots, p.Jobs[i].CPV.String())
		}
		for _, e := range p.Jobs[i].Root.All() {
			if e.Seed != "" && !seen[e.Seed] {
				seen[e.Seed] = true
				seeds = append(seeds, e.CPV.String())
			}
		}
	}
	slices.Sort(seeds)
	return seeds, boots
}

// replace ends the rounds that a new one takes the place of, and forgets the
// failures of what it asks for again.
func (d *Daemon) replace(ctx context.Context, old []string, p *build.Plan) error {
	return d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		var evs []claims.Event
		for _, id := range old {
			evs = append(evs, claims.Post{Body: claims.Directive{Verb: claims.VerbCancel, Scope: id, Reason: "a newer swarm fresh takes its place"}})
		}
		for i := range p.Jobs {
			k := p.Jobs[i].Key
			if slices.ContainsFunc(r.Results(k), func(o claims.Result) bool { return o.Class == build.BadPackage }) && !r.Available(k, now) {
				evs = append(evs, claims.Post{Body: claims.Directive{Verb: claims.VerbUnblock, Scope: string(k), Reason: "asked for again by swarm fresh"}})
			}
		}
		return evs
	})
}
