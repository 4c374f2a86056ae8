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
	"maps"
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

// Trial is a staged release for Portage to try.
type Trial struct {
	Target   string
	Manifest *release.Manifest
	Index    []byte // Packages of Manifest
	// Before is what the channel shows, as if it were made of Manifest's tree, and
	// BeforeIndex its Packages; nil before the first release.
	Before      *release.Manifest
	BeforeIndex []byte
	Consumers   []release.Consumer
}

// Compile is a package that a release would have a consumer compile, though the
// release before it would not.
type Compile struct {
	Consumer string
	CPV      build.CPV
	// Because is the package of the release that it is compiled for; zero = Portage
	// does not say.
	Because build.CPV
}

// Tried is a package of a staged release and what an install test says of it.
type Tried struct {
	Key    build.Key
	CPV    build.CPV
	Reason string
}

// Installed is what an install test of a release came to.
type Installed struct {
	Peer     string  // name of the peer that installed; "" = nobody did
	Packages int     // that were installed, with those that they need
	Failed   []Tried // what could not be installed
	Untried  []Tried // what could not be tried: it does not resolve in a fresh root
	Why      string  // why nobody installed
	// Broke says that peers began and could not go on: their disk was full, or the
	// time ran out. Of the release that says nothing.
	Broke bool
}

// String says it in a line for people.
func (i *Installed) String() string {
	if i.Peer == "" {
		return "not made: " + i.Why
	}
	parts := []string{fmt.Sprintf("%s installed %d packages into a fresh root", i.Peer, i.Packages)}
	if n := len(i.Failed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d could not be installed", n))
	}
	if n := len(i.Untried); n > 0 {
		parts = append(parts, fmt.Sprintf("%d could not be tried, %s first: %s", n, i.Untried[0].CPV, i.Untried[0].Reason))
	}
	return strings.Join(parts, "; ")
}

// errBroke: the install test broke off wherever it was begun.
var errBroke = errors.New("the install test could not be ended")

// refusals are the packages that gates refused, by CID.
type refusals map[string]release.HeldPackage

func (r refusals) list() []release.HeldPackage {
	return slices.Collect(maps.Values(r))
}

// reasons is why they stay out, in a line.
func (r refusals) reasons() string {
	var out []string
	for _, x := range release.NewHeldBack("", 0, r.list()).Packages {
		out = append(out, x.CPV.String()+": "+x.Reason)
	}
	return build.OneLine(strings.Join(out, "; "), 2000)
}

func (r refusals) add(e *release.Entry, installing bool, format string, args ...any) {
	r[e.Artifact.CID] = release.HeldPackage{CID: e.Artifact.CID, CPV: e.CPV, Reason: build.OneLine(fmt.Sprintf(format, args...), release.MaxReason), Installing: installing}
}

const (
	// trials bounds the install tests of one release: the second has what is left
	// of the first, and seldom fails.
	trials = 4
	// passes bounds how often what is left goes through the gates.
	passes = 12
)

// pass stages a release and holds back what the gates refuse, until they let the
// rest through. What they refused is added to refused.
func (p *Publisher) pass(ctx context.Context, req Request, refused refusals) (*Released, error) {
	installs := 0
	var last *Installed
	for range passes {
		progress.Tell(ctx, progress.Step{What: "work out what can go in"})
		s, err := p.stage(ctx, req, refused)
		if err != nil {
			return nil, err
		}
		if last != nil {
			s.Install = last
		}
		out := &Released{Staged: *s}
		if len(s.Changes) == 0 {
			if len(refused) == 0 {
				return p.nothing(ctx, s)
			}
			return out, fmt.Errorf("%w: %s", ErrRefused, refused.reasons())
		}
		more, err := p.gates(ctx, &out.Staged, &installs)
		last = out.Install
		if err != nil || len(more) == 0 {
			return out, err
		}
		before := len(refused)
		maps.Copy(refused, more)
		if len(refused) == before {
			return out, fmt.Errorf("%w: %s", ErrRefused, more.reasons()) // holding it back did not help
		}
	}
	return nil, fmt.Errorf("%w: after %d passes there are still packages that do not go in: %s", ErrRefused, passes, refused.reasons())
}

// remember tells all peers what was refused, unless they know it.
func (p *Publisher) remember(ctx context.Context, target string, refused refusals) error {
	return p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		was := r.HeldBack(target)
		is := release.NewHeldBack(target, max(1, time.UnixMilli(now.Wall).Unix()), refused.list())
		if is.Same(&was) {
			return nil
		}
		return []claims.Event{claims.Post{Body: claims.NewHeldBack(is)}}
	})
}

