package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
)

// Request says what to release.
type Request struct {
	Target  string
	Without []build.Atom // packages that a person keeps out
	// Again lets Finalize try what gates refused the last time though nothing else
	// is new.
	Again bool
}

// Held is a package that stays out, and why, in one line for people.
type Held struct {
	CPV    build.CPV `json:"cpv"`
	USE    []string  `json:"use"`
	Reason string    `json:"reason"`
}

// Staged is what would be released now.
type Staged struct {
	Target    string
	Head      *release.Channel // what is shown now; nil for a first release
	Prev      *release.Manifest
	Manifest  release.Manifest
	Held      []Held
	Changes   []release.Change // against Prev; they point into Prev and Manifest
	Consumers []release.Consumer
	Install   *Installed // what an install test came to; nil before the gates

	rounds []string         // open rounds of which all is built
	memory release.HeldBack // what gates refused the last time
}

// board is what staging reads from the board at one moment.
type board struct {
	head      *release.Channel
	entries   []release.Entry
	held      []Held
	tree      string
	repos     []build.Revision // of tree
	header    []build.Pair
	rounds    []string
	seeds     map[string]bool // CIDs that may enter no release
	others    []string        // releases made at once with another: their packages are candidates
	consumers []release.Subscription
	names     map[string]string // of peers
	jobs      map[build.Key]build.CPV
	memory    release.HeldBack
}

// Stage composes what would be released now, as far as that is known: what gates
// refused the last time stays out. It changes nothing.
func (p *Publisher) Stage(ctx context.Context, req Request) (*Staged, error) {
	return p.stage(ctx, req, nil)
}

// stage composes a release without what is refused; nil = without what gates
// refused the last time.
func (p *Publisher) stage(ctx context.Context, req Request, refused refusals) (*Staged, error) {
	var b board
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		b = look(r, req.Target, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s := &Staged{Target: req.Target, Head: b.head, Held: b.held, rounds: b.rounds, memory: b.memory}
	if b.head != nil {
		if s.Prev, err = LoadManifest(ctx, p.Store, p.Fetch, b.head.Release); err != nil {
			if p.nowhere(ctx, b.head.Release) {
				err = fmt.Errorf("no peer that is here has what %s/%s shows; swarm rollback goes to a release that can be read: %w", req.Target, release.Stable, err)
			}
			return nil, err
		}
		b.header = orHeader(b.header, s.Prev.Header)
		if b.tree == "" {
			b.tree, b.repos = s.Prev.Tree, s.Prev.Repos
		}
	}
	for _, other := range b.others {
		m, err := LoadManifest(ctx, p.Store, p.Fetch, other)
		if err != nil {
			s.Held = append(s.Held, Held{Reason: fmt.Sprintf("the packages of release %s, made at once with the one that is shown: %v", other, err)})
			continue
		}
		b.entries = append(b.entries, newcomers(m.Entries, s.Prev, b.entries)...)
		b.header = orHeader(b.header, m.Header)
	}
	for _, sub := range b.consumers {
		set, err := LoadInstalled(ctx, p.Store, p.Fetch, sub.Installed)
		if err != nil {
			return nil, fmt.Errorf("what %s has installed cannot be read, so nothing can be said about it: %w", b.names[sub.Peer], err)
		}
		s.Consumers = append(s.Consumers, release.Consumer{Name: b.names[sub.Peer], Set: set})
	}
	opt := release.Options{Target: req.Target, Tree: b.tree, Repos: b.repos, Header: b.header, Consumers: s.Consumers, Out: map[string]string{}, Names: b.jobs}
	for _, h := range b.memory.Packages {
		if refused == nil {
			opt.Out[h.CID] = h.Reason
		}
	}
	for c, h := range refused {
		opt.Out[c] = h.Reason
	}
	for i := range b.entries {
		e := &b.entries[i]
		switch {
		case kept(e, req.Without):
			opt.Out[e.Artifact.CID] = "kept out on request"
		case b.seeds[e.Artifact.CID]:
			opt.Out[e.Artifact.CID] = "it is lent by a requester for builds alone (a seed)"
		}
	}
	if s.Prev != nil {
		for i := range s.Prev.Entries {
			if kept(&s.Prev.Entries[i], req.Without) {
				opt.Without = append(opt.Without, s.Prev.Entries[i].Key)
			}
		}
	}
	m, held, err := release.Compose(s.Prev, b.entries, opt)
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		s.hold(&h.Entry, h.Reason)
	}
	slices.SortStableFunc(s.Held, func(a, b Held) int { return strings.Compare(a.CPV.String(), b.CPV.String()) })
	s.Manifest = m
	s.Changes = release.Diff(s.Prev, &s.Manifest)
	return s, nil
}

