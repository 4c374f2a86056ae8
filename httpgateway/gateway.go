package httpgateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config of a Gateway. Zero limits stand for the defaults beside them.
type Config struct {
	Catalog  Catalog
	CacheDir string // for rendered generations; made when missing, ours alone
	Log      *slog.Logger

	Listen  []string // host:port each
	Setting string   // how a person sets Listen, for the error of a port in use
	Hosts   []string // names this gateway goes by, beside loopback, IP literals and the names in Listen

	// Mount adds handlers for GET and HEAD: a pattern is a path, or a prefix
	// that ends in "/" ("/" is the root page alone). They come before targets
	// of the same name.
	// The request's context ends when the gateway is told to stop.
	Mount map[string]http.Handler
	// Post adds the only paths that take POST, with a body of PostBytes at the
	// most. Who may ask for what is the handler's to judge; the name that the
	// request calls this gateway by has been.
	Post map[string]http.Handler
	// Ready says why this peer is not ready to serve, for /readyz; nil = it is
	// when every target's newest release is served.
	Ready func() error

	// Asked hears of each request that somebody waits for: not of those that a
	// machine makes every so often (/livez, /readyz, /metrics). nil = nobody does.
	Asked func()

	// Every stretches Poll; nil leaves it as it is.
	Every func(time.Duration) time.Duration

	Poll         time.Duration // how often heads are looked at though nobody called Kick; 10 s
	Patience     time.Duration // to the first byte of a blob that is elsewhere; 20 s (wget waits 60)
	Stall        time.Duration // without a byte from any holder, then the connection is cut; 45 s
	Grace        time.Duration // for requests that are running when Run ends; 3 s
	SlowWrite    time.Duration // for a client to take 512 KiB; 60 s
	MaxConns     int           // open at a time; 1024, more wait
	MaxConnsEach int           // of one address; 256, more are refused
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if c.Every == nil {
		c.Every = func(d time.Duration) time.Duration { return d }
	}
	def(&c.Poll, 10*time.Second)
	def(&c.Patience, 20*time.Second)
	def(&c.Stall, 45*time.Second)
	def(&c.Grace, 3*time.Second)
	def(&c.SlowWrite, time.Minute)
	if c.MaxConns <= 0 {
		c.MaxConns = 1024
	}
	if c.MaxConnsEach <= 0 {
		c.MaxConnsEach = 256
	}
	if c.Setting == "" {
		c.Setting = "the gateway's listen address"
	}
	return c
}

// Fixed limits of the server.
const (
	readHeader  = 5 * time.Second
	idle        = 15 * time.Second
	maxHeader   = 16 << 10
	maxParts    = 8 // of one Range header
	generations = 32
)

// PostBytes is the most bytes of a request's body.
const PostBytes = 16 << 10

// Gateway is the HTTP side of one peer. ServeHTTP may be called from any
// goroutine, with or without Run.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	hosts   map[string]bool
	mounted *http.ServeMux
	stats   stats
	kick    chan struct{}
	running atomic.Bool // Run moves channels

	mu       sync.Mutex
	channels map[string]*channel // by target; channel "stable"
	listen   []net.Listener
}

// New makes a gateway; it opens no port and starts nothing.
func New(cfg Config) (*Gateway, error) {
	g := &Gateway{
		cfg: cfg.withDefaults(), log: cfg.Log, mounted: http.NewServeMux(),
		kick: make(chan struct{}, 1), channels: map[string]*channel{},
	}
	if cfg.Catalog == nil || cfg.Log == nil || cfg.CacheDir == "" {
		return nil, errors.New("make gateway: catalog, log and cache directory are all needed")
	}
	hosts, err := hostNames(cfg.Listen, cfg.Hosts)
	if err != nil {
		return nil, fmt.Errorf("make gateway: %w", err)
	}
	g.hosts = hosts
	for pattern, h := range cfg.Mount {
		if err := mount(g.mounted, pattern, h); err != nil {
			return nil, fmt.Errorf("make gateway: mount %q: %w", pattern, err)
		}
	}
	return g, nil
}

