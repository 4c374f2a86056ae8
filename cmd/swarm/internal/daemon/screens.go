package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan/replay"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/alert"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/metrics"
	"github.com/build-swarm/swarm/cmd/swarm/internal/watch"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/ui"
)

// Screens is all that shows the swarm to people and programs beside the control
// socket: it follows the one snapshot.
type Screens struct {
	daemon  *Daemon
	log     *slog.Logger
	watcher *watch.Watcher
	history *watch.History
	web     *web
	page    *ui.UI
	alerter *alert.Alerter // nil where nobody is told

	mu        sync.Mutex
	manifests map[string]*release.Manifest // a few that were compared
}

// Alerts says who is told of trouble.
type Alerts struct {
	To    []string      // addresses and programs, as alert.Parse reads them
	Grace time.Duration // how long trouble has to last; 0 = a minute
}

// NewScreens opens the history of events below the state directory. gateway is
// asked when the first page is shown; alerts says who is told of trouble.
func NewScreens(d *Daemon, gateway func() *httpgateway.Gateway, alerts Alerts, log *slog.Logger) (*Screens, error) {
	s := &Screens{daemon: d, log: log, manifests: map[string]*release.Manifest{}}
	senders, err := alert.Parse(alerts.To)
	if err != nil {
		return nil, err
	}
	if len(senders) > 0 {
		s.alerter = alert.New(alert.Config{Latest: func(ctx context.Context) (*view.Detail, error) { return s.watcher.Latest(ctx) }, Board: told{d}, Senders: senders, Grace: alerts.Grace, Every: d.Quiet.Every, Log: log})
	}
	if s.history, err = watch.OpenHistory(filepath.Join(d.About.State, "events")); err != nil {
		return nil, err
	}
	s.watcher = watch.New(watch.Config{Take: d.Look, Changed: d.Agent.Changed(), Follow: []func(before, after *view.Detail){s.record}, Every: d.Quiet.Every, Log: log})
	s.web = &web{Screens: s, gateway: gateway, since: time.Now()}
	if s.page, err = newUI(s.web, log); err != nil {
		return nil, errors.Join(err, s.history.Close())
	}
	d.screens = s
	return s, nil
}

// Extend adds the pages and the metrics to a gateway's settings.
func (s *Screens) Extend(c httpgateway.Config) httpgateway.Config {
	numbers := metrics.Handler(metrics.Source{Version: s.daemon.About.Version, Latest: s.watcher.Latest, Gateway: s.counts}, s.log)
	c.Mount = map[string]http.Handler{"/": s.page, ui.Prefix: s.page, "/metrics": numbers}
	c.Post = map[string]http.Handler{ui.OrderPath: http.HandlerFunc(s.page.Orders)}
	c.Ready = s.ready
	c.Every, c.Asked = s.daemon.Quiet.Every, s.daemon.Asked
	return c
}

func (s *Screens) counts() metrics.Gateway {
	n := s.web.gateway().Counts()
	return metrics.Gateway{
		Requests: map[string]uint64{"local": n.Local, "streamed": n.Streamed, "missing": n.Missing, "unavailable": n.Unavailable, "index": n.Index,
			"not_modified": n.NotModified, "refused": n.Refused},
		Bytes: map[string]uint64{"package": n.PackageBytes, "index": n.IndexBytes},
	}
}

// Alert tells people of trouble until ctx ends.
func (s *Screens) Alert(ctx context.Context) error {
	if s.alerter == nil {
		return nil
	}
	return s.alerter.Run(ctx)
}

// told is what people were told, on the board.
type told struct{ daemon *Daemon }

func (t told) Told(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	err := t.daemon.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, a := range r.Alerts() {
			out[a.Cause] = a.Open
		}
		return nil
	})
	return out, err
}

func (t told) Tell(ctx context.Context, causes []string, open bool) error {
	return t.daemon.Agent.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		var out []claims.Event
		for _, c := range causes {
			out = append(out, claims.Post{Body: claims.Alert{Cause: c, Open: open}})
		}
		return out
	})
}

// readyWithin bounds how long the board may take to answer a probe.
const readyWithin = 2 * time.Second

// ready says why this peer is not: the board does not answer, or has not been
// compared with another peer's yet.
func (s *Screens) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	var may bool
	var why string
	err := s.daemon.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		may, why = r.MayClaim()
		return nil
	})
	if err != nil {
		return fmt.Errorf("the board does not answer: %w", err)
	}
	if !may {
		return errors.New(why)
	}
	return nil
}

// Run follows the swarm until ctx ends.
func (s *Screens) Run(ctx context.Context) error {
	s.keep([]view.Event{{AtMS: time.Now().UnixMilli(), Kind: view.EventStarted, Who: s.daemon.About.Nick, What: s.daemon.About.Nick,
		Text: build.OneLine("this peer ("+s.daemon.About.Nick+") started, version "+s.daemon.About.Version, 200)}})
	return s.watcher.Run(ctx)
}

// Close closes the history. Nothing is closed of screens that were never made.
func (s *Screens) Close() error {
	if s == nil {
		return nil
	}
	return s.history.Close()
}

func (s *Screens) record(before, after *view.Detail) { s.keep(view.Events(before, after)) }

// keep writes events. A history that cannot be written is no reason to stop.
func (s *Screens) keep(list []view.Event) {
	if err := s.history.Append(list); err != nil {
		s.log.Warn("events not kept", "count", len(list), "error", err)
	}
}

// nothingElsewhere stands for a fetch where only this store is asked.
func nothingElsewhere(_ context.Context, c cid.Cid) error {
	return fmt.Errorf("blob %s: %w here", c, cas.ErrNotFound)
}

// Look takes the snapshot with everything that screens show.
func (d *Daemon) Look(ctx context.Context) (v *view.Detail, err error) {
	var why string
	var in replication.Input
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		v = view.Look(r, now)
		in = Copies(r, now, d.Collector.Sort)
		_, why = r.MayClaim()
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.adorn(ctx, &v.Snapshot, in, why)
	return v, nil
}

// Moment is what the schedule and the forecast are computed from.
func (d *Daemon) Moment(ctx context.Context) (m replay.Moment, err error) {
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		m = replay.Observe(r, now)
		return nil
	})
	return m, err
}

// Events lists what happened, as this peer saw it.
func (d *Daemon) Events(_ context.Context, since int64, limit int) (control.Events, error) {
	list, err := d.screens.history.Since(since, limit)
	if err != nil {
		return control.Events{}, err
	}
	return control.Events{Schema: 1, Events: list}, nil
}
