package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// transfer is one blob on its way in from several holders.
type transfer struct {
	f    *Fetcher
	c    cid.Cid
	size int64
	into cas.Partial

	mu     sync.Mutex
	change *sync.Cond // queue, active or over changed
	queue  []*span    // nobody works on these
	active map[*span]bool
	cancel context.CancelFunc // ends all workers
	fatal  error              // of this side: the store, the context
}

// span is a run of groups [next, end). The transfer's mutex guards both: its
// worker moves next up, a thief moves end down.
type span struct{ next, end int64 }

// stealAbove is how many groups a span must have left to be halved: below, the
// new request costs more than it saves.
const stealAbove = 8

// newTransfer queues what into does not have, in ranges, from the beginning.
func newTransfer(f *Fetcher, c cid.Cid, size int64, into cas.Partial) *transfer {
	t := &transfer{f: f, c: c, size: size, into: into, active: map[*span]bool{}}
	t.change = sync.NewCond(&t.mu)
	return t
}

func (t *transfer) fill() {
	for i, n := int64(0), cas.Groups(t.size); i < n; i++ {
		if t.into.Has(i) {
			continue
		}
		if k := len(t.queue); k > 0 && t.queue[k-1].end == i && i-t.queue[k-1].next < rangeGroups {
			t.queue[k-1].end++
			continue
		}
		t.queue = append(t.queue, &span{i, i + 1})
	}
}

// run returns nil when all groups are written.
func (t *transfer) run(ctx context.Context, holders []string) error {
	t.fill()
	outer := ctx
	ctx, t.cancel = context.WithCancel(outer)
	defer t.cancel()
	stop := context.AfterFunc(outer, func() { t.fail(outer.Err()) })
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, len(holders))
	for i, h := range holders {
		wg.Go(func() { errs[i] = t.work(ctx, h) })
	}
	wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fatal != nil {
		return t.fatal
	}
	if len(t.queue) > 0 || len(t.active) > 0 {
		return errors.Join(append([]error{ErrNoHolder}, errs...)...)
	}
	return nil
}

// fail ends the transfer for a reason that no other holder can mend.
func (t *transfer) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fatal == nil {
		t.fatal = err
	}
	t.cancel()
	t.change.Broadcast()
}

// take hands out a span, waiting while others have work that may come back. nil
// means that there will be none.
func (t *transfer) take() *span {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if t.fatal != nil || len(t.queue) == 0 && len(t.active) == 0 {
			return nil
		}
		if len(t.queue) > 0 {
			sp := t.queue[0]
			t.queue = t.queue[1:]
			t.active[sp] = true
			return sp
		}
		var most *span
		for sp := range t.active {
			if most == nil || sp.end-sp.next > most.end-most.next {
				most = sp
			}
		}
		if left := most.end - most.next; left > stealAbove {
			sp := &span{most.end - left/2, most.end}
			most.end = sp.next
			t.active[sp] = true
			return sp
		}
		t.change.Wait()
	}
}

// give ends the work on a span; what is left of it goes back to the queue.
func (t *transfer) give(sp *span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, sp)
	if sp.next < sp.end {
		t.queue = append(t.queue, sp)
	}
	t.change.Broadcast()
}

// bounds is what to ask for.
func (t *transfer) bounds(sp *span) (off, n, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	off = sp.next * cas.GroupSize
	return off, min(sp.end*cas.GroupSize, t.size) - off, sp.end
}

// advance notes that a group was written, and returns the span's end now.
func (t *transfer) advance(sp *span, group int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	sp.next = group + 1
	return sp.end
}

// work gets spans from one holder until there are none, or the holder is no
// good. Its error says why the holder was given up.
func (t *transfer) work(ctx context.Context, holder string) error {
	var s *session
	defer func() {
		if s != nil {
			s.end()
		}
	}()
	failures := 0
	for {
		sp := t.take()
		if sp == nil {
			return nil
		}
		first := sp.next
		var err error
		if s == nil {
			s, err = t.f.dialFor(ctx, ctx, holder, t.size)
		}
		if err == nil {
			began := time.Now()
			err = t.get(ctx, s, sp)
			t.f.measured(holder, (sp.next-first)*cas.GroupSize, time.Since(began)) // only this worker moves next
		}
		if err != nil && s != nil {
			s.drop()
			s = nil
		}
		progress := sp.next > first // only this worker moves next
		t.give(sp)
		if err == nil || errors.Is(err, errStolen) {
			failures = 0
			continue
		}
		if progress {
			failures = 0
		}
		failures++
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lied(err) {
			t.f.blame(t.c, holder, err)
		}
		if hopeless(err) || stalled(err) || failures >= maxFailures {
			t.f.log.Info("holder is given up", "peer", holder, "cid", t.c, "err", err)
			return fmt.Errorf("%s: %w", holder, err)
		}
		if err := pause(ctx, retryAfter<<failures); err != nil {
			return err
		}
	}
}

// errStolen: the rest of the span belongs to another worker now, and the stream
// still carries it.
var errStolen = errors.New("range was taken over")

// get fetches a span on a session.
func (t *transfer) get(ctx context.Context, s *session, sp *span) error {
	off, n, end := t.bounds(sp)
	r, err := s.get(t.c, off, n)
	if err != nil {
		return err
	}
	size, err := r.Size()
	if err != nil {
		return err
	}
	if size != t.size {
		return fmt.Errorf("it says %d bytes where %d are proved: %w", size, t.size, cas.ErrCorrupt)
	}
	for {
		if err := s.extend(); err != nil {
			return err
		}
		g, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pace(ctx, t.f.limit, len(g.Data)); err != nil {
			return err
		}
		if err := t.into.WriteGroup(g); err != nil {
			t.fail(err)
			return err
		}
		if now := t.advance(sp, g.Index); now < end && g.Index+1 >= now {
			return errStolen
		}
	}
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
