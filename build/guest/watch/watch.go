package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

const (
	// idleEvery and busyEvery are how often sensors are read that tell nothing by
	// themselves: without builds, and with.
	idleEvery = 10 * time.Second
	busyEvery = 2 * time.Second
	// quietEvery is how often a quiet machine's are, if the kernel says by itself
	// when it is plugged in.
	quietEvery = time.Minute
	// busRetry is how often a bus is looked for that was not there.
	busRetry = time.Minute
	// settleTime is between what is told the board and the permission to sleep:
	// the last Beat has to get out.
	settleTime = 300 * time.Millisecond
	// leastSpan is the shortest span over which the load of others is taken.
	leastSpan = 1500 * time.Millisecond
)

// Drone is whose builds are held back.
type Drone interface {
	Builds(ctx context.Context) []guest.Build
	// SetHeld makes it begin nothing, for a reason; "" lifts that.
	SetHeld(why string)
	Restrain(level guest.Level, keep map[build.Key]int64, waitMS int64)
	Return(k build.Key, reason string)
}

// Config is what a Watch is made of.
type Config struct {
	Root   string // of sysfs, procfs and devices; "" = the machine's
	Bus    string // address of the system bus; "" = the machine's
	Policy guest.Policy
	Drone  Drone
	// SetLevel gives the builds' processes what a level allows; CPU is what they
	// have used. Missing says what the machine lacks for it.
	SetLevel func(guest.Level) error
	CPU      func() time.Duration
	Missing  string
	// Tell is called after a step that others should hear of, before a machine
	// sleeps too; it returns when they were told.
	Tell func(ctx context.Context)
	// Quiet makes this machine's peer quiet, or ends that; with true it is called
	// at every step for which that lasts. nil: there is nothing to be quieted.
	Quiet func(ctx context.Context, on bool)
	Boot  func() int64 // milliseconds, suspend counted
	State string       // file that remembers the machine's days; "" = none
	Log   *slog.Logger // nil discards it
}

// Report is the newest verdict, with what the sensors could not say.
type Report struct {
	guest.Verdict
	OnBattery bool
	Laptop    bool
	Lacks     []string
}

// Watch is the loop. Make one with New, then Run it.
type Watch struct {
	cfg     Config
	files   files
	touches *touches
	plugs   *plugs
	bus     *bus
	busAt   time.Time // when it was last looked for
	busErr  error
	orders  chan func(guest.Now)
	asked   chan struct{}

	// The loop's own.
	guest  guest.Guest
	saved  saved
	sample sample

	mu     sync.Mutex
	report Report
	ready  chan struct{} // closed by the first step, before it tells anybody
	first  sync.Once
}

// sample is the load at one moment.
type sample struct {
	at      time.Time
	busy    int64 // ticks
	builds  time.Duration
	percent int
}

// saved is the state file.
type saved struct {
	guest.History
	// PausedUntil is in Unix milliseconds; -1 = until resumed.
	PausedUntil int64 `json:"paused_until_ms"`
}

