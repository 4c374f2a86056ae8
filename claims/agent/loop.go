package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
)

// What waits for the journal: for how long at the most, in milliseconds, and how
// much of it, in bytes.
const (
	journalDelay = 200
	journalBytes = 8 << 20
)

// loop is the one goroutine that touches the replica, and what it alone owns.
type loop struct {
	a         *Agent
	ctx       context.Context // of senders and plan readers; outlives the wish to stop
	g         *errgroup.Group
	connected map[string]bool
	senders   map[string]*mailbox[claims.SyncMessage]
	loading   map[string]bool
	effects   []claims.Effect
	put       map[string]wire.Opened // by key, to be written to the journal
	drop      []string               // keys to be taken out of it before that
	putBytes  int
	since     int64 // boot milliseconds since which the oldest of these waits
	changed   bool
	plans     *time.Ticker // runs while a plan is missing
	asleep    int64        // boot minus awake time, at the last look
}

func newLoop(a *Agent, ctx context.Context, g *errgroup.Group) *loop {
	return &loop{
		a: a, ctx: ctx, g: g, connected: map[string]bool{}, loading: map[string]bool{},
		senders: map[string]*mailbox[claims.SyncMessage]{}, put: map[string]wire.Opened{},
		plans:  time.NewTicker(planRetry),
		asleep: a.cfg.Clock.Now().Boot - a.cfg.Clock.Awake(),
	}
}

func (l *loop) run(ctx context.Context) error {
	a := l.a
	watch := a.cfg.Net.Watch()
	l.follow()
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer l.plans.Stop()
	for {
		if err := l.flush(false); err != nil {
			return err
		}
		now := a.cfg.Clock.Now()
		wake := a.replica.NextWake(now)
		if l.waiting() {
			wake = min(wake, l.since+journalDelay)
		}
		timer.Reset(time.Duration(wake-now.Boot) * time.Millisecond)
		select {
		case <-ctx.Done():
			if !a.staying.Load() {
				l.step(claims.Leave{})
				l.farewell()
			}
			return l.flush(true)
		case <-a.intake.ready:
			l.drainInbox()
		case c := <-a.calls:
			err := l.flush(c.run())
			close(c.done)
			if err != nil {
				return err
			}
		case <-watch:
			l.follow()
		case <-a.cfg.Twins:
			l.step(claims.Twin{})
		case <-l.plans.C:
			l.loadPlans()
		case <-timer.C:
			l.step(claims.Tick{})
		}
	}
}

// drainInbox steps what waits, so that one journal write serves all.
func (l *loop) drainInbox() {
	for range maxBatch {
		m, ok := l.a.intake.next()
		if !ok {
			return
		}
		l.take(m)
	}
	l.a.intake.wake() // there may be more; others have their turn first
}

func (l *loop) take(m letter) {
	for _, ev := range m.evs {
		l.step(ev)
	}
	l.a.intake.release(m.from, m.size)
}

func (l *loop) step(ev claims.Event) {
	l.checkSuspend()
	l.feed(ev)
}

func (l *loop) feed(ev claims.Event) {
	effects := l.a.replica.Step(l.a.cfg.Clock.Now(), ev)
	l.changed = l.changed || changes(ev, effects)
	l.effects = append(l.effects, effects...)
}

// changes reports whether the board reads otherwise after a step. Most steps of
// an idle peer are Beats that say nothing new: telling everybody who watches of
// each cost more than all else that such a peer does.
func changes(ev claims.Event, effects []claims.Effect) bool {
	switch ev.(type) {
	case claims.PlanLoaded, claims.Connected, claims.Disconnected, claims.Progress, claims.GiveBack:
		return true
	}
	for _, e := range effects {
		switch e.(type) {
		case claims.Persist, claims.Changed, claims.Won, claims.Stop:
			return true
		}
	}
	return false
}

// flush does the effects in their order, what has to be on disk first. What only
// has to be on disk may wait a little for more of its kind, unless now is set:
// nobody has heard yet that this peer knows it, and whoever sent it still does.
// Each write waits for the disk, and a joiner would wait for every page.
func (l *loop) flush(now bool) error {
	var mark hlc.Time
	for _, e := range l.effects {
		switch e := e.(type) {
		case claims.Persist:
			l.keep(e)
		case claims.Changed:
		case claims.Mark:
			mark, now = e.Stamp, true
		default:
			now = true
		}
	}
	if l.waiting() && (now || l.putBytes >= journalBytes || l.a.cfg.Clock.Now().Boot >= l.since+journalDelay) || mark > 0 {
		if err := l.a.cfg.Journal.Write(l.put, l.drop, mark); err != nil {
			return err
		}
		clear(l.put)
		l.drop, l.putBytes = nil, 0
	}
	var out [][]byte
	for _, e := range l.effects {
		switch e := e.(type) {
		case claims.Publish:
			out = append(out, e.Record.Raw())
		case claims.Send:
			l.send(e.Peer, e.Msg)
		case claims.Won:
			l.a.orders.put(Order{Key: e.Key}, 0)
		case claims.Stop:
			l.a.orders.put(Order{Key: e.Key, Stop: true, Reason: e.Reason}, 0)
		case claims.Alarm:
			l.a.cfg.Alarm(e)
		case claims.WantPlan:
			l.plans.Reset(planRetry)
			l.loadPlan(e.Round, e.CID)
		}
	}
	clear(l.effects)
	l.effects = l.effects[:0]
	l.gossip(out)
	if l.changed {
		l.changed = false
		l.a.notify()
	}
	return nil
}

