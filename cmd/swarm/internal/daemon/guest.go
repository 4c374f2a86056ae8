package daemon

import (
	"context"
	"path/filepath"
	"time"

	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/guest/watch"
	"github.com/build-swarm/swarm/build/shim"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/machine"
)

// GuestFile remembers a machine's days, in the state directory.
const GuestFile = "guest.json"

// Guest watches this machine: a *watch.Watch where there are builds to hold back,
// else a *watch.Battery.
type Guest interface {
	Run(ctx context.Context) error
	Asked()
	Report(ctx context.Context) watch.Report
}

// WatchMachine makes the watch that holds back a worker's builds; w is nil where
// nothing is built. tell sends the next Beat at once.
func WatchMachine(policy guest.Policy, state string, w *worker.Worker, pool *shim.Pool, clock agent.Clock, tell func(context.Context), quiet *Quiet, cfg watch.Config) Guest {
	cfg.Tell, cfg.Quiet = tell, quiet.Set
	cfg.Boot = func() int64 { return clock.Now().Boot }
	if w == nil {
		return watch.NewBattery(cfg)
	}
	cfg.Policy, cfg.State, cfg.Drone = policy, filepath.Join(state, GuestFile), w
	cfg.SetLevel = func(guest.Level) error { return nil }
	if pool != nil {
		cfg.SetLevel, cfg.CPU, cfg.Missing = pool.SetLevel, pool.CPU, pool.Missing()
	}
	return watch.New(cfg)
}

// Attend adds to a Beat for how long this machine is there.
func Attend(ctx context.Context, b *claims.Beat, g Guest) {
	r := g.Report(ctx)
	b.Steady, b.UntilS, b.Quiet = r.Steady, r.UntilS, r.Quiet
}

// Free is the room that a machine has for builds in dir.
func Free(dir string) guest.Room {
	r := guest.Room{FreeMemMiB: machine.FreeMemory()}
	if free, err := machine.FreeDisk(dir); err == nil {
		r.FreeDiskMiB = free >> 20
	}
	return r
}

// Asked hears that somebody at this machine asks this peer for something: it is
// not quiet, then.
func (d *Daemon) Asked() { d.Guest.Asked() }

// PauseHere pauses the builds of this machine, or lets them go on.
func (d *Daemon) PauseHere(ctx context.Context, p control.PauseHere) error {
	g, builds := d.Guest.(*watch.Watch)
	switch {
	case !builds:
		return &control.Error{Kind: control.KindUsage, Message: "this machine builds nothing", Hint: "swarm run --slots 1 makes it a drone"}
	case p.Off:
		return g.Resume(ctx)
	}
	return g.Pause(ctx, time.Duration(p.ForMS)*time.Millisecond)
}

// lacks says what this machine's sensors and cgroups cannot do, where that
// matters: on one that yields to somebody.
func (d *Daemon) lacks(ctx context.Context) []string {
	r := d.Guest.Report(ctx)
	if r.Steady {
		return nil
	}
	return r.Lacks
}