// New reads the state file; a damaged one is begun anew.
func New(cfg Config) *Watch {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watch{cfg: cfg, files: files{cfg.Root}, orders: make(chan func(guest.Now)), asked: make(chan struct{}, 1), ready: make(chan struct{}),
		guest: guest.Guest{Policy: cfg.Policy}, sample: sample{percent: guest.Unknown}}
	w.touches, w.plugs = newTouches(w.files), &plugs{}
	if cfg.State == "" {
		return w
	}
	b, err := os.ReadFile(cfg.State)
	if err == nil {
		err = json.Unmarshal(b, &w.saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Log.Warn("the days of this machine are forgotten", "error", err)
		w.saved = saved{}
	}
	w.guest.History = w.saved.History
	switch left := time.Until(time.UnixMilli(w.saved.PausedUntil)); {
	case w.saved.PausedUntil < 0:
		w.guest.Pause(w.now(), 0)
	case w.saved.PausedUntil > 0 && left > 0:
		w.guest.Pause(w.now(), left)
	}
	return w
}

// Report is what was so at the last step; it waits for the first.
func (w *Watch) Report(ctx context.Context) Report {
	select {
	case <-w.ready:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report
}

// Pause holds all builds of this machine for d, or with 0 until Resume.
func (w *Watch) Pause(ctx context.Context, d time.Duration) error {
	return w.order(ctx, func(now guest.Now) {
		w.guest.Pause(now, d)
		w.saved.PausedUntil = -1
		if d > 0 {
			w.saved.PausedUntil = now.Wall.Add(d).UnixMilli()
		}
	})
}

// Resume ends a Pause.
func (w *Watch) Resume(ctx context.Context) error {
	return w.order(ctx, func(guest.Now) {
		w.guest.Resume()
		w.saved.PausedUntil = 0
	})
}

// Asked says that somebody at this machine asks its peer for something. It does
// not wait.
func (w *Watch) Asked() { ask(w.asked) }

func ask(asked chan struct{}) {
	select {
	case asked <- struct{}{}:
	default: // it is known already
	}
}

// order runs f on the loop, which steps and remembers afterwards.
func (w *Watch) order(ctx context.Context, f func(guest.Now)) error {
	done := make(chan struct{})
	select {
	case w.orders <- func(now guest.Now) { f(now); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

func (w *Watch) now() guest.Now { return guest.Now{Wall: time.Now(), Boot: w.cfg.Boot()} }

// Run watches until ctx ends. Builds that run then are let go on in full.
func (w *Watch) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hush context.CancelFunc // ends the reading of input; nil = it is not read
	var settled <-chan time.Time
	var err error
	if w.plugs, err = newPlugs(w.files); err != nil {
		w.cfg.Log.Debug("this machine is looked at every 10 s also while it is quiet", "error", err)
	}
	wg.Go(func() { w.plugs.run(ctx) })
	timer := time.NewTimer(w.step(ctx))
	defer timer.Stop()
	defer func() {
		if w.bus != nil {
			w.bus.close()
		}
	}()
	for {
		switch heed := w.heedsInput(); {
		case heed && hush == nil:
			c, stop := context.WithCancel(ctx)
			hush = stop
			wg.Go(func() { w.touches.run(c) })
		case !heed && hush != nil:
			hush()
			hush = nil
		}
		var signals chan *dbus.Signal
		if w.bus != nil {
			signals = w.bus.signals
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-w.touches.c:
		case <-w.plugs.c:
		case <-w.asked:
			w.guest.Asked(w.now())
		case f := <-w.orders:
			f(w.now())
			w.save()
		case <-settled:
			settled = nil
			if w.bus != nil {
				w.bus.allowSleep()
			}
		case s, ok := <-signals:
			switch {
			case !ok: // the bus is gone
				w.bus.close()
				w.bus = nil
			case w.bus.heard(s) && w.bus.asleep:
				settled = time.After(settleTime)
			case !w.bus.asleep:
				w.bus.delaySleep()
			}
		}
		timer.Reset(w.step(ctx))
	}
}

// heedsInput reports whether it matters who types: on a server it is nobody's
// business, and a quiet machine has to be plugged in first.
func (w *Watch) heedsInput() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.report.Steady && !w.report.Quiet
}

// step reads the sensors, decides, carries it out, and says when to do so again.
func (w *Watch) step(ctx context.Context) time.Duration {
	r, lacks := w.read()
	builds := w.cfg.Drone.Builds(ctx)
	now := w.now()
	v := w.guest.Step(now, r, builds)
	w.mu.Lock()
	was := w.report
	w.report = Report{Verdict: v, OnBattery: r.OnBattery, Laptop: r.Laptop(), Lacks: lacks}
	w.mu.Unlock()
	w.first.Do(func() { close(w.ready) })
	if v.Level != was.Level || len(builds) > 0 && v.Level != guest.Full {
		if err := w.cfg.SetLevel(v.Level); err != nil {
			w.cfg.Log.Warn("builds are not held back as they should be", "error", err)
		}
	}
	why := v.Why
	if v.May {
		why = ""
	}
	w.cfg.Drone.SetHeld(why)
	w.cfg.Drone.Restrain(v.Level, v.KeepMS, v.WaitMS)
	for _, x := range v.Return {
		w.cfg.Drone.Return(x.Key, x.Reason)
	}
	if v.Level != was.Level || v.Why != was.Why {
		w.cfg.Log.Info("builds on this machine", "level", v.Level.String(), "begin", v.May, "why", v.Why)
	}
	if w.cfg.Quiet != nil && was.Quiet && !v.Quiet {
		w.cfg.Quiet(ctx, false)
	}
	if w.cfg.Tell != nil && (v.Level != was.Level || v.May != was.May || v.Quiet != was.Quiet || v.Why != was.Why && !v.Quiet) {
		w.cfg.Tell(ctx)
	}
	if w.cfg.Quiet != nil && v.Quiet {
		w.cfg.Quiet(ctx, true)
	}
	if !slices.Equal(w.guest.History.Idle, w.saved.Idle) || !slices.Equal(w.guest.History.Away, w.saved.Away) {
		w.save()
	}
	every := idleEvery
	if v.Quiet && w.plugs.heard() {
		every = now.Wall.Truncate(quietEvery).Add(quietEvery).Sub(now.Wall) // when its other work is done, too
	}
	if len(builds) > 0 && !v.Steady {
		every = busyEvery
	}
	return min(every, time.Duration(v.NextMS)*time.Millisecond)
}

// Look reads every sensor once. It waits for no input.
func Look(cfg Config) (guest.Reading, []string) {
	cfg.State, cfg.Boot, cfg.Log = "", func() int64 { return 1 }, slog.New(slog.DiscardHandler)
	w := New(cfg)
	r, lacks := w.read()
	if w.bus != nil {
		w.bus.close()
	}
	return r, lacks
}

// read asks every sensor.
func (w *Watch) read() (r guest.Reading, lacks []string) {
	r.IdleMS = guest.Unknown
	w.files.power(&r)
	w.files.lid(&r)
	w.files.heat(&r)
	w.files.memory(&r)
	w.load(&r)
	now := time.Now()
	if w.bus == nil && (w.busAt.IsZero() || now.Sub(w.busAt) > busRetry) {
		w.busAt = now
		w.bus, w.busErr = dialBus(w.cfg.Bus)
	}
	err := w.busErr
	if w.bus != nil {
		if err = w.bus.read(&r, now); err != nil {
			r.IdleMS, r.Nobody = guest.Unknown, false
		}
		w.bus.metered(&r)
	}
	touched, devices := w.touches.since(now)
	if devices {
		// What is touched is truer than what a desktop says of it minutes later.
		r.IdleMS = touched.Milliseconds()
	}
	if w.cfg.Missing != "" {
		lacks = append(lacks, w.cfg.Missing)
	}
	if err != nil && r.Laptop() {
		lacks = append(lacks, fmt.Sprintf("no logind (%v): suspend, films and idle desktops are not noticed", err))
	}
	return r, lacks
}

// load is what others use of the processors, over the time since the last look.
func (w *Watch) load(r *guest.Reading) {
	now := time.Now()
	s := sample{at: now}
	s.busy, r.Cores = w.files.busy()
	if w.cfg.CPU != nil {
		s.builds = w.cfg.CPU()
	}
	span := now.Sub(w.sample.at)
	switch {
	case w.sample.at.IsZero() || r.Cores == 0 || s.builds < w.sample.builds: // a build ended: what it used is not counted any more
		s.percent = w.sample.percent
	case span < leastSpan:
		r.OthersPercent = w.sample.percent
		return
	default:
		const tick = 10 * time.Millisecond
		others := time.Duration(s.busy-w.sample.busy)*tick - (s.builds - w.sample.builds)
		s.percent = int(min(100, max(0, others*100/(span*time.Duration(r.Cores)))))
	}
	w.sample = s
	r.OthersPercent = s.percent
}

// save writes the state file; one that cannot be written is one of the lesser
// losses.
func (w *Watch) save() {
	w.saved.History = w.guest.History
	if w.cfg.State == "" {
		return
	}
	b, err := json.Marshal(&w.saved)
	if err == nil {
		if err = os.WriteFile(w.cfg.State+".tmp", append(b, '\n'), 0o600); err == nil {
			err = os.Rename(w.cfg.State+".tmp", w.cfg.State)
		}
	}
	if err != nil {
		w.cfg.Log.Warn("the days of this machine are not remembered", "error", err)
	}
}
