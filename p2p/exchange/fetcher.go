package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/p2p"
	"github.com/ipfs/go-cid"
	"golang.org/x/time/rate"
)

// ErrNoHolder: none of the holders could deliver the blob, or the rest of it.
// The error also says what each of them did.
var ErrNoHolder = errors.New("no holder delivers the blob")

const (
	// rangeGroups is what a worker asks for at once: 16 MiB.
	rangeGroups = 16 << 20 / cas.GroupSize
	// bulkLeast is the size of a blob that is worth a stream of its own kind.
	bulkLeast = 4 << 20
	// firstAsk is what is fetched, into memory, to prove an unknown size.
	firstAsk = 1 << 20
	// StallAfter is how long a holder may take for one group (64 KiB), or to
	// answer at all. It is well below Portage's own time-outs.
	StallAfter = 10 * time.Second
	// maxFailures in a row, without one group between them, drop a holder.
	maxFailures = 3
	retryAfter  = 200 * time.Millisecond // doubled each time
	maxLies     = 10_000                 // remembered
)

// Fetcher gets blobs from peers. Its methods may be called from any goroutine.
type Fetcher struct {
	*fetching
	limit *rate.Limiter // nil: none
}

// fetching is what a Fetcher shares with its Limited ones.
type fetching struct {
	net   p2p.Network
	bulk  Opener
	log   *slog.Logger
	stall time.Duration

	mu      sync.Mutex
	running map[cid.Cid]chan struct{} // closed when that Fetch ends
	lies    map[lie]bool
	rates   map[string]int64 // bytes per second, by holder
	lanes   map[string]*lane // by holder
}

// rateLeast is what has to come at a time to tell of a link, in bytes.
const rateLeast = 1 << 20

// measured notes how fast a holder delivered; some times count, the last most.
func (f *fetching) measured(holder string, bytes int64, d time.Duration) {
	if bytes < rateLeast || d <= 0 {
		return
	}
	rate := int64(float64(bytes) / d.Seconds())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rates == nil {
		f.rates = map[string]int64{}
	}
	if old := f.rates[holder]; old > 0 {
		rate = old + (rate-old)/4
	}
	f.rates[holder] = rate
}

// Rate is how fast a holder delivered lately, on one stream, in bytes per second;
// 0 = nothing of more than 1 MiB came from it since this process began.
func (f *fetching) Rate(holder string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rates[holder]
}

type lie struct {
	cid  cid.Cid
	peer string
}

// NewFetcher makes a Fetcher over n. log nil discards.
func NewFetcher(n p2p.Network, log *slog.Logger) *Fetcher {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Fetcher{fetching: &fetching{net: n, bulk: n, log: log, stall: StallAfter, running: map[cid.Cid]chan struct{}{}, lies: map[lie]bool{}, lanes: map[string]*lane{}}}
}

// Opener opens streams: a p2p.Network, or one that has a faster way for bulk.
type Opener interface {
	Open(ctx context.Context, peer, proto string) (p2p.Stream, error)
}

// UseForBulk has o open the streams that ranges of large blobs come on. Call it
// before anything is fetched.
func (f *Fetcher) UseForBulk(o Opener) { f.bulk = o }

// Limited is f at most perSecond bytes per second, all its transfers together;
// 0 is f. Who waits for a blob that a limited transfer brings waits as long.
func (f *Fetcher) Limited(perSecond int64) *Fetcher {
	return &Fetcher{f.fetching, limiter(perSecond)}
}

// limiter lets a group through at once, and on the average no more than
// perSecond bytes; nil for 0.
func limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(int(min(perSecond/8, 1<<30)), 2*cas.GroupSize))
}

// pace waits until n bytes may pass.
func pace(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	return l.WaitN(ctx, min(n, l.Burst()))
}

// Fetch brings the blob c from holders into a store, verified, and returns once
// it is durable there. A blob that is held already is no error. The error wraps
// ErrNoHolder, ctx's, or the store's (cas.ErrFull). What has come stays in the
// store's Partial for the next Fetch, except when the store is full.
func (f *Fetcher) Fetch(ctx context.Context, c cid.Cid, holders []string, into cas.Store) error {
	if _, err := cas.Digest(c); err != nil {
		return err
	}
	done, err := f.begin(ctx, c, into)
	if done == nil {
		return err
	}
	defer done()
	if err := f.fetch(ctx, c, f.usable(c, holders), into); err != nil {
		return fmt.Errorf("fetch %s: %w", c, err)
	}
	return nil
}