// mount turns ServeMux's panic on a bad pattern into an error.
func mount(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if pattern == "/" {
		pattern = "/{$}"
	}
	mux.Handle(pattern, h)
	return nil
}

// Kick makes Run look at the heads now. It never blocks.
func (g *Gateway) Kick() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// Listen opens the ports of Config.Listen. Run does it too where it has not
// been done; on its own it tells before anything else starts that a port is
// taken.
func (g *Gateway) Listen(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.listen) > 0 {
		return nil
	}
	var lc net.ListenConfig
	for _, addr := range g.cfg.Listen {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			for _, open := range g.listen {
				err = errors.Join(err, open.Close())
			}
			g.listen = nil
			return listenError(addr, g.cfg.Setting, err)
		}
		g.listen = append(g.listen, l)
	}
	return nil
}

func listenError(addr, setting string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("serve the gateway on %s: another program has that port (or another swarm daemon): stop it, or choose another with %s: %w", addr, setting, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("serve the gateway on %s: this machine has no such address: correct %s: %w", addr, setting, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("serve the gateway on %s: not allowed: take a port above 1023 with %s: %w", addr, setting, err)
	}
	return fmt.Errorf("serve the gateway on %s (from %s): %w", addr, setting, err)
}

// Addrs lists the addresses that Listen opened, as "host:port".
func (g *Gateway) Addrs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, l := range g.listen {
		out = append(out, l.Addr().String())
	}
	return out
}

// Run serves until ctx ends, then lets running requests finish for
// Config.Grace. It may be called once.
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.Listen(ctx); err != nil {
		return err
	}
	// Requests outlive ctx by the grace period, but for what never ends by
	// itself.
	base, cut := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx))
	defer cut()
	srv := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: readHeader,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         func(c net.Conn, s http.ConnState) { c.(*conn).state(s) }, // of our listener
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	caps, buffers := newCaps(g.cfg.MaxConns, g.cfg.MaxConnsEach), newBuffers()
	var answers sync.WaitGroup
	eg, ctx := errgroup.WithContext(ctx)
	g.mu.Lock()
	listen := slices.Clone(g.listen)
	g.mu.Unlock()
	for _, l := range listen {
		limited := &listener{Listener: l, caps: caps, slow: g.cfg.SlowWrite, done: ctx.Done(), buffers: buffers,
			plain:   func(c *conn, request []byte) (bool, error) { return g.answerPlain(base, c, request) },
			answers: &answers, grace: g.cfg.Grace}
		g.log.Info("gateway listens", "addr", l.Addr().String())
		eg.Go(func() error {
			if err := srv.Serve(limited); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
				return fmt.Errorf("serve the gateway on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	eg.Go(func() error {
		g.watch(ctx)
		return nil
	})
	eg.Go(func() error {
		<-ctx.Done()
		grace, stop := context.WithTimeout(base, g.cfg.Grace)
		defer stop()
		if err := srv.Shutdown(grace); err != nil {
			g.log.Info("cutting requests that were still running", "after", g.cfg.Grace)
			cut()
			return srv.Close()
		}
		return nil
	})
	err := eg.Wait()
	late := time.AfterFunc(g.cfg.Grace, cut)
	answers.Wait()
	late.Stop()
	caps.told.Wait()
	return err
}

// connKey finds the connection of a request in its context, stopKey the
// context that ends when the gateway is told to stop.
type (
	connKey struct{}
	stopKey struct{}
)

// watch moves channels to their newest heads.
func (g *Gateway) watch(ctx context.Context) {
	g.running.Store(true)
	defer g.running.Store(false)
	tick := time.NewTimer(g.cfg.Poll)
	defer tick.Stop()
	for {
		for _, t := range g.targets() {
			if ctx.Err() != nil {
				return
			}
			if ch, err := g.channel(t); err == nil {
				ch.refresh(g)
			}
		}
		tick.Reset(g.cfg.Every(g.cfg.Poll))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.kick:
		}
	}
}
