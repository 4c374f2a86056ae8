package disk

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/build-swarm/swarm/cas"
)

const (
	// ScrubEvery is how long a pass over all blobs takes.
	ScrubEvery = 30 * 24 * time.Hour
	scrubRate  = 16 << 20         // bytes per second within one blob
	scrubLeast = 10 * time.Second // between two blobs
	scrubMost  = time.Hour
)

// Checks reads every blob and yields it with nil, with cas.ErrCorrupt (it is in
// quarantine now), or with why it could not be read; those that were not verified
// for the longest time come first. It reads at rate bytes per second (0: as fast
// as the disk) and ends with ctx, whose error comes with an empty Info. A blob
// that is deleted meanwhile is passed over.
func (s *Store) Checks(ctx context.Context, rate int64) iter.Seq2[cas.Info, error] {
	return func(yield func(cas.Info, error) bool) {
		for _, i := range s.oldest() {
			err := s.verify(ctx, i.CID, rate)
			if ctx.Err() != nil {
				yield(cas.Info{}, ctx.Err())
				return
			}
			if errors.Is(err, cas.ErrNotFound) && !errors.Is(err, ErrGone) {
				continue // dropped meanwhile
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// oldest lists the blobs, those first that were not verified for the longest
// time. Where that is unknown the order is a new one each time, so that a peer
// that crashes daily checks others each day.
func (s *Store) oldest() []cas.Info {
	type item struct {
		cas.Info
		at   time.Time
		toss uint64
	}
	s.mu.Lock()
	list := make([]item, 0, len(s.index))
	for c, e := range s.index {
		at := e.verified
		if at.IsZero() {
			at = e.scrubbed
		}
		list = append(list, item{cas.Info{CID: c, Size: e.size}, at, rand.Uint64()})
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b item) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.toss, b.toss)) })
	out := make([]cas.Info, len(list))
	for i := range list {
		out[i] = list[i].Info
	}
	return out
}

// Scrub checks all blobs once in ScrubEvery, and again, until ctx ends: one blob
// at a time, slowly, with pauses of random length in proportion to what was read,
// on a thread whose disk accesses wait for everybody else's. What is damaged goes
// to quarantine, and Options.OnCorrupt has it fetched again.
func (s *Store) Scrub(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	idle()
	for {
		checked := false
		for i, err := range s.Checks(ctx, scrubRate) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, ErrGone) { // of these the store tells
				s.opts.Log.Warn("blob could not be read", "cid", i.CID, "err", err)
			}
			checked = true
			if err := sleep(ctx, s.scrubPause(i.Size)); err != nil {
				return err
			}
		}
		if !checked {
			if err := sleep(ctx, scrubMost); err != nil {
				return err
			}
		}
	}
}

// scrubPause is how long to wait after a blob of size bytes: its share of
// ScrubEvery, give or take half. The count of blobs has a part in it, since
// a thousand empty ones must not all be due at once.
func (s *Store) scrubPause(size int64) time.Duration {
	s.mu.Lock()
	const each = 64 << 10 // what a blob costs beside its bytes
	all := s.used + each*int64(len(s.index))
	s.mu.Unlock()
	share := time.Duration(float64(ScrubEvery) * float64(size+each) / float64(max(all, 1)))
	return max(scrubLeast, share/2+rand.N(share+1))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
