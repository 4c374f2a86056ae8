// Package node is the composition root: it constructs the parts of a peer, runs
// them in one errgroup, and stops them in order. It decides nothing.
//
// Stopping goes from the outside in: first builds end (what is finished is kept
// and reported), then the board takes its leave, then the gateway, the control
// socket and the network close.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/guest/watch"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/request"
	"github.com/build-swarm/swarm/build/shim"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/cas/replicator"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/machine"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/direct"
	"github.com/build-swarm/swarm/p2p/discovery"
	"github.com/build-swarm/swarm/p2p/exchange"
	"github.com/build-swarm/swarm/p2p/gossip"
)

// ErrRestart is what Run returns when this peer is to go on in a new process.
var ErrRestart = errors.New("to go on in a new process")

// reportEvery is how often the machine is looked at for the next Beat.
const reportEvery = 5 * time.Second

// Config is a peer's settings, checked and complete.
type Config struct {
	State    string   // directory of identity, keys, board and blobs
	Socket   string   // control socket
	Nick     string   // name for people
	Listen   []string // TCP multiaddrs
	Peers    []string // static peers, multiaddrs
	Direct   []string // host:port of blobs beside the private network
	Gateway  []string // host:port
	Hosts    []string // further names of the gateway
	Slots    int      // builds at once; 0 = no drone
	Jobs     int      // make -j of one build
	Stores   bool     // takes copies of blobs
	Manual   bool     // rounds asked for here are released by a person
	Quota    int64    // bytes of blobs; 0 = the disk's own limit
	CopyRate int64    // bytes per second to peers, and of copies; 0 = no limit
	Metered  bool     // the link costs
	Site     string   // failure domain
	MDNS     bool
	DHT      bool
	Version  string
	Builders map[build.Builder]worker.Builder
	Planners map[build.Builder]daemon.Planner
	Default  build.Builder
	Ground   *daemon.Ground // what rounds are planned on
	Pool     *shim.Pool     // of the builders' processes; nil = builds are this process's own
	Guest    guest.Policy
	Sensors  watch.Config   // where the machine's sensors are; zero = the machine's own
	Drain    time.Duration  // how long builds may take to end when this peer is told to
	Reload   chan os.Signal // asks for a process that goes on where this one ends
	Check    func() error   // why that would not start
	Alerts   daemon.Alerts  // who is told of trouble
	Log      *slog.Logger
}

// Node is one peer.
type Node struct {
	cfg       Config
	still     machine.Static
	host      *p2p.Host
	finder    *discovery.Service
	direct    *direct.Carrier
	journal   *agent.Journal
	board     *agent.Agent
	store     *disk.Store
	worker    *worker.Worker
	catalog   *daemon.Catalog
	gateway   *httpgateway.Gateway
	publisher *publish.Publisher
	installs  *daemon.InstallTests
	copies    *replicator.Replicator
	holdings  *daemon.Holdings
	garbage   *daemon.Collector
	control   *control.Server
	screens   *daemon.Screens
	daemon    *daemon.Daemon
	surviving []worker.Survivor
	guest     daemon.Guest
	quiet     *daemon.Quiet
	stop      context.CancelFunc // of what ends first
	restart   bool
}

