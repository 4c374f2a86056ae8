package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/view"
)

const (
	// stagingEvery and stagingFactor bound how often releases are composed for
	// people to look at: not again before so long, and 1 of so much of the time.
	stagingEvery  = 5 * time.Second
	stagingFactor = 200
	// stagingWithin bounds one: what it needs may have to be fetched.
	stagingWithin = 3 * time.Second
)

// staging keeps what would be released now, for every screen that asks. Its
// methods may be called from any goroutine.
type staging struct {
	mu    sync.Mutex
	made  map[string]view.Staging
	until time.Time // they are fresh enough
}

// of returns what releases of these targets would bring, composed by compose.
func (s *staging) of(ctx context.Context, targets []string, compose func(context.Context, string) view.Staging) []view.Staging {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	stale := began.After(s.until)
	made := make(map[string]view.Staging, len(targets))
	out := []view.Staging{}
	for _, t := range targets {
		x, ok := s.made[t]
		if stale || !ok {
			x = compose(ctx, t)
		}
		made[t] = x
		out = append(out, x)
	}
	s.made = made
	if stale {
		s.until = time.Now().Add(max(stagingEvery, time.Since(began)*stagingFactor))
	}
	return out
}

// staged is what releases of the targets with open rounds would bring now.
func (d *Daemon) staged(ctx context.Context, rounds []view.Round) []view.Staging {
	var targets []string
	for _, r := range rounds {
		if r.State == string(build.RoundOpen) && r.PlanKnown && !slices.Contains(targets, r.Target) {
			targets = append(targets, r.Target)
		}
	}
	if d.Publisher == nil || len(targets) == 0 {
		return []view.Staging{}
	}
	slices.Sort(targets)
	return d.staging.of(ctx, targets, d.stage)
}

func (d *Daemon) stage(ctx context.Context, target string) view.Staging {
	ctx, cancel := context.WithTimeout(ctx, stagingWithin)
	defer cancel()
	out := view.Staging{Target: target, Why: []view.HeldBack{}}
	s, err := d.Publisher.Stage(ctx, publish.Request{Target: target})
	if err != nil {
		out.Problem = build.OneLine(err.Error(), 200)
		return out
	}
	out.Held = len(s.Held)
	for _, h := range held(s.Held[:min(len(s.Held), view.MaxHeldWhy)]) {
		out.Why = append(out.Why, view.HeldBack{CPV: h.CPV, Reason: h.Reason})
	}
	for _, c := range pageChanges(s.Changes) {
		switch c.Kind {
		case "new":
			out.New++
		case "changed":
			out.Changed++
		case "gone":
			out.Gone++
		}
	}
	return out
}
