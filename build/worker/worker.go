package worker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/claims/hlc"
)

const (
	replanEvery   = 5 * time.Second // +-20 %
	debounce      = 20 * time.Millisecond
	progressEvery = 2 * time.Second
	declineFirst  = 2 * time.Minute // doubles with every failure of the machine's
	declineMost   = 2 * time.Hour
	declineRoom   = time.Minute // for want of memory or disk
)

// Config is what a Worker is made of.
type Config struct {
	Self     string
	Board    *agent.Agent
	Store    cas.Store
	Builders map[build.Builder]Builder
	// Fetch brings a blob into Store from peers that hold it.
	Fetch func(ctx context.Context, c cid.Cid, holders []string) error
	// Announce puts a stored blob on this peer's holdings.
	Announce func(ctx context.Context, c cid.Cid) error
	Dir      string // work directory; the worker owns what is in it
	Pending  string // directory of outcomes not yet on the board; survives a crash
	Slots    int    // builds at once
	Jobs     int    // make -j of one build
	Speed    int64  // core-milliseconds per second of one slot
	// Free is what the machine has left for builds; nil admits every build.
	Free func() guest.Room
	// Space is what a directory takes on disk, in bytes; nil = that is not measured.
	Space func(ctx context.Context, dir string) (int64, error)
	// Prepare brings what a round was planned on (its base, its configuration,
	// its trees) to this machine and names it in the request; nil = nothing.
	Prepare func(ctx context.Context, on claims.Ground, req *Request) error
	// Fetched shares what a build has downloaded into SourceDir, once it has, and
	// at its end; nil = nothing is shared.
	Fetched func(ctx context.Context, req *Request)
	// Surviving are the builds that an earlier process began and that go on.
	Surviving []Survivor
	Log       *slog.Logger
}

// Worker runs builds. Make one with New, then Run it.
type Worker struct {
	cfg  Config
	logs *Logs

	// The scheduling loop's own.
	memory    *plan.Memory
	scheduler plan.Scheduler
	affinity  plan.Affinity
	peers     []claims.Peer
	ready     []claims.Candidate

	mu       sync.Mutex
	running  map[build.Key]*run
	trial    string // why this drone takes nothing, or a small job alone (claims.Trial)
	why      string
	draining bool
	wake     chan struct{}
}

// New prepares the work directory: whatever an earlier process left in it is
// removed, but for builds that go on.
func New(cfg Config) (*Worker, error) {
	if err := clean(&cfg); err != nil {
		return nil, fmt.Errorf("clean work directory: %w", err)
	}
	for _, dir := range []string{filepath.Join(cfg.Dir, "logs"), cfg.Pending} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make work directory: %w", err)
		}
	}
	return &Worker{
		cfg: cfg, logs: newLogs(filepath.Join(cfg.Dir, "logs")), memory: plan.NewMemory(),
		running: map[build.Key]*run{}, wake: make(chan struct{}, 1),
	}, nil
}

func clean(cfg *Config) error {
	keep := map[string]bool{}
	for _, s := range cfg.Surviving {
		keep[filepath.Base(filepath.Dir(s.Request.Dir))] = true
		keep[filepath.Base(s.Request.LogPath)] = true
	}
	var errs []error
	for _, dir := range []string{filepath.Join(cfg.Dir, "logs"), cfg.Dir} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); !keep[e.Name()] && e.Name() != "logs" {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// Logs gives access to the logs of running builds.
func (w *Worker) Logs() *Logs { return w.logs }

// Accepting says whether this drone takes jobs now, and why not.
func (w *Worker) Accepting() (bool, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		return false, "this peer stops when its builds have ended"
	}
	for _, why := range []string{w.why, w.trial} {
		if why != "" {
			return false, why
		}
	}
	return true, ""
}

// SetHeld makes the drone take no jobs, for a reason, or again with "".
func (w *Worker) SetHeld(why string) {
	w.mu.Lock()
	changed := w.why != why
	w.why = why
	w.mu.Unlock()
	if changed {
		w.poke()
	}
}

// held reports whether this drone is made to take no jobs, or stops.
func (w *Worker) held() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why != "" || w.draining
}

// Running is how many builds are under way.
func (w *Worker) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running)
}

func (w *Worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run takes jobs until ctx ends; then every build is stopped and its claim
// given back before Run returns.
func (w *Worker) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.schedule(ctx, g) })
	return g.Wait()
}