// New constructs a peer and opens what it needs (ports, socket, journal), so
// that everything that cannot be had is an error before anything runs.
func New(cfg Config) (n *Node, err error) {
	n = &Node{cfg: cfg, still: machine.Read()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	id, err := p2p.LoadOrCreateIdentity(cfg.State)
	if err != nil {
		return n, err
	}
	key, err := p2p.ReadSwarmKey(filepath.Join(cfg.State, p2p.SwarmKeyFile))
	if err != nil {
		return n, err
	}
	if n.journal, err = agent.OpenJournal(filepath.Join(cfg.State, "board.db")); err != nil {
		return n, err
	}
	if n.host, err = p2p.NewHost(p2p.Config{Identity: id, SwarmKey: key, Listen: cfg.Listen, Static: cfg.Peers,
		AddressBook: filepath.Join(cfg.State, "peers.json"), Log: cfg.Log}); err != nil {
		return n, err
	}
	n.finder = discovery.New(n.host, discovery.Config{NoMDNS: !cfg.MDNS, NoDHT: !cfg.DHT, Log: cfg.Log})
	if n.store, err = disk.Open(filepath.Join(cfg.State, daemon.StoreDir), disk.Options{Quota: cfg.Quota, Room: daemon.RoomForState, Log: cfg.Log, OnCorrupt: n.lost}); err != nil {
		return n, err
	}
	return n, n.construct(id, key)
}

// construct makes the parts that need the host, the store and the journal.
func (n *Node) construct(id p2p.Identity, key p2p.SwarmKey) (err error) {
	cfg := n.cfg
	clock, err := agent.SystemClock()
	if err != nil {
		return err
	}
	if cfg.Pool != nil {
		if n.surviving, err = cfg.Pool.Surviving(); err != nil {
			return err
		}
	}
	blobs := exchange.Serve(n.host, n.store, cfg.Log)
	blobs.Limit(cfg.CopyRate)
	fetcher := exchange.NewFetcher(n.host, cfg.Log)
	if n.direct, err = daemon.Direct(n.host, id, cfg.Direct, cfg.Log); err != nil {
		return err
	}
	n.direct.Handle(exchange.Protocol, blobs.Handle)
	fetcher.UseForBulk(n.direct)
	var q *request.Requester
	n.board, err = agent.New(agent.Config{
		Key: id.PrivateKey(), Net: n.host, Journal: n.journal, Clock: clock, Log: cfg.Log, Twins: n.host.Twins(),
		Join:     func(v gossip.Validator) (gossip.Topic, error) { return gossip.Join(n.host, agent.Topic, v, cfg.Log) },
		LoadPlan: func(ctx context.Context, cid string) (*build.Plan, error) { return q.LoadPlan(ctx, cid) },
		Alarm:    func(a claims.Alarm) { cfg.Log.Error(a.Text, "alarm", a.Code) },
		Adopt:    daemon.Keys(n.surviving),
	})
	if err != nil {
		return err
	}
	n.quiet = &daemon.Quiet{Board: n.board, Host: n.host, Log: cfg.Log}
	n.holdings = daemon.NewHoldings(n.board, n.store)
	bring := func(ctx context.Context, c cid.Cid, holders []string) error {
		if err := fetcher.Fetch(ctx, c, holders, n.store); err != nil {
			return err
		}
		return n.holdings.Announce(ctx, c)
	}
	fetch, err := cfg.Ground.Use(n.host, n.board, n.store, cfg.State, bring, n.holdings.Announce)
	if err != nil {
		return err
	}
	q = &request.Requester{Self: n.host.Self(), Manual: cfg.Manual, Board: n.board, Store: n.store, Announce: n.holdings.Announce, Replicate: func(ctx context.Context, c cid.Cid, copies int) error {
		return daemon.Replicate(ctx, n.board, c, copies)
	}, Fetch: fetch}
	if cfg.Slots > 0 {
		if n.worker, err = worker.New(worker.Config{
			Self: n.host.Self(), Board: n.board, Store: n.store, Builders: cfg.Builders, Fetch: bring, Announce: n.holdings.Announce,
			Prepare: cfg.Ground.Prepare, Fetched: cfg.Ground.Fetched, Surviving: n.surviving, Dir: filepath.Join(cfg.State, "work"), Pending: filepath.Join(cfg.State, "pending"), Slots: cfg.Slots, Jobs: cfg.Jobs,
			Free: func() guest.Room { return daemon.Free(cfg.State) }, Space: base.Usage, Speed: max(1, n.still.Speed/int64(cfg.Slots)), Log: cfg.Log,
		}); err != nil {
			return err
		}
	}
	n.guest = daemon.WatchMachine(cfg.Guest, cfg.State, n.worker, cfg.Pool, clock, n.tell, n.quiet, cfg.Sensors)
	n.publisher = &publish.Publisher{Self: n.host.Self(), Board: n.board, Store: n.store, Announce: n.holdings.Announce, Replicate: q.Replicate, Fetch: fetch, Log: cfg.Log, Every: n.quiet.Every, Try: daemon.Trial(cfg.Planners, cfg.Log),
		Open: func(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error) {
			return n.catalog.Open(ctx, c, size)
		}}
	n.installs = &daemon.InstallTests{Board: n.board, Net: n.host, Store: n.store, Fetch: fetch, Open: n.publisher.Open, Ground: cfg.Ground, Log: cfg.Log}
	n.installs.Serve()
	n.publisher.Install = n.installs.InstallElsewhere
	n.garbage = &daemon.Collector{Board: n.board, Net: n.host, Store: n.store, Holdings: n.holdings, Fetch: fetch, BuildOnly: !cfg.Stores, Wanted: publish.WantedHere(n.board, n.store, fetch),
		File: filepath.Join(cfg.State, "garbage.json"), Log: cfg.Log, Source: cfg.Ground.Sources.Here, Bases: cfg.Ground.Bases, Changed: n.board.Changed()}
	n.garbage.Serve()
	n.copies = replicator.New(replicator.Config{Input: n.garbage.Input, Fetcher: fetcher.Limited(cfg.CopyRate), Store: n.store, Log: cfg.Log, Every: n.quiet.Every,
		Stored: func(i cas.Info) { n.holdings.Later(i.CID) }})
	n.catalog = &daemon.Catalog{Board: n.board, Store: n.store, Fetch: fetch, Stream: fetcher, Log: cfg.Log, Every: n.quiet.Every, Moved: func() { n.gateway.Kick() }}
	d := &daemon.Daemon{Quiet: n.quiet, Guest: n.guest, Rate: fetcher.Rate, Storage: daemon.Storage{Board: n.board, Disk: n.store, Mend: fetch, Collector: n.garbage}, Publisher: n.publisher, Agent: n.board, Host: n.host, Store: n.store, Requester: q, Planners: cfg.Planners, Default: cfg.Default, Ground: cfg.Ground,
		Gateway: func() []string { return n.gateway.Addrs() }, About: control.Info{Nick: cfg.Nick, Version: cfg.Version, State: cfg.State}}
	if n.worker != nil {
		d.Logs = n.worker.Logs()
	}
	d.Serve()
	if n.screens, err = daemon.NewScreens(d, func() *httpgateway.Gateway { return n.gateway }, cfg.Alerts, cfg.Log); err != nil {
		return err
	}
	if n.gateway, err = httpgateway.New(n.screens.Extend(httpgateway.Config{Catalog: n.catalog, CacheDir: filepath.Join(cfg.State, "index"), Log: cfg.Log,
		Listen: cfg.Gateway, Hosts: cfg.Hosts, Setting: "--gateway"})); err == nil {
		err = n.gateway.Listen(context.Background())
	}
	if err != nil {
		return err
	}
	n.daemon = d
	n.control, err = control.NewServer(cfg.Socket, d, cfg.Log)
	return err
}

// Run is the peer until ctx ends or a part fails.
func (n *Node) Run(ctx context.Context) error {
	debug.SetMemoryLimit(max(256<<20, machine.FreeMemory()<<20/2))
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	// Three stages, each ended after the one before has: see the package
	// comment.
	outer, stopOuter := context.WithCancel(gctx)
	board, stopBoard := context.WithCancel(gctx)
	inner, stopInner := context.WithCancel(gctx)
	defer stopOuter()
	defer stopBoard()
	defer stopInner()
	n.stop = stopOuter
	stop := context.AfterFunc(ctx, func() {
		daemon.Drain(n.worker, n.cfg.Drain, n.cfg.Log)
		stopOuter()
	})
	defer stop()
	for _, run := range []func(context.Context) error{n.host.Run, n.finder.Run, n.direct.Run, n.gateway.Run, n.control.Run,
		n.catalog.Run, n.catalog.Prefetch, n.screens.Run, n.screens.Alert, n.daemon.Run, n.installs.Run} {
		g.Go(func() error { return run(inner) })
	}
	g.Go(func() error { defer stopInner(); return n.board.Run(board) })
	g.Go(func() error {
		defer stopBoard()
		return n.runOuter(outer)
	})
	err := errors.Join(g.Wait(), n.close())
	if n.restart { // what else there is says that the parts were told to end
		err = errors.Join(ErrRestart, err)
	}
	return err
}

func (n *Node) runOuter(ctx context.Context) error {
	if err := n.holdings.Reconcile(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("tell the board what is stored here: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.report(ctx) })
	service := daemon.Service{Asked: n.cfg.Reload, Check: n.cfg.Check, HandOver: n.handOver, Board: n.board, Log: n.cfg.Log}
	g.Go(func() error { return service.Run(ctx) })
	g.Go(func() error { return n.holdings.Run(ctx) })
	g.Go(func() error { return n.garbage.Run(ctx) })
	g.Go(func() error { return n.store.Scrub(ctx) })
	g.Go(func() error { return n.guest.Run(ctx) })
	if n.cfg.Stores {
		g.Go(func() error { return n.publisher.Run(ctx) })
		g.Go(func() error { return n.copies.Run(ctx) })
		g.Go(func() error { return n.kickCopies(ctx) })
	}
	if n.worker != nil {
		g.Go(func() error { return n.worker.Run(ctx) })
	}
	return g.Wait()
}

// handOver ends this process so that another goes on: builds run, claims stay
// held, nobody is told of a leave.
func (n *Node) handOver() {
	if n.cfg.Pool != nil {
		n.cfg.Pool.Detach()
	}
	n.board.Stay()
	n.restart = true
	n.stop()
}

// kickCopies has the replicator look again whenever the board changed.
func (n *Node) kickCopies(ctx context.Context) error {
	changed := n.board.Changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			n.copies.Kick()
		}
	}
}

// report tells the board what this machine is, every five seconds.
func (n *Node) report(ctx context.Context) error {
	return n.quiet.Repeat(ctx, reportEvery, func() error {
		if err := n.tellNow(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, agent.ErrStopped) {
			return err
		}
		return nil
	})
}

func (n *Node) tellNow(ctx context.Context) error {
	b := n.sample(ctx)
	return n.board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event { return []claims.Event{claims.Report{Beat: b}} })
}

