// Package watch looks at the swarm again and again: it takes the one snapshot
// (view.Detail) when the board has changed, hands it to whoever shows it, and
// keeps on disk what happened between two of them.
//
// Looking costs CPU that builds want, so a look is followed by a rest that
// grows with what the look took: the whole costs about half a percent of a
// core, however large the swarm.
package watch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

const (
	// restFactor bounds the cost: 1 of 200 of the time is spent looking.
	restFactor = 200
	minRest    = time.Second
	maxRest    = 20 * time.Second
	// look anew at least this often: some things follow from time alone.
	lookEvery = 30 * time.Second
	// freshEnough is how old a snapshot may be that a person has just asked for.
	freshEnough = time.Second
)

// Config of a Watcher. All fields are needed but Follow and Every.
type Config struct {
	// Take takes a snapshot.
	Take func(context.Context) (*view.Detail, error)
	// Changed fires when a snapshot would read otherwise.
	Changed <-chan struct{}
	// Follow is called by Run with each pair of snapshots that follow one
	// another; before is nil the first time. It must be quick.
	Follow []func(before, after *view.Detail)
	// Every stretches how often it is looked at least; nil leaves it as it is.
	Every func(time.Duration) time.Duration
	Log   *slog.Logger
}

// Watcher has the newest snapshot. Its methods may be called from any goroutine.
type Watcher struct {
	cfg Config

	taking sync.Mutex // held while a snapshot is taken

	mu       sync.Mutex
	latest   *view.Detail
	at       time.Time
	watchers map[chan struct{}]bool
}

// New makes a Watcher. Nothing is looked at before Run or Latest.
func New(cfg Config) *Watcher {
	if cfg.Every == nil {
		cfg.Every = func(d time.Duration) time.Duration { return d }
	}
	return &Watcher{cfg: cfg, watchers: map[chan struct{}]bool{}}
}

// Latest returns a snapshot that is about a second old at the most, unless it
// is unchanged for longer. Who asks at once shares one.
func (w *Watcher) Latest(ctx context.Context) (*view.Detail, error) {
	if d := w.fresh(); d != nil {
		return d, nil
	}
	w.taking.Lock()
	defer w.taking.Unlock()
	if d := w.fresh(); d != nil {
		return d, nil
	}
	d, _, err := w.take(ctx)
	return d, err
}

func (w *Watcher) fresh() *view.Detail {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.latest != nil && time.Since(w.at) < freshEnough {
		return w.latest
	}
	return nil
}

// Newest is the newest snapshot, however old; nil before the first.
func (w *Watcher) Newest() *view.Detail {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// Watch returns a channel that fires when there is a newer snapshot than the
// last time, and what ends it. Signals coalesce.
func (w *Watcher) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers[ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, ch)
	}
}

// take replaces the snapshot; the caller holds taking.
func (w *Watcher) take(ctx context.Context) (d *view.Detail, took time.Duration, err error) {
	start := time.Now()
	d, err = w.cfg.Take(ctx)
	if err != nil {
		return nil, 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest, w.at = d, time.Now()
	for ch := range w.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return d, w.at.Sub(start), nil
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTimer(lookEvery)
	defer tick.Stop()
	var before *view.Detail
	for {
		w.taking.Lock()
		d, took, err := w.take(ctx)
		w.taking.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			w.cfg.Log.Debug("the swarm was not looked at", "error", err)
		default:
			for _, f := range w.cfg.Follow {
				f(before, d)
			}
			before = d
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(maxRest, max(minRest, took*restFactor))):
		}
		tick.Reset(w.cfg.Every(lookEvery))
		select {
		case <-ctx.Done():
			return nil
		case <-w.cfg.Changed:
		case <-tick.C:
		}
	}
}
