package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
)

const (
	// protoSync carries the anti-entropy exchange, one message a request.
	protoSync = "/swarm/sync/1"
	// Topic is the gossip topic of records and Beats.
	Topic = "/swarm/board/1"

	outboxLen    = 1024 // messages of the exchange to one peer: 190 MiB of records
	maxBatch     = 256  // events between two writes of the journal
	planRetry    = 5 * time.Second
	suspendMS    = 5_000
	leaveTimeout = 500 * time.Millisecond
)

// Config is what an Agent is made of. Join is called in Run, and again after each
// time the agent was quiet, with the validator that the topic must have.
type Config struct {
	Key     ed25519.PrivateKey
	Net     p2p.Network
	Join    func(gossip.Validator) (gossip.Topic, error)
	Journal *Journal
	Clock   Clock
	Log     *slog.Logger
	Settle  int64 // milliseconds, see claims.Config
	// LoadPlan reads a round's plan from the blob that holds it.
	LoadPlan func(ctx context.Context, cid string) (*build.Plan, error)
	// Twins fires while another process answers to this peer's identity; nil =
	// nobody would notice.
	Twins <-chan struct{}
	// Alarm tells a person; it must not block.
	Alarm func(claims.Alarm)
	// Adopt are the jobs that this peer's last process left running.
	Adopt []build.Key
}

// Order is what the board tells the drone: a claim settled, or a build ends.
type Order struct {
	Key    build.Key
	Stop   bool
	Reason string
}

// Agent owns one peer's replica.
type Agent struct {
	cfg     Config
	replica *claims.Replica
	intake  *intake
	calls   chan call
	orders  *mailbox[Order]
	done    chan struct{}

	mu       sync.Mutex
	watchers []chan struct{}
	staying  atomic.Bool

	seat *seat
	loop *loop // set by Run before any call can arrive
}

// New reads the journal and makes the replica. Nothing runs until Run.
func New(cfg Config) (*Agent, error) {
	recs, mark, bad, err := cfg.Journal.Load()
	if err != nil {
		return nil, err
	}
	if bad > 0 {
		cfg.Log.Warn("records of the journal left out", "count", bad)
	}
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	a := &Agent{
		cfg: cfg, intake: newIntake(), calls: make(chan call),
		orders: newMailbox[Order](), done: make(chan struct{}),
	}
	a.seat = newSeat(func() (gossip.Topic, error) { return cfg.Join(a.validate) })
	a.replica = claims.NewReplica(claims.Config{Key: cfg.Key, Instance: rng.Uint64() | 1, Settle: cfg.Settle, Rand: rng, Mark: mark, Adopt: cfg.Adopt}, recs, cfg.Clock.Now())
	return a, nil
}

// ErrStopped is returned by Do after the agent has ended.
var ErrStopped = errors.New("the board is closed")

// errBusy is told to a peer that sends more at once than its share.
var errBusy = errors.New("too much of yours waits here")

// call is one function for the loop to run; it reports whether it stepped
// anything.
type call struct {
	run  func() bool
	done chan struct{}
}

// Do runs f on the loop: it may read the replica and return events, which are
// stepped at once. f must be quick and keep nothing of the replica. When Do
// returns nil, what the events put on the board is in the journal.
func (a *Agent) Do(ctx context.Context, f func(*claims.Replica, claims.Now) []claims.Event) error {
	c := call{done: make(chan struct{}), run: func() bool {
		a.intake.count(&a.replica.Refused)
		evs := f(a.replica, a.cfg.Clock.Now())
		for _, ev := range evs {
			a.loop.step(ev)
		}
		return len(evs) > 0
	}}
	select {
	case a.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.done:
		return ErrStopped
	}
	select {
	case <-c.done:
		return nil
	case <-a.done:
		return ErrStopped
	}
}

// Changed returns a signal for one receiver that fires after the board or what
// is known of peers has changed. Signals coalesce.
func (a *Agent) Changed() <-chan struct{} {
	ch := make(chan struct{}, 1)
	a.mu.Lock()
	a.watchers = append(a.watchers, ch)
	a.mu.Unlock()
	return ch
}

// Stay makes the end of Run no leave: claims stay held and nobody is told, for a
// process that goes on at once where this one ends.
func (a *Agent) Stay() { a.staying.Store(true) }

// Orders signals that orders for the drone wait; read them with TakeOrders.
func (a *Agent) Orders() <-chan struct{} { return a.orders.ready }

// TakeOrders returns the waiting orders, oldest first.
func (a *Agent) TakeOrders() []Order { return a.orders.take() }

// Run is the loop. It returns after ctx ended and the peer has taken its leave,
// or with the error that made the journal unwritable: a peer that cannot
// persist must not speak.
func (a *Agent) Run(ctx context.Context) error {
	defer close(a.done)
	if err := a.seat.take(); err != nil {
		return err
	}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error { return a.seat.drain(inner) })
	p2p.Serve(a.cfg.Net, protoSync, claims.MaxSyncBytes, a.onRequest)
	defer a.cfg.Net.Handle(protoSync, nil)
	a.loop = newLoop(a, inner, g)
	g.Go(func() error {
		defer stop()
		return a.loop.run(ctx)
	})
	err := g.Wait()
	a.intake.close()
	err = errors.Join(err, a.seat.leave())
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// onRequest takes one message of the exchange from a peer. It returns when the
// loop has room for it, so that a sender is never faster than this peer merges.
// A page of records is checked while the sender brings the next one.
func (a *Agent) onRequest(ctx context.Context, from string, req []byte) ([]byte, error) {
	size := max(leastCharge, len(req))
	if err := a.intake.await(ctx, from, size); err != nil {
		a.intake.flood.Add(1)
		return nil, err
	}
	m, err := claims.DecodeSync(req)
	if err != nil {
		a.intake.malformed.Add(1)
		a.intake.release(from, size)
		return nil, err
	}
	return nil, a.intake.inOrder(from, len(m.Records) > checkPart, func(turn <-chan struct{}) error {
		list, err := a.intake.check(m.Records)
		<-turn
		if err != nil {
			a.intake.malformed.Add(1)
			a.intake.release(from, size)
			return err
		}
		m.Records = nil
		evs, _ := events(from, list)
		a.intake.put(letter{append(evs, claims.Synced{From: from, Msg: m}), from, size})
		return nil
	})
}