func (w *Worker) schedule(ctx context.Context, g *errgroup.Group) error {
	if err := w.adopt(ctx); err != nil {
		return w.ended(ctx, err)
	}
	for i := range w.cfg.Surviving {
		w.resume(ctx, g, &w.cfg.Surviving[i])
	}
	changed := w.cfg.Board.Changed()
	timer := time.NewTimer(0)
	defer timer.Stop()
	soon := false // a change waits for the others that come with it
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.cfg.Board.Orders():
			w.obey(w.cfg.Board.TakeOrders())
			continue
		case <-changed:
			if !soon { // or changes without end would put the plan off for ever
				soon = true
				timer.Reset(debounce)
			}
			continue
		case <-w.wake:
		case <-timer.C:
		}
		soon = false
		if err := w.replan(ctx, g); err != nil {
			return w.ended(ctx, err)
		}
		if w.held() {
			timer.Stop() // until that is lifted, which wakes it
		} else {
			timer.Reset(replanEvery*4/5 + rand.N(replanEvery*2/5))
		}
	}
}

// ended tells an end that was asked for from an error.
func (w *Worker) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, agent.ErrStopped) {
		return nil
	}
	return err
}

// replan claims jobs for the free slots, one after another.
func (w *Worker) replan(ctx context.Context, g *errgroup.Group) error {
	for range w.cfg.Slots {
		if w.held() || w.Running() >= w.cfg.Slots {
			return nil
		}
		var job *build.Job
		var target string
		var work int64
		var need guest.Need
		var estimate claims.Estimate
		var last *build.Course
		var setup int64
		err := w.cfg.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			k, ok := w.choose(r, now)
			if !ok {
				return nil
			}
			j := *r.Job(k)
			err, wait := w.canBuild(&j), declineMost
			if err == nil {
				need = guest.Need{MemoryMiB: r.Memory(&j), DiskMiB: r.Disk(&j)}
				err, wait = w.admit(need), declineRoom
			}
			if err != nil {
				until := now.Wall + wait.Milliseconds()
				return []claims.Event{claims.Post{Body: claims.Decline{Key: k, Peer: w.cfg.Self, Until: hlc.New(until), Reason: build.OneLine(err.Error(), 200)}}}
			}
			job, target, work = &j, r.TargetOf(k), r.Work(&j)
			setup = w.setup(r, k)
			estimate, last = r.Estimate(&j), r.Course(&j)
			return []claims.Event{claims.Take{Key: k}}
		})
		if err != nil || job == nil {
			return err
		}
		held := false
		err = w.cfg.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
			held = slices.ContainsFunc(r.Held(), func(b claims.BeatJob) bool { return b.Key == job.Key })
			return nil
		})
		if err != nil {
			return err
		}
		if held {
			w.launch(ctx, g, &run{
				w: w, job: *job, target: target, work: work, setup: setup, need: need, began: time.Now(),
				measured: estimate.Measured, unsure: estimate.Deviation(), course: course{last: last},
			})
		}
	}
	return nil
}

// canBuild asks a builder that can tell beforehand: what only this drone knows
// becomes a decline, not a failure.
func (w *Worker) canBuild(j *build.Job) error {
	if b, ok := w.cfg.Builders[j.Builder].(interface{ CanBuild(*build.Job) error }); ok {
		return b.CanBuild(j)
	}
	return nil
}

func (w *Worker) choose(r *claims.Replica, now claims.Now) (build.Key, bool) {
	if ok, _ := r.MayClaim(); !ok {
		return "", false
	}
	if _, paused := r.Paused(w.cfg.Self); paused {
		return "", false
	}
	w.peers = r.AppendPeers(w.peers[:0], now)
	w.ready = r.Ready(w.ready[:0], plan.Limit(len(w.peers)), now)
	v := plan.View{
		Ready: w.ready, Peers: w.peers, Passed: w.memory.Scarred,
		Excluded: func(k build.Key, peer string) bool {
			if _, no := r.Declined(k, peer, now); no {
				return true
			}
			return r.FailedOn(k, peer) || w.memory.Passed(k, peer)
		},
		Setup: w.affinity.Setup(w.peers, r.Job),
	}
	if held := w.tried(r.Trial(w.cfg.Self, now), now); held {
		return w.smallest(r, &v, now)
	}
	k, ok, all := w.scheduler.Next(&v, w.cfg.Self)
	w.memory.Note(all, w.peers, now.Boot)
	w.mu.Lock()
	_, busy := w.running[k]
	w.mu.Unlock()
	return k, ok && !busy
}

// setup is what a job's root is expected to take here, in milliseconds.
func (w *Worker) setup(r *claims.Replica, k build.Key) int64 {
	if f := w.affinity.Setup(w.peers, r.Job); f != nil {
		return f(k, w.cfg.Self)
	}
	return 0
}

