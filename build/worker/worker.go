package worker

import (
	"context"
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
	breakerAfter  = 3                // failures in a row
	breakerFirst  = time.Minute      // doubles
	breakerMost   = 30 * time.Minute //
	declineFirst  = 2 * time.Minute  // doubles with every failure of the machine's
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
	peers     []claims.Peer
	ready     []claims.Candidate

	mu       sync.Mutex
	running  map[build.Key]*run
	failures int // in a row
	pauseTil time.Time
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
func (w *Worker) Accepting(now time.Time) (bool, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Before(w.pauseTil) {
		return false, fmt.Sprintf("%d builds in a row failed here; tries again in %s", w.failures, w.pauseTil.Sub(now).Round(time.Second))
	}
	if w.draining {
		return false, "this peer stops when its builds have ended"
	}
	if w.why != "" {
		return false, w.why
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.cfg.Board.Orders():
			w.obey(w.cfg.Board.TakeOrders())
			continue
		case <-changed:
			timer.Reset(debounce)
			continue
		case <-w.wake:
		case <-timer.C:
		}
		if err := w.replan(ctx, g); err != nil {
			return w.ended(ctx, err)
		}
		timer.Reset(replanEvery*4/5 + rand.N(replanEvery*2/5))
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
		if ok, _ := w.Accepting(time.Now()); !ok || w.Running() >= w.cfg.Slots {
			return nil
		}
		var job *build.Job
		var target string
		var work int64
		var need guest.Need
		err := w.cfg.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			k, ok := w.choose(r, now)
			if !ok {
				return nil
			}
			j := *r.Job(k)
			err, wait := w.canBuild(&j), declineMost
			if err == nil {
				need = guest.Need{MemoryMiB: r.Memory(&j), DiskMiB: j.DiskMiB}
				err, wait = w.admit(need), declineRoom
			}
			if err != nil {
				until := now.Wall + wait.Milliseconds()
				return []claims.Event{claims.Post{Body: claims.Decline{Key: k, Peer: w.cfg.Self, Until: hlc.New(until), Reason: build.OneLine(err.Error(), 200)}}}
			}
			job, target, work = &j, r.TargetOf(k), r.Work(&j)
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
			w.start(ctx, g, *job, target, work, need)
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
	}
	k, ok, all := w.scheduler.Next(&v, w.cfg.Self)
	w.memory.Note(all, w.peers, now.Boot)
	w.mu.Lock()
	_, busy := w.running[k]
	w.mu.Unlock()
	return k, ok && !busy
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

// start runs one build on a goroutine of its own.
func (w *Worker) start(ctx context.Context, g *errgroup.Group, job build.Job, target string, work int64, need guest.Need) {
	w.launch(ctx, g, &run{w: w, job: job, target: target, work: work, need: need, began: time.Now()})
}

// resume goes on with a build of an earlier process.
func (w *Worker) resume(ctx context.Context, g *errgroup.Group, s *Survivor) {
	r := &run{w: w, job: s.Request.Job, target: s.Request.Target, began: s.Began, compiling: s.Began, resumed: s}
	held := false
	err := w.cfg.Board.Do(ctx, func(rep *claims.Replica, _ claims.Now) []claims.Event {
		r.work = rep.Work(&r.job)
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

func (w *Worker) launch(ctx context.Context, g *errgroup.Group, r *run) {
	job := &r.job
	bctx, cancel := context.WithCancelCause(ctx)
	r.cancel, r.won = cancel, make(chan struct{})
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

// count keeps the breaker: a drone that fails what it touches pauses, for
// longer each time, instead of failing the whole queue.
func (w *Worker) count(c build.Class) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch c {
	case build.Good:
		w.failures = 0
	case build.Cancelled:
	default:
		w.failures++
		if over := w.failures - breakerAfter; over >= 0 {
			w.pauseTil = time.Now().Add(min(breakerMost, breakerFirst<<min(over, 10)))
		}
	}
}
