package watch

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/build-swarm/swarm/build/guest"
)

// Battery is the watch of a machine whose peer builds nothing: only whether it runs on
// its battery matters, for being quiet then. Make one with NewBattery, then Run it.
type Battery struct {
	cfg   Config
	files files
	asked chan struct{}
	quiet atomic.Bool
}

// NewBattery makes the watch; of the configuration Root, Tell, Quiet, Boot and Log
// count.
func NewBattery(cfg Config) *Battery {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Battery{cfg: cfg, files: files{cfg.Root}, asked: make(chan struct{}, 1)}
}

// Asked is Watch's.
func (b *Battery) Asked() { ask(b.asked) }

// Report says that a machine that builds nothing is steady, whatever it is, and
// whether it is quiet.
func (b *Battery) Report(context.Context) Report {
	return Report{Verdict: guest.Verdict{Steady: true, Quiet: b.quiet.Load()}}
}

// Run watches until ctx ends.
func (b *Battery) Run(ctx context.Context) error {
	plugs, err := newPlugs(b.files)
	if err != nil {
		b.cfg.Log.Debug("this machine is looked at every 10 s also while it is quiet", "error", err)
	}
	done := make(chan struct{})
	go func() { defer close(done); plugs.run(ctx) }()
	defer func() { <-done }()
	var rest guest.Rest
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-plugs.c:
		case <-b.asked:
			rest.Asked(b.now())
		}
		timer.Reset(b.step(ctx, &rest, plugs.heard()))
	}
}

func (b *Battery) now() guest.Now { return guest.Now{Wall: time.Now(), Boot: b.cfg.Boot()} }

// step looks at the battery, tells what changed, and says when to look again. The
// others hear that this peer is quiet before it is, and that it is no more after.
func (b *Battery) step(ctx context.Context, rest *guest.Rest, told bool) time.Duration {
	var r guest.Reading
	b.files.power(&r)
	now := b.now()
	quiet, in := rest.Step(now, r.OnBattery)
	was := b.quiet.Swap(quiet)
	if was && !quiet {
		b.cfg.Quiet(ctx, false)
	}
	if was != quiet {
		b.cfg.Tell(ctx)
	}
	if quiet {
		b.cfg.Quiet(ctx, true)
	}
	every := idleEvery
	if told && (quiet || !r.HasBattery) { // a plug is heard of
		every = now.Wall.Truncate(quietEvery).Add(quietEvery).Sub(now.Wall)
	}
	if in > 0 {
		every = min(every, time.Duration(in)*time.Millisecond)
	}
	return every
}