// KeptRoots is what a Beat says of the roots that this drone keeps: the build
// keys of their jobs, in bytes, and what adding a package takes in milliseconds.
func (w *Worker) KeptRoots() (roots [][]byte, installMS int64) {
	for _, name := range []build.Builder{build.BuilderPortage, build.BuilderSample} {
		b, ok := w.cfg.Builders[name].(RootKeeper)
		if !ok {
			continue
		}
		jobs, install := b.KeptRoots()
		if install <= 0 {
			continue
		}
		for _, k := range jobs[:min(len(jobs), claims.MaxRoots)] {
			if raw, err := hex.DecodeString(string(k)); err == nil && k.Valid() {
				roots = append(roots, raw)
			}
		}
		return roots, min(max(1, install.Milliseconds()), claims.MaxInstallMS)
	}
	return nil, 0
}

// tried notes how this drone stands with its failures, and reports whether it is
// held because of them.
func (w *Worker) tried(t claims.Trial, now claims.Now) bool {
	why, last := "", ""
	if t.Reason != "" {
		last = " (the last: " + build.OneLine(t.Reason, 120) + ")"
	}
	switch {
	case t.Held() && t.WaitMS > 0:
		// A time and no duration: what others are told stays the same meanwhile.
		at := time.UnixMilli(now.Wall + t.WaitMS).UTC().Add(30 * time.Second).Format("15:04 MST")
		why = fmt.Sprintf("%d builds in a row failed here%s; tries a small one at %s", t.Failures, last, at)
	case t.Held():
		why = fmt.Sprintf("%d builds in a row failed here%s; builds a small one to see whether it can again", t.Failures, last)
	}
	w.mu.Lock()
	w.trial = why
	w.mu.Unlock()
	return t.Held()
}

// smallest is the job by which a drone that failed comes back: the least of those
// that fit it, one at a time. The plan gives it none, since it says that it takes
// nothing; if another claims the same, the board decides.
func (w *Worker) smallest(r *claims.Replica, v *plan.View, now claims.Now) (build.Key, bool) {
	if t := r.Trial(w.cfg.Self, now); t.WaitMS > 0 || w.Running() > 0 {
		return "", false
	}
	me := slices.IndexFunc(v.Peers, func(p claims.Peer) bool { return p.Self })
	var best *claims.Candidate
	for i := range v.Ready {
		c := &v.Ready[i]
		if me < 0 || v.Excluded(c.Job.Key, w.cfg.Self) || best != nil && c.Work >= best.Work {
			continue
		}
		if fits, _ := r.Fits(&v.Peers[me].Beat, c.Job); fits {
			best = c
		}
	}
	if best == nil {
		return "", false
	}
	return best.Job.Key, true
}

// obey passes the board's orders on to the builds they are about.
func (w *Worker) obey(orders []agent.Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range orders {
		r := w.running[o.Key]
		switch {
		case r == nil:
		case o.Stop:
			r.stopped = o.Reason
			r.cancel(errStopped)
		default:
			r.win()
		}
	}
}

// resume goes on with a build of an earlier process.
func (w *Worker) resume(ctx context.Context, g *errgroup.Group, s *Survivor) {
	r := &run{w: w, job: s.Request.Job, target: s.Request.Target, began: s.Began, compiling: s.Began, resumed: s}
	held := false
	err := w.cfg.Board.Do(ctx, func(rep *claims.Replica, _ claims.Now) []claims.Event {
		e := rep.Estimate(&r.job)
		r.work, r.measured, r.unsure, r.course.last = e.Median, e.Measured, e.Deviation(), rep.Course(&r.job)
		r.need = guest.Need{MemoryMiB: rep.Memory(&r.job), DiskMiB: rep.Disk(&r.job)}
		held = slices.ContainsFunc(rep.Held(), func(b claims.BeatJob) bool { return b.Key == r.job.Key })
		return nil
	})
	if err != nil {
		r.work = r.job.CoreMillis
	}
	w.cfg.Log.Info("a build of the last run goes on", "package", r.job.CPV.String())
	w.launch(ctx, g, r)
	if !held { // built by somebody meanwhile
		r.cancel(errStopped)
	}
}

// launch runs one build on a goroutine of its own.
func (w *Worker) launch(ctx context.Context, g *errgroup.Group, r *run) {
	job := &r.job
	bctx, cancel := context.WithCancelCause(ctx)
	r.cancel, r.won, r.space = cancel, make(chan struct{}), newSpace(w.cfg.Space)
	w.mu.Lock()
	w.running[job.Key] = r
	w.mu.Unlock()
	g.Go(func() error {
		defer cancel(nil)
		r.build(bctx)
		w.mu.Lock()
		delete(w.running, job.Key)
		w.mu.Unlock()
		w.poke()
		return nil
	})
}