// gates checks a staged release and returns what it refuses package by package;
// an error that wraps ErrRefused says what speaks against all of it.
func (p *Publisher) gates(ctx context.Context, s *Staged, installs *int) (refusals, error) {
	fresh, refused, err := p.readNew(ctx, s)
	if err != nil || len(refused) > 0 {
		return refused, err
	}
	text, err := binhost.Render(&s.Manifest, release.Channel{Target: s.Target, Name: release.Stable, Version: 1, Timestamp: 1})
	if err != nil {
		return nil, fmt.Errorf("%w: its index cannot be written: %w", ErrRefused, err)
	}
	index, err := binhost.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%w: its index cannot be read: %w", ErrRefused, err)
	}
	if len(index.Entries) != len(s.Manifest.Entries) {
		return nil, fmt.Errorf("%w: its index lists %d of %d packages", ErrRefused, len(index.Entries), len(s.Manifest.Entries))
	}
	if p.Try != nil {
		progress.Tell(ctx, progress.Step{What: "have Portage try it"})
		if refused, err = p.try(ctx, s, text, fresh); err != nil || len(refused) > 0 {
			return refused, err
		}
	}
	if p.Install == nil || len(fresh) == 0 {
		return nil, nil
	}
	if *installs++; *installs > trials {
		return nil, fmt.Errorf("%w: of what is left, something fails in every one of %d install tests", ErrRefused, trials)
	}
	progress.Tell(ctx, progress.Step{What: "have another peer install it"})
	return p.install(ctx, s, fresh)
}

// readNew lists what is new in a release, by key, and refuses what is not what
// its builder says.
func (p *Publisher) readNew(ctx context.Context, s *Staged) (map[build.Key]*release.Entry, refusals, error) {
	fresh, refused := map[build.Key]*release.Entry{}, refusals{}
	for i, c := range s.Changes {
		progress.Tell(ctx, progress.Step{What: "read what is new", Done: int64(i), All: int64(len(s.Changes))})
		if c.New == nil || c.Old != nil && c.Old.Artifact.CID == c.New.Artifact.CID {
			continue
		}
		fresh[c.New.Key] = c.New
		err := p.verify(ctx, c.New)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			refused.add(c.New, false, "%v", err)
		}
	}
	return fresh, refused, nil
}

// try has Portage say what the release would have consumers compile, and refuses
// the packages that it is compiled for.
func (p *Publisher) try(ctx context.Context, s *Staged, text []byte, fresh map[build.Key]*release.Entry) (refusals, error) {
	t := Trial{Target: s.Target, Manifest: &s.Manifest, Index: text, Consumers: s.Consumers}
	if s.Prev != nil {
		before := *s.Prev
		before.Tree, before.Repos = s.Manifest.Tree, s.Manifest.Repos
		var err error
		if t.BeforeIndex, err = binhost.Render(&before, release.Channel{Target: s.Target, Name: release.Stable, Version: 1, Timestamp: 1}); err != nil {
			return nil, fmt.Errorf("write the index of release %d again: %w", s.Head.Version, err)
		}
		t.Before = &before
	}
	list, err := p.Try(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("try the release with Portage: %w", err)
	}
	refused := refusals{}
	var against []string
	for _, c := range list {
		blamed := false
		for _, e := range fresh {
			if blames(&c, e) {
				refused.add(e, false, "%s would compile %s", c.Consumer, c.CPV)
				blamed = true
			}
		}
		if !blamed {
			against = append(against, fmt.Sprintf("%s would compile %s", c.Consumer, c.CPV))
		}
	}
	if len(refused) == 0 && len(against) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrRefused, build.OneLine(strings.Join(against, "; "), 2000))
	}
	return refused, nil
}

// blames reports whether a consumer compiles a package because of a new one: it
// is that one, what it is said to be compiled for, or what that one asks for with
// other flags.
func blames(c *Compile, e *release.Entry) bool {
	if !c.Because.IsZero() {
		return e.CPV == c.Because
	}
	return e.CPV == c.CPV || e.Asks(c.CPV.CP())
}

// install has another peer install what is staged, and refuses what fails there.
func (p *Publisher) install(ctx context.Context, s *Staged, fresh map[build.Key]*release.Entry) (refusals, error) {
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
		return nil, fmt.Errorf("have the release installed by another peer: %w", err)
	}
	s.Install = &got
	p.Log.Info("install test", "target", s.Target, "result", got.String())
	if got.Broke {
		return nil, fmt.Errorf("%w: %w: %s", ErrRefused, errBroke, got.Why)
	}
	refused := refusals{}
	for _, f := range got.Failed {
		if e := fresh[f.Key]; e != nil {
			refused.add(e, true, "%s could not install it: %s", got.Peer, f.Reason)
		}
	}
	// What could not be installed once is not taken for mended unseen.
	untried := map[build.Key]bool{}
	for _, u := range got.Untried {
		untried[u.Key] = true
	}
	for _, e := range fresh {
		if was, ok := s.memory.Of(e.Artifact.CID); ok && was.Installing && (got.Peer == "" || untried[e.Key]) {
			refused[was.CID] = was
		}
	}
	return refused, nil
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
