package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
)

var (
	// ErrNothing: the channel shows all that could be released.
	ErrNothing = errors.New("nothing to release")
	// ErrRefused: a gate holds the release back, or a rollback is not possible.
	ErrRefused = errors.New("refused")
)

// KeepReleases is how many releases of a target are kept beside the one that is
// shown, the one before it, and pinned ones.
const KeepReleases = 10

// Released is what a finalize or a rollback came to.
type Released struct {
	Staged
	Shown   release.Channel
	Listing release.Listing
}

// attempts bounds how often a release is made again because the channel moved.
const attempts = 5

// Finalize makes a release of what is staged and moves the channel to it. What a
// gate refuses is held back by itself, with all that needs it, and the rest goes
// through the gates again. The error wraps ErrNothing or ErrRefused; the result is
// then what was staged.
func (p *Publisher) Finalize(ctx context.Context, req Request) (*Released, error) {
	p.making.Lock()
	defer p.making.Unlock()
	if !req.Again {
		s, err := p.Stage(ctx, req)
		if err != nil {
			return nil, err
		}
		if len(s.Changes) == 0 {
			return p.nothing(ctx, s)
		}
	}
	refused := refusals{}
	for range attempts {
		out, err := p.pass(ctx, req, refused)
		if err == nil || errors.Is(err, ErrRefused) {
			if rerr := p.remember(ctx, req.Target, refused); rerr != nil {
				return out, rerr
			}
		}
		if err != nil {
			return out, err
		}
		moved, err := p.show(ctx, out)
		if err != nil || moved {
			return out, err
		}
		// Somebody moved the channel meanwhile: on top of that, then.
	}
	return nil, fmt.Errorf("release %s: the channel moved %d times meanwhile", req.Target, attempts)
}

// nothing is the end where nothing is to be released.
func (p *Publisher) nothing(ctx context.Context, s *Staged) (*Released, error) {
	out := &Released{Staged: *s}
	if err := p.close(ctx, s); err != nil {
		return out, err
	}
	return out, ErrNothing
}

// close ends the rounds of which everything is in the release that is shown.
func (p *Publisher) close(ctx context.Context, s *Staged) error {
	return p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event { return closing(r, s) })
}

// closing closes rounds of which all is built and nothing was held back.
func closing(r *claims.Replica, s *Staged) []claims.Event {
	in := map[build.Key]bool{}
	for i := range s.Manifest.Entries {
		in[s.Manifest.Entries[i].Key] = true
	}
	var evs []claims.Event
	for _, id := range s.rounds {
		rd, plan, ok := r.Round(id)
		if !ok || rd.State != build.RoundOpen || plan == nil {
			continue
		}
		if slices.ContainsFunc(s.Held, func(h Held) bool {
			return slices.ContainsFunc(plan.Jobs, func(j build.Job) bool { return j.CPV == h.CPV && !in[j.Key] })
		}) {
			continue
		}
		rd.State, rd.Counter = build.RoundClosed, rd.Counter+1
		evs = append(evs, claims.Post{Body: claims.NewRound(rd)})
	}
	return evs
}

// show keeps the manifest, lists it and moves the channel; false when the
// channel is not where it was when the release was staged.
func (p *Publisher) show(ctx context.Context, out *Released) (bool, error) {
	m := &out.Manifest
	b, err := m.Encode()
	if err != nil {
		return false, err
	}
	info, err := p.Store.Put(ctx, bytes.NewReader(b), cid.Undef)
	if err != nil {
		return false, fmt.Errorf("keep the release: %w", err)
	}
	if err := p.Announce(ctx, info.CID); err != nil {
		return false, err
	}
	if err := p.second(ctx, info.CID); err != nil {
		return false, err
	}
	moved := false
	err = p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if !sameHead(r.Channel(out.Target, release.Stable), out.Head) {
			return nil
		}
		moved = true
		from := out.Head
		if from == nil {
			from = &release.Channel{Target: out.Target, Name: release.Stable}
		}
		out.Shown = release.Next(from, info.CID.String(), time.UnixMilli(now.Wall))
		out.Listing = listing(out)
		// The listing first: a head is never shown that nothing keeps.
		evs := []claims.Event{claims.Post{Body: claims.NewListing(out.Listing)}, claims.Post{Body: claims.NewChannel(out.Shown)}}
		evs = append(evs, closing(r, &out.Staged)...)
		return append(evs, aged(r.Releases(out.Target), out.Shown)...)
	})
	return moved, err
}

// secondWithin is how long a second peer may take to get a release's list of
// packages, some KiB to some MiB.
const secondWithin = time.Minute

// second has another peer hold a release before the channel shows it: if this
// machine dies now, the channel does not point to what nobody knows.
func (p *Publisher) second(ctx context.Context, c cid.Cid) error {
	if p.Replicate == nil {
		return nil
	}
	progress.Tell(ctx, progress.Step{What: "copy its list to a second peer"})
	limited, cancel := context.WithTimeout(ctx, secondWithin)
	defer cancel()
	err := p.Replicate(limited, c, 2)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		p.Log.Warn("release is shown before a second peer has its list", "cid", c)
		return nil
	}
	return err
}

func listing(out *Released) release.Listing {
	l := release.Listing{
		Target: out.Target, Release: out.Shown.Release, Number: out.Shown.Version, Previous: out.Shown.Previous, Created: out.Shown.Timestamp,
		Packages: len(out.Manifest.Entries), Tree: out.Manifest.Tree, State: release.Kept,
	}
	for i := range out.Manifest.Entries {
		l.Bytes += out.Manifest.Entries[i].Artifact.Size
	}
	for _, c := range out.Changes {
		switch c.Kind {
		case release.Added:
			l.New++
		case release.Replaced:
			l.Changed++
		case release.Gone:
			l.Gone++
		}
	}
	return l
}

// aged prunes what is older than the newest KeepReleases, but for what is
// shown, what was shown before it, and pins. Contested releases stay until a
// person has seen them.
func aged(all []claims.Listed, head release.Channel) []claims.Event {
	var evs []claims.Event
	contested := claims.Contested(all)
	left := KeepReleases
	for _, l := range all { // the newest first
		if l.State != release.Kept || l.Pin || l.Release == head.Release || l.Release == head.Previous || slices.Contains(contested, l) {
			continue
		}
		if left > 0 {
			left--
			continue
		}
		l.State = release.Pruned
		evs = append(evs, claims.Post{Body: claims.NewListing(l.Listing)})
	}
	return evs
}

func sameHead(a, b *release.Channel) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
