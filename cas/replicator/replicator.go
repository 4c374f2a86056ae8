package replicator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/ipfs/go-cid"
)

const (
	planEvery   = 30 * time.Second
	planAtLeast = time.Second // between two plans
	firstRetry  = time.Minute
	lastRetry   = time.Hour
	whenFull    = time.Minute
	parallel    = 2 // large copies at once; each has all its holders at work
	// Small blobs wait for round trips and for the disk's fsync, which many
	// share: 32 at once came to 0.87 of writing the files locally, 8 to 0.55.
	small         = 1 << 20 // bytes
	parallelSmall = 32
)

// Fetcher brings a blob from holders into a store, durably: *exchange.Fetcher.
type Fetcher interface {
	Fetch(ctx context.Context, c cid.Cid, holders []string, into cas.Store) error
}

// Config of a Replicator. Input, Fetcher and Store are required.
type Config struct {
	// Input is what is known now. It is called from Run alone.
	Input   func() replication.Input
	Fetcher Fetcher
	Store   cas.Store
	// Stored is told of each copy made here, from Run's goroutine: it must not
	// block long. nil is allowed.
	Stored func(cas.Info)
	// Every stretches how often it is looked at what follows from time alone; nil
	// leaves it as it is.
	Every func(time.Duration) time.Duration
	Log   *slog.Logger // nil discards
}

// Replicator copies blobs to this peer. Run does the work.
type Replicator struct {
	cfg  Config
	kick chan struct{}

	mu     sync.Mutex
	status Status
}

// Status is what a Replicator is at.
type Status struct {
	Planned int // copies that wait
	Running int
	Copied  int64
	Bytes   int64
	Failed  int64
}

// New makes a Replicator.
func New(cfg Config) *Replicator {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Replicator{cfg: cfg, kick: make(chan struct{}, 1)}
}

// Kick asks for a new plan. It never blocks, and many kicks are one.
func (r *Replicator) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Status reports what is going on. It may be called from any goroutine.
func (r *Replicator) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// state is Run's own.
type state struct {
	queue   []replication.Action
	running map[cid.Cid]int64 // sizes
	retry   map[cid.Cid]retry
	paused  time.Time // no copies before
	planned time.Time
}

type retry struct {
	at   time.Time
	wait time.Duration
}

type result struct {
	replication.Action
	err error
}

// Run copies blobs until ctx ends, and returns ctx's error when all copying has
// ended.
func (r *Replicator) Run(ctx context.Context) error {
	s := &state{running: map[cid.Cid]int64{}, retry: map[cid.Cid]retry{}}
	done := make(chan result)
	timer := time.NewTimer(0)
	defer timer.Stop()
	kicked := true
	for {
		select {
		case <-ctx.Done():
			for range s.running {
				<-done
			}
			return ctx.Err()
		case <-r.kick:
			kicked = true
		case <-timer.C:
		case res := <-done:
			r.finished(ctx, s, res)
		}
		now := time.Now()
		if age := now.Sub(s.planned); age >= planEvery || kicked && age >= planAtLeast {
			r.plan(s, now)
			kicked = false
		}
		r.start(ctx, s, done, now)
		wait := max(0, s.planned.Add(planEvery).Sub(now))
		switch {
		case kicked:
			wait = max(0, s.planned.Add(planAtLeast).Sub(now))
		case r.cfg.Every != nil:
			wait = r.cfg.Every(wait)
		}
		timer.Reset(wait)
	}
}

func (r *Replicator) plan(s *state, now time.Time) {
	s.queue, s.planned = replication.Plan(r.cfg.Input()), now
	live := make(map[cid.Cid]retry, len(s.retry))
	for _, a := range s.queue {
		if w, ok := s.retry[a.CID]; ok {
			live[a.CID] = w
		}
	}
	for c := range s.running { // what fails now doubles what it waited before
		if w, ok := s.retry[c]; ok {
			live[c] = w
		}
	}
	s.retry = live
}

// start begins what may begin now.
func (r *Replicator) start(ctx context.Context, s *state, done chan<- result, now time.Time) {
	if now.Before(s.paused) {
		return
	}
	large := 0
	for _, size := range s.running {
		if size > small {
			large++
		}
	}
	var later []replication.Action
	for i, a := range s.queue {
		if len(s.running) >= parallel+parallelSmall {
			later = append(later, s.queue[i:]...)
			break
		}
		if _, busy := s.running[a.CID]; busy || now.Before(s.retry[a.CID].at) {
			continue // the next plan has it again
		}
		if _, err := r.cfg.Store.Stat(a.CID); err == nil {
			continue // the board does not know it yet
		}
		if a.Size > small {
			if large == parallel {
				later = append(later, a)
				continue
			}
			large++
		}
		s.running[a.CID] = a.Size
		go func() {
			err := r.cfg.Fetcher.Fetch(ctx, a.CID, a.From, r.cfg.Store)
			if err == nil { // the board may not know how large it is
				a.Info, err = r.cfg.Store.Stat(a.CID)
			}
			done <- result{a, err}
		}()
	}
	s.queue = later
	r.mu.Lock()
	r.status.Planned, r.status.Running = len(s.queue), len(s.running)
	r.mu.Unlock()
}

func (r *Replicator) finished(ctx context.Context, s *state, res result) {
	delete(s.running, res.CID)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	if res.err == nil {
		r.status.Copied++
		r.status.Bytes += res.Size
	} else {
		r.status.Failed++
	}
	r.mu.Unlock()
	if res.err == nil {
		delete(s.retry, res.CID)
		r.cfg.Log.Info("blob is copied here", "cid", res.CID, "bytes", res.Size, "urgent", res.Urgent)
		if r.cfg.Stored != nil {
			r.cfg.Stored(res.Info)
		}
		return
	}
	if errors.Is(res.err, cas.ErrFull) {
		s.paused = time.Now().Add(whenFull)
	}
	w := min(max(2*s.retry[res.CID].wait, firstRetry), lastRetry)
	s.retry[res.CID] = retry{time.Now().Add(w), w}
	r.cfg.Log.Warn("blob could not be copied", "cid", res.CID, "err", res.err, "retry", w)
}