// tell is for when others should hear at once; the next report comes anyway.
func (n *Node) tell(ctx context.Context) { _ = n.tellNow(ctx) }

// sample is this machine as its next Beat tells it.
func (n *Node) sample(ctx context.Context) claims.Beat {
	cfg := n.cfg
	b := claims.Beat{
		Nick: cfg.Nick, Version: cfg.Version, Slots: cfg.Slots, Cores: n.still.Cores, Speed: n.still.Speed, Arch: n.still.Arch,
		Features: n.still.Features, FreeMemMiB: machine.FreeMemory(), Steady: true, Stores: cfg.Stores, Site: cfg.Site, Alerts: len(cfg.Alerts.To) > 0,
	}
	for _, name := range []build.Builder{build.BuilderPortage, build.BuilderSample} {
		if cfg.Builders[name] != nil {
			b.Builders = append(b.Builders, name)
		}
	}
	free := daemon.Free(cfg.State).FreeDiskMiB
	daemon.Attend(ctx, &b, n.guest)
	if b.DiskMiB = free; n.worker != nil {
		b.DiskMiB = n.worker.Room().Disk()
		b.Accepting, b.Why = n.worker.Accepting()
		b.Roots, b.InstallMS = n.worker.KeptRoots()
	}
	if u, err := n.store.Usage(); err == nil {
		b.StoreUsed, b.StoreFree = u.Bytes, u.Free
		b.Stores, b.BuildOnly, b.Metered = b.Stores && u.Level < disk.NoReplicas, !cfg.Stores, cfg.Metered
		if why := u.NoBuild(free << 20); why != "" {
			b.Accepting, b.Why = false, why
		}
	}
	return b
}

// lost takes a blob that went bad off this peer's holdings, so that others and
// this peer itself repair it. The store must not wait for the board.
func (n *Node) lost(i cas.Info) {
	n.cfg.Log.Error("a stored blob is damaged; it is fetched again from its other holders", "cid", i.CID.String())
	n.holdings.Later(i.CID)
	n.copies.Kick()
}

// close releases what New opened. It may be called on a half-made node.
func (n *Node) close() error {
	var errs []error
	if n.direct != nil {
		errs = append(errs, n.direct.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	errs = append(errs, n.screens.Close())
	if n.journal != nil {
		errs = append(errs, n.journal.Close())
	}
	if n.cfg.Pool != nil {
		errs = append(errs, n.cfg.Pool.Close())
	}
	if err := os.Remove(n.cfg.Socket); err != nil && n.control != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
