package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/sources"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/p2p"
)

// Shelf keeps the blobs of bases with the swarm's others. It is made before the
// store is, and of use from Use on.
type Shelf struct {
	mu       sync.Mutex
	store    cas.Store
	fetch    func(context.Context, cid.Cid) error
	announce func(context.Context, cid.Cid) error
}

// Use gives the shelf the store, a way to bring a blob into it, and one to say
// what is in it.
func (s *Shelf) Use(store cas.Store, fetch, announce func(context.Context, cid.Cid) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store, s.fetch, s.announce = store, fetch, announce
}

func (s *Shelf) parts() (cas.Store, func(context.Context, cid.Cid) error, func(context.Context, cid.Cid) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil, nil, nil, errors.New("blobs are not to be had in this process")
	}
	return s.store, s.fetch, s.announce, nil
}

// Open opens a blob, which is fetched if it is not here.
func (s *Shelf) Open(ctx context.Context, c cid.Cid) (io.ReadCloser, error) {
	store, fetch, _, err := s.parts()
	if err != nil {
		return nil, err
	}
	if err := fetch(ctx, c); err != nil {
		return nil, err
	}
	return store.Open(c)
}

// OpenNamed is Open by the text of a CID.
func (s *Shelf) OpenNamed(ctx context.Context, name string) (io.ReadCloser, error) {
	c, err := cas.Parse(name)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, c)
}

// has reports whether a blob is in the store.
func (s *Shelf) has(name string) bool {
	store, _, _, err := s.parts()
	if err != nil {
		return false
	}
	c, err := cas.Parse(name)
	if err == nil {
		_, err = store.Stat(c)
	}
	return err == nil
}

// Put stores a blob and says so.
func (s *Shelf) Put(ctx context.Context, r io.Reader) (cas.Info, error) {
	store, _, announce, err := s.parts()
	if err != nil {
		return cas.Info{}, err
	}
	info, err := store.Put(ctx, r, cid.Undef)
	if err != nil {
		return info, err
	}
	return info, announce(ctx, info.CID)
}

// rootTools is what a build's own process needs to know of roots.
type rootTools struct {
	State   string // directory of bases and cached roots; "" = no roots here
	Arch    string
	Hide    []string // what no build may see of the machine
	InPlace bool     // jobs without a base are built in the machine's own root
	Why     string   // builds cannot be isolated here
}

// bases opens the bases of a peer.
func (t rootTools) bases(shelf *Shelf) *base.Store {
	return base.New(filepath.Join(t.State, "bases"), shelf, t.Arch, t.Hide...)
}

// roots makes the builder of jobs that have a base.
func (t rootTools) roots(bases *base.Store, own *emerge.Portage, probed bool, log *slog.Logger) *emerge.Roots {
	return emerge.NewRoots(emerge.RootsConfig{
		Bases: bases, Dir: filepath.Join(t.State, "roots"), Own: own, Probed: probed, Log: log,
		Limits: sandbox.Limits{Processes: 16384, Own: probed},
	})
}

// fresh makes the roots of install tests, which the daemon itself makes: its
// control group is not theirs.
func (t rootTools) fresh(bases *base.Store, own *emerge.Portage, log *slog.Logger) *emerge.Roots {
	return emerge.NewRoots(emerge.RootsConfig{
		Bases: bases, Dir: filepath.Join(t.State, "roots"), Own: own, Probed: true, Log: log, Limits: sandbox.Limits{Processes: 16384},
	})
}

// ebuilds builds real ebuilds: in a root of their own where the job has a base,
// and otherwise in place, where that was asked for.
type ebuilds struct {
	roots *emerge.Roots
	place worker.Builder // nil = nothing is built in place
	own   bool           // place is a root of the builder's own
}

// errInPlace says what to do about a job that has no base.
var errInPlace = errors.New("the job has no base, and builds in this machine's own root were not asked for: give its target a base (swarm base add, swarm target add --base), or swarm run --in-place")

func (e ebuilds) CanBuild(j *build.Job) error {
	if e.place != nil {
		return nil // Build says it of a job with a base
	}
	return e.roots.CanBuild(j)
}

// KeptRoots are those of the builds that have a root of their own, where there can
// be such.
func (e ebuilds) KeptRoots() ([]build.Key, time.Duration) {
	if e.roots.CanBuild(nil) != nil {
		return nil, 0
	}
	return e.roots.KeptRoots()
}

func (e ebuilds) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	if !req.Base.IsZero() {
		return e.roots.Build(ctx, req)
	}
	if e.place == nil {
		return worker.Result{}, &build.Failure{Class: build.BadMachine, Reason: errInPlace.Error()}
	}
	res, err := e.place.Build(ctx, req)
	res.Provisional = !e.own
	return res, err
}

// Ground brings what rounds are planned on.
type Ground struct {
	Bases *base.Store
	Shelf *Shelf
	Own   *emerge.Portage // this machine's; nil = none
	Trees *emerge.TreeStore
	// Sources are what builds download; nil until Use.
	Sources *sources.Sharer
	// Roots makes fresh roots in this process, for install tests and updates of
	// bases; nil = they cannot be isolated here.
	Roots *emerge.Roots
	Log   *slog.Logger

	board *agent.Agent // from Use on
}

