package publish

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/httpgateway/binhost"
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

// Finalize makes a release of what is staged and moves the channel to it. The
// error wraps ErrNothing or ErrRefused; the result is then what was staged.
func (p *Publisher) Finalize(ctx context.Context, req Request) (*Released, error) {
	p.making.Lock()
	defer p.making.Unlock()
	for range attempts {
		progress.Tell(ctx, progress.Step{What: "work out what can go in"})
		s, err := p.Stage(ctx, req)
		if err != nil {
			return nil, err
		}
		out := &Released{Staged: *s}
		if len(s.Changes) == 0 {
			if err := p.close(ctx, s); err != nil {
				return out, err
			}
			return out, ErrNothing
		}
		if err := p.gates(ctx, &out.Staged); err != nil {
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

// Trial is a staged release for Portage to try.
type Trial struct {
	Target    string
	Manifest  *release.Manifest
	New       []release.Entry // what was not in the release before
	Index     []byte          // Packages of Manifest
	Consumers []release.Consumer
	Open      func(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error)
}

// Installed is what an install test of a release came to.
type Installed struct {
	Peer     string   // name of the peer that installed; "" = nobody did
	Packages int      // that were installed, with those that they need
	Failed   []string // a line each
	Untried  string   // why nothing, or not all, was installed
}

// String says it in a line for people.
func (i *Installed) String() string {
	done := fmt.Sprintf("%s installed %d packages into a fresh root", i.Peer, i.Packages)
	switch {
	case i.Peer == "" || i.Packages == 0 && len(i.Failed) == 0:
		return "not made: " + i.Untried
	case len(i.Failed) > 0:
		return fmt.Sprintf("%s; %d could not be installed: %s", done, len(i.Failed), strings.Join(i.Failed, "; "))
	case i.Untried != "":
		return done + "; not all: " + i.Untried
	}
	return done
}

// gates checks a staged release; an error that wraps ErrRefused says what
// speaks against it.
func (p *Publisher) gates(ctx context.Context, s *Staged) error {
	var fresh []release.Entry
	for i, c := range s.Changes {
		progress.Tell(ctx, progress.Step{What: "read what is new", Done: int64(i), All: int64(len(s.Changes))})
		if c.New == nil || c.Old != nil && c.Old.Artifact.CID == c.New.Artifact.CID {
			continue
		}
		fresh = append(fresh, *c.New)
		if err := p.verify(ctx, c.New); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrRefused, c.New.CPV, err)
		}
	}
	text, err := binhost.Render(&s.Manifest, release.Channel{Target: s.Target, Name: release.Stable, Version: 1, Timestamp: 1})
	if err != nil {
		return fmt.Errorf("%w: its index cannot be written: %w", ErrRefused, err)
	}
	index, err := binhost.Parse(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%w: its index cannot be read: %w", ErrRefused, err)
	}
	if len(index.Entries) != len(s.Manifest.Entries) {
		return fmt.Errorf("%w: its index lists %d of %d packages", ErrRefused, len(index.Entries), len(s.Manifest.Entries))
	}
	var against []string
	if p.Try != nil {
		progress.Tell(ctx, progress.Step{What: "have Portage try it"})
		if against, err = p.Try(ctx, Trial{Target: s.Target, Manifest: &s.Manifest, New: fresh, Index: text, Consumers: s.Consumers, Open: p.Open}); err != nil {
			return fmt.Errorf("try the release with Portage: %w", err)
		}
	}
	if len(against) == 0 && p.Install != nil && len(fresh) > 0 {
		progress.Tell(ctx, progress.Step{What: "have another peer install it"})
		if against, err = p.install(ctx, s); err != nil {
			return fmt.Errorf("have the release installed by another peer: %w", err)
		}
	}
	if len(against) > 0 {
		return fmt.Errorf("%w: %s", ErrRefused, build.OneLine(strings.Join(against, "; "), 2000))
	}
	return nil
}

// install has another peer install what is staged, and returns what speaks
// against it.
func (p *Publisher) install(ctx context.Context, s *Staged) ([]string, error) {
	b, err := s.Manifest.Encode()
	if err != nil {
		return nil, err
	}
	info, err := p.Store.Put(ctx, bytes.NewReader(b), cid.Undef)
	if err != nil {
		return nil, fmt.Errorf("keep the release: %w", err)
	}
	if err := p.Announce(ctx, info.CID); err != nil {
		return nil, err
	}
	before := ""
	if s.Head != nil {
		before = s.Head.Release
	}
	got, err := p.Install(ctx, s.Target, info.CID.String(), before)
	if err != nil {
		return nil, err
	}
	s.Install = &got
	p.Log.Info("install test", "target", s.Target, "result", got.String())
	against := make([]string, len(got.Failed))
	for i, f := range got.Failed {
		against[i] = fmt.Sprintf("%s could not install %s", got.Peer, f)
	}
	return against, nil
}

// verify reads a package once and compares it with what the index will say.
func (p *Publisher) verify(ctx context.Context, e *release.Entry) error {
	a := &e.Artifact
	p.mu.Lock()
	done := p.verified[a.CID+a.MD5+a.SHA1]
	p.mu.Unlock()
	if done {
		return nil
	}
	c, err := cas.Parse(a.CID)
	if err != nil {
		return err
	}
	f, err := p.Open(ctx, c, a.Size)
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	m, h := md5.New(), sha1.New()
	n, err := io.Copy(io.MultiWriter(m, h), f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	switch {
	case n != a.Size:
		return fmt.Errorf("it has %d bytes, its builder says %d", n, a.Size)
	case hex.EncodeToString(m.Sum(nil)) != a.MD5:
		return errors.New("its MD5 is not what its builder says")
	case hex.EncodeToString(h.Sum(nil)) != a.SHA1:
		return errors.New("its SHA1 is not what its builder says")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verified == nil {
		p.verified = map[string]bool{}
	}
	p.verified[a.CID+a.MD5+a.SHA1] = true
	return nil
}