func (s *Staged) hold(e *release.Entry, reason string) {
	s.Held = append(s.Held, Held{e.CPV, strings.Fields(e.USE()), reason})
}

func orHeader(a, b []build.Pair) []build.Pair {
	if len(a) > 0 {
		return a
	}
	return b
}

func kept(e *release.Entry, out []build.Atom) bool {
	slot, err := build.ParseSlot(e.Slot)
	return err == nil && slices.ContainsFunc(out, func(a build.Atom) bool { return release.Matches(&a, e.CPV, slot) })
}

// newcomers are the entries of another release that neither the shown one nor
// a round has an opinion on.
func newcomers(es []release.Entry, prev *release.Manifest, have []release.Entry) []release.Entry {
	type name struct{ cpv, use string }
	known := map[name]bool{}
	add := func(list []release.Entry) {
		for i := range list {
			known[name{list[i].CPV.String(), list[i].USE()}] = true
		}
	}
	if prev != nil {
		add(prev.Entries)
	}
	add(have)
	var out []release.Entry
	for i := range es {
		if !known[name{es[i].CPV.String(), es[i].USE()}] {
			out = append(out, es[i])
		}
	}
	return out
}

// look reads what a target's open rounds brought, the newest round first: what
// it asks for counts, and an older round's build of the same package does not.
func look(r *claims.Replica, target string, now claims.Now) board {
	b := board{head: r.Channel(target, release.Stable), seeds: map[string]bool{}, names: map[string]string{}, jobs: map[build.Key]build.CPV{}}
	type name struct{ cpv, use string }
	seen := map[name]bool{}
	for _, rd := range r.Rounds() {
		if rd.Target != target || rd.State != build.RoundOpen {
			continue
		}
		_, plan, _ := r.Round(rd.ID)
		if plan == nil {
			continue
		}
		b.header = orHeader(b.header, plan.Header)
		if b.tree == "" {
			b.tree, b.repos = plan.Tree, plan.Repos
		}
		for i := range plan.Jobs {
			b.jobs[plan.Jobs[i].Key] = plan.Jobs[i].CPV
			for _, in := range plan.Jobs[i].Root.All() {
				if in.Seed != "" {
					b.seeds[in.Seed] = true
				}
			}
		}
		all := true
		for _, info := range r.SurveyRound(rd.ID, now) {
			if info.Job.Seed { // it is for others to be built with
				all = all && info.State.Done()
				continue
			}
			all = all && info.State == claims.JobSafe
			id := name{info.Job.CPV.String(), strings.Join(info.Job.USE, " ")}
			if seen[id] {
				continue
			}
			seen[id] = true
			if info.State == claims.JobSafe {
				b.entries = append(b.entries, entryOf(info))
			} else {
				b.held = append(b.held, Held{info.Job.CPV, info.Job.USE, unsafe(info, r)})
			}
		}
		if all {
			b.rounds = append(b.rounds, rd.ID)
		}
	}
	for _, l := range claims.Contested(r.Releases(target)) {
		if b.head == nil || l.Release != b.head.Release {
			b.others = append(b.others, l.Release)
		}
	}
	b.memory = r.HeldBack(target)
	b.consumers = r.Subscriptions(target)
	for _, s := range b.consumers {
		b.names[s.Peer] = r.Name(s.Peer)
	}
	return b
}

// unsafe says why a job's package cannot enter yet.
func unsafe(info claims.JobInfo, r *claims.Replica) string {
	switch info.State {
	case claims.JobAvailable:
		return fmt.Sprintf("has %d of the %d copies that make it safe", info.Copies, info.Wanted)
	case claims.JobBlocked:
		if n := len(info.Failures); n > 0 {
			return "does not build: " + build.OneLine(info.Failures[n-1].Reason, 200)
		}
		if j := r.Job(info.Cause); j != nil {
			return "waits for " + j.CPV.String() + ", which does not build"
		}
		return "does not build"
	case claims.JobAway:
		return "is built, and its holders are away"
	case claims.JobBuilding, claims.JobClaimed:
		return "is being built by " + r.Name(info.Holder)
	case claims.JobUnfit:
		return "no drone that is here can build it"
	}
	return "is not built yet"
}

func entryOf(info claims.JobInfo) release.Entry {
	e := release.Entry{Key: info.Job.Key, CPV: info.Job.CPV, Slot: info.Job.Slot, Artifact: *info.Good.Artifact, Keywords: info.Job.Keywords}
	if e.Keywords == "" { // the planner knows no tree
		e.Keywords = e.Meta("KEYWORDS")
	}
	for _, n := range info.Job.Needs {
		if n.Kind&(build.Runtime|build.RuntimePost) != 0 {
			e.Needs = append(e.Needs, n.Key)
		}
	}
	slices.Sort(e.Needs)
	return e
}