// Use gives the ground blobs and peers, and returns how a blob is brought here from
// whoever holds it. state is where it remembers.
func (g *Ground) Use(net p2p.Network, board *agent.Agent, store cas.Store, state string, bring func(context.Context, cid.Cid, []string) error,
	announce func(context.Context, cid.Cid) error,
) (fetch func(context.Context, cid.Cid) error, err error) {
	fetch = Fetch(board, store, bring)
	g.board = board
	g.Shelf.Use(store, fetch, announce)
	g.Sources, err = sources.Open(sources.Config{
		Net: net, Store: store, Announce: announce, File: filepath.Join(state, "sources"), Log: g.Log, Distdir: g.distdir,
		Fetch: func(ctx context.Context, c cid.Cid, holders []string) error {
			if holders == nil {
				return fetch(ctx, c)
			}
			return bring(ctx, c, holders)
		},
	})
	if err == nil {
		g.Sources.Serve()
	}
	return fetch, err
}

// distdir is where this machine's Portage keeps what it downloads; "" if there is
// no Portage.
func (g *Ground) distdir(ctx context.Context) string {
	if g.Own == nil {
		return ""
	}
	at, err := g.Own.Places(ctx)
	if err != nil {
		g.Log.Debug("DISTDIR is not known", "error", err)
	}
	return at.Distdir
}

// Fetched shares what a build has downloaded.
func (g *Ground) Fetched(ctx context.Context, req *worker.Request) {
	g.Sources.Keep(ctx, req.Job.Key, req.Job.Sources, filepath.Join(req.Dir, worker.SourceDir))
}

// keepSource keeps a file that no program may download, for a round to bring.
func (g *Ground) keepSource(ctx context.Context, s build.Source) (string, error) {
	c, ok, err := g.Sources.Find(ctx, s)
	if !ok {
		return "", err
	}
	return c.String(), nil
}

// built says that somebody who can be reached has the package of a key.
func (g *Ground) built(ctx context.Context, key build.Key) (yes bool, err error) {
	err = g.board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		yes = r.Available(key, now)
		return nil
	})
	return yes, err
}

// Prepare names base, configuration and repositories in the request.
func (g *Ground) Prepare(ctx context.Context, on claims.Ground, req *worker.Request) error {
	req.Base = on.Base
	if on.Bundle != "" {
		b, err := g.bundle(ctx, on.Bundle)
		if err != nil {
			return &build.Failure{Class: build.BadNetwork, Reason: fmt.Sprintf("fetch the configuration of the target %s: %v", on.Target, err)}
		}
		req.Bundle = b
	}
	if req.Job.Builder != build.BuilderPortage {
		return nil
	}
	if err := g.sources(ctx, req); err != nil || on.Base.IsZero() {
		return err
	}
	if err := g.trees(ctx, on, req); err != nil {
		return err
	}
	if _, err := g.Bases.Open(ctx, on.Base); err != nil {
		class := build.BadMachine
		if errors.Is(err, cas.ErrNotFound) {
			class = build.BadNetwork
		}
		return &build.Failure{Class: class, Reason: err.Error()}
	}
	return nil
}

// sources brings what the swarm has of a job's sources.
func (g *Ground) sources(ctx context.Context, req *worker.Request) error {
	if len(req.Job.Sources) == 0 || g.Sources == nil {
		return nil
	}
	err := g.Sources.Bring(ctx, req.Job.Key, req.Job.Sources, filepath.Join(req.Dir, worker.SourceDir))
	if errors.Is(err, sources.ErrRestricted) {
		return &build.Failure{Class: build.BadNetwork, Reason: build.OneLine(err.Error(), 300)}
	}
	return err
}

// trees brings the repositories that the round was planned on. Where they are not
// to be had, the machine's own will do if they are the same.
func (g *Ground) trees(ctx context.Context, on claims.Ground, req *worker.Request) error {
	if len(on.Trees) == 0 {
		return nil // the build compares
	}
	repos, err := g.Trees.Open(ctx, on.Trees)
	if err == nil {
		req.Repos = repos
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	why := build.OneLine(err.Error(), 300)
	if g.Own != nil {
		own, err := g.Own.Trees(ctx)
		if err == nil && emerge.TreeOf(own) == on.Tree {
			g.Log.Info("a build reads this machine's own repositories, which are those of the round", "why", why)
			return nil
		}
		why += "; and this machine's own repositories differ from those of the round"
	}
	return &build.Failure{Class: build.BadNetwork, Reason: why}
}

func (g *Ground) bundle(ctx context.Context, name string) (*build.Bundle, error) {
	r, err := g.Shelf.OpenNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, build.MaxBundle+1))
	if err != nil {
		return nil, err
	}
	var b build.Bundle
	if err := build.Unmarshal(text, &b); err != nil {
		return nil, err
	}
	return &b, b.Validate()
}