// keep notes what is to be written. The journal drops before it puts, so what is
// to be dropped is no longer put.
func (l *loop) keep(p claims.Persist) {
	if !l.waiting() {
		l.since = l.a.cfg.Clock.Now().Boot
	}
	for _, k := range p.Drop {
		delete(l.put, k)
	}
	l.drop = append(l.drop, p.Drop...)
	for _, o := range p.Put {
		l.put[o.Key()] = o
		l.putBytes += len(o.Raw())
	}
}

// waiting reports whether something waits to be written.
func (l *loop) waiting() bool { return len(l.put) > 0 || len(l.drop) > 0 }

func (a *Agent) notify() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ch := range a.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// gossip packs records into messages below the cap. A message that cannot be
// sent is no loss: the exchange carries it.
func (l *loop) gossip(raws [][]byte) {
	const room = gossip.MaxMessage - 1024
	topic, _ := l.a.seat.now()
	for topic != nil && len(raws) > 0 {
		n, size := 0, 0
		for n < len(raws) && (n == 0 || size+len(raws[n])+8 <= room) {
			size += len(raws[n]) + 8
			n++
		}
		msg, err := build.Marshal(raws[:n])
		if err == nil {
			err = topic.Publish(l.ctx, msg)
		}
		if err != nil && !errors.Is(err, p2p.ErrClosed) {
			l.a.cfg.Log.Debug("gossip not sent", "records", n, "error", err)
		}
		raws = raws[n:]
	}
}

// farewell hands what this peer says on leaving straight to its neighbours: a
// topic that closes at once may not have sent it yet.
func (l *loop) farewell() {
	var m claims.SyncMessage
	for _, e := range l.effects {
		if p, ok := e.(claims.Publish); ok {
			m.Records = append(m.Records, p.Record.Raw())
		}
	}
	b, err := claims.EncodeSync(m)
	if err != nil {
		return // nothing was said that can be encoded; leases run out instead
	}
	ctx, cancel := context.WithTimeout(l.ctx, leaveTimeout)
	defer cancel()
	var g errgroup.Group
	for peer := range l.connected {
		g.Go(func() error {
			_, err := p2p.Request(ctx, l.a.cfg.Net, peer, protoSync, b, 0)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		l.a.cfg.Log.Debug("a neighbour did not hear the farewell", "error", err)
	}
}

// follow tells the replica who is connected now.
func (l *loop) follow() {
	now := map[string]bool{}
	for _, p := range l.a.cfg.Net.Peers() {
		now[p] = true
		if !l.connected[p] {
			l.step(claims.Connected{Peer: p})
		}
	}
	for p := range l.connected {
		if !now[p] {
			l.step(claims.Disconnected{Peer: p})
		}
	}
	l.connected = now
}

// checkSuspend notices that the machine slept: the clock that counts suspend
// went on while the other stood. It comes before every step, since whatever
// comes first after a suspend would judge all leases as over.
func (l *loop) checkSuspend() {
	asleep := l.a.cfg.Clock.Now().Boot - l.a.cfg.Clock.Awake()
	if asleep-l.asleep > suspendMS {
		l.a.cfg.Log.Info("resumed after suspend", "seconds", (asleep-l.asleep)/1000)
		l.feed(claims.Resumed{})
	}
	l.asleep = asleep
}

// send queues a message of the exchange; each peer has one sender, so that
// messages arrive in order.
func (l *loop) send(peer string, m claims.SyncMessage) {
	box := l.senders[peer]
	if box == nil {
		box = newMailbox[claims.SyncMessage]()
		l.senders[peer] = box
		l.g.Go(func() error { return l.a.sender(l.ctx, peer, box) })
	}
	if !box.put(m, outboxLen) {
		l.a.cfg.Log.Debug("a peer does not take what it asks for", "peer", peer)
	}
}

// sender delivers to one peer until ctx ends. A message that does not arrive
// is dropped with those behind it: the next comparison starts afresh.
func (a *Agent) sender(ctx context.Context, peer string, box *mailbox[claims.SyncMessage]) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-box.ready:
		}
		for _, m := range box.take() {
			b, err := claims.EncodeSync(m)
			if err == nil {
				_, err = p2p.Request(ctx, a.cfg.Net, peer, protoSync, b, 0)
			}
			if err != nil {
				a.cfg.Log.Debug("sync message not delivered", "peer", peer, "error", err)
				break
			}
		}
	}
}

func (l *loop) loadPlans() {
	missing := l.a.replica.MissingPlans()
	for _, rd := range missing {
		l.loadPlan(rd.ID, rd.PlanCID)
	}
	if len(missing) == 0 {
		l.plans.Stop() // until one is wanted
	}
}

// loadPlan reads a round's plan beside the loop; what fails is tried again.
func (l *loop) loadPlan(round, cid string) {
	if l.loading[round] || l.a.cfg.LoadPlan == nil {
		return
	}
	l.loading[round] = true
	a, ctx := l.a, l.ctx
	l.g.Go(func() error {
		plan, err := a.cfg.LoadPlan(ctx, cid)
		if err != nil {
			a.cfg.Log.Debug("plan not loaded", "round", round, "cid", cid, "error", err)
		}
		done := func(*claims.Replica, claims.Now) []claims.Event {
			delete(l.loading, round)
			if err != nil {
				return nil
			}
			return []claims.Event{claims.PlanLoaded{Round: round, Plan: plan}}
		}
		if err := a.Do(ctx, done); err != nil && ctx.Err() == nil && !errors.Is(err, ErrStopped) {
			return err
		}
		return nil
	})
}