// begin waits until no other Fetch of c runs. Without a done function there is
// nothing to do, by err's reason or because the blob is here.
func (f *Fetcher) begin(ctx context.Context, c cid.Cid, into cas.Store) (done func(), err error) {
	mine := make(chan struct{})
	done = func() {
		f.mu.Lock()
		delete(f.running, c)
		f.mu.Unlock()
		close(mine)
	}
	for {
		f.mu.Lock()
		other, busy := f.running[c]
		if !busy {
			f.running[c] = mine
		}
		f.mu.Unlock()
		if !busy {
			break
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	// Only now: before, another Fetch could have ended in between.
	if _, err := into.Stat(c); !errors.Is(err, cas.ErrNotFound) {
		done()
		return nil, err
	}
	return done, nil
}

// usable orders holders: connected ones first, otherwise as given; without this
// peer, repetitions and those that lied about c.
func (f *Fetcher) usable(c cid.Cid, holders []string) []string {
	connected := f.net.Peers()
	seen := map[string]bool{f.net.Self(): true}
	var near, far []string
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range holders {
		if seen[h] || f.lies[lie{c, h}] {
			continue
		}
		seen[h] = true
		if _, ok := slices.BinarySearch(connected, h); ok {
			near = append(near, h)
		} else {
			far = append(far, h)
		}
	}
	return append(near, far...)
}

// blame remembers that a holder served something else than c.
func (f *Fetcher) blame(c cid.Cid, peer string, err error) {
	f.log.Warn("peer served a blob that is not the one", "peer", peer, "cid", c, "err", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lies) >= maxLies {
		clear(f.lies) // a holder that goes on lying is found out again by one group
	}
	f.lies[lie{c, peer}] = true
}

func (f *Fetcher) fetch(ctx context.Context, c cid.Cid, holders []string, into cas.Store) error {
	size, head, holders, err := f.prove(ctx, c, holders)
	if err != nil {
		return err
	}
	if whole(size, head) {
		_, err := into.Put(ctx, data(head), c)
		return err
	}
	asm, ok := into.(cas.Assembler)
	if !ok {
		return f.stream(ctx, c, size, holders, into)
	}
	p, err := asm.Assemble(c, size)
	if err != nil {
		return err
	}
	t := newTransfer(f, c, size, p)
	for _, g := range head {
		if err := p.WriteGroup(g); err != nil {
			return errors.Join(err, p.Abort())
		}
	}
	if err := t.run(ctx, holders); err != nil {
		if errors.Is(err, cas.ErrFull) {
			return errors.Join(err, p.Abort())
		}
		return errors.Join(err, p.Close())
	}
	_, err = p.Commit()
	return err
}

// whole reports whether the groups that came with the proof are the blob.
func whole(size int64, head []cas.Group) bool { return int64(len(head)) == cas.Groups(size) }

// data reads groups one after the other.
func data(groups []cas.Group) io.Reader {
	parts := make([]io.Reader, len(groups))
	for i, g := range groups {
		parts[i] = bytes.NewReader(g.Data)
	}
	return io.MultiReader(parts...)
}

// stream is Fetch into a store that takes a blob only from its beginning.
func (f *Fetcher) stream(ctx context.Context, c cid.Cid, size int64, holders []string, into cas.Store) error {
	r, err := f.Open(ctx, c, size, holders)
	if err != nil {
		return err
	}
	_, err = into.Put(ctx, r, c)
	return errors.Join(err, r.Close())
}

// prove asks holders in turn for the end of the blob until one proves its size.
// It returns the groups that came with it, and the holders without those that
// cannot help. Who was busy or cut off is asked again.
func (f *Fetcher) prove(ctx context.Context, c cid.Cid, holders []string) (int64, []cas.Group, []string, error) {
	errs := map[string]error{} // the last of each holder
	for round := 0; round < maxFailures && len(holders) > 0; round++ {
		if round > 0 {
			if err := pause(ctx, retryAfter<<round); err != nil {
				return 0, nil, nil, err
			}
		}
		var again []string
		for i, h := range holders {
			size, groups, err := f.tail(ctx, c, h)
			if err == nil {
				return size, groups, append(holders[i:], again...), nil
			}
			if ctx.Err() != nil {
				return 0, nil, nil, ctx.Err()
			}
			if lied(err) {
				f.blame(c, h, err)
			}
			if !hopeless(err) && !stalled(err) {
				again = append(again, h)
			}
			errs[h] = fmt.Errorf("%s: %w", h, err)
		}
		holders = again
	}
	all := []error{ErrNoHolder}
	for _, h := range slices.Sorted(maps.Keys(errs)) {
		all = append(all, errs[h])
	}
	return 0, nil, nil, errors.Join(all...)
}

// tail fetches the end of a blob.
func (f *Fetcher) tail(ctx context.Context, c cid.Cid, holder string) (int64, []cas.Group, error) {
	s, err := f.enter(ctx, holder)
	if err != nil {
		return 0, nil, err
	}
	size, groups, err := f.tailOn(ctx, s, c)
	f.leave(s, holder, err == nil || errors.Is(err, errNotHeld))
	return size, groups, err
}

func (f *Fetcher) tailOn(ctx context.Context, s *session, c cid.Cid) (int64, []cas.Group, error) {
	r, err := s.get(c, cas.Suffix, firstAsk)
	if err != nil {
		return 0, nil, err
	}
	var groups []cas.Group
	for {
		if err := s.extend(); err != nil {
			return 0, nil, err
		}
		g, err := r.Next()
		if errors.Is(err, io.EOF) {
			size, err := r.Size()
			return size, groups, err
		}
		if err != nil {
			return 0, nil, err
		}
		if err := pace(ctx, f.limit, len(g.Data)); err != nil {
			return 0, nil, err
		}
		g.Data = bytes.Clone(g.Data)
		groups = append(groups, g)
	}
}
