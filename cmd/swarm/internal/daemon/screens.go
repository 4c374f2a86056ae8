package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/watch"
)

// Screens is all that shows the swarm to people and programs beside the control
// socket: it follows the one snapshot.
type Screens struct {
	daemon  *Daemon
	log     *slog.Logger
	watcher *watch.Watcher
	history *watch.History
}

// NewScreens opens the history of events below the state directory.
func NewScreens(d *Daemon, log *slog.Logger) (*Screens, error) {
	s := &Screens{daemon: d, log: log}
	var err error
	if s.history, err = watch.OpenHistory(filepath.Join(d.About.State, "events")); err != nil {
		return nil, err
	}
	s.watcher = watch.New(watch.Config{Take: d.Look, Changed: d.Agent.Changed(), Follow: []func(before, after *view.Detail){s.record}, Log: log})
	d.screens = s
	return s, nil
}

// Run follows the swarm until ctx ends.
func (s *Screens) Run(ctx context.Context) error {
	s.keep([]view.Event{{AtMS: time.Now().UnixMilli(), Kind: view.EventStarted, Who: s.daemon.About.Nick, What: s.daemon.About.Nick,
		Text: build.OneLine("this peer ("+s.daemon.About.Nick+") started, version "+s.daemon.About.Version, 200)}})
	return s.watcher.Run(ctx)
}

// Close closes the history.
func (s *Screens) Close() error { return s.history.Close() }

func (s *Screens) record(before, after *view.Detail) { s.keep(view.Events(before, after)) }

// keep writes events. A history that cannot be written is no reason to stop.
func (s *Screens) keep(list []view.Event) {
	if err := s.history.Append(list); err != nil {
		s.log.Warn("events not kept", "count", len(list), "error", err)
	}
}

// Look takes the snapshot with everything that screens show.
func (d *Daemon) Look(ctx context.Context) (v *view.Detail, err error) {
	var why string
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		v = view.Look(r, now)
		_, why = r.MayClaim()
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.adorn(&v.Snapshot, why)
	return v, nil
}

// Events lists what happened, as this peer saw it.
func (d *Daemon) Events(_ context.Context, since int64, limit int) (control.Events, error) {
	list, err := d.screens.history.Since(since, limit)
	if err != nil {
		return control.Events{}, err
	}
	return control.Events{Schema: 1, Events: list}, nil
}
