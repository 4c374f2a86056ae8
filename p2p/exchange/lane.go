package exchange

import (
	"context"
	"slices"
	"time"
)

// Small blobs come one after the other on sessions that are kept open for a
// moment: to open a stream costs both ends about what a blob of 64 KiB costs.
// Where more than a few are wanted of a holder at once, what is opened for them
// is of the kind that large blobs use, since it now carries many.

const (
	// keptFor is how long a session waits for the next blob. It is short, since a
	// server counts the streams that a peer holds.
	keptFor = 2 * time.Second
	// homeSessions to a holder are opened on the private network before the first
	// direct one: who fetches a single blob should not pay a handshake.
	homeSessions = 2
	// maxBlobs on one session, and another is opened: by then there may be a direct
	// way that there was not at first.
	maxBlobs = 256
)

// lane is the sessions to one holder that small blobs come on.
type lane struct {
	idle []*session // the last used last
	open int        // these, and those that are in use
}

// enter takes an idle session to holder, or opens one. The holder may have closed
// an idle one meanwhile: then its blob is asked for again, as after any error.
func (f *Fetcher) enter(ctx context.Context, holder string) (*session, error) {
	f.mu.Lock()
	l := f.lanes[holder]
	if l == nil {
		l = &lane{}
		f.lanes[holder] = l
	}
	if n := len(l.idle); n > 0 {
		s := l.idle[n-1]
		l.idle = l.idle[:n-1]
		f.mu.Unlock()
		s.tie(ctx)
		return s, nil
	}
	l.open++
	on := Opener(f.net)
	if l.open > homeSessions {
		on = f.bulk
	}
	f.mu.Unlock()
	s, err := f.dialOn(ctx, ctx, on, holder)
	if err != nil {
		f.left(holder)
	}
	return s, err
}

// leave keeps a session whose last reply is complete, or drops it.
func (f *Fetcher) leave(s *session, holder string, complete bool) {
	if !complete || !s.stop() {
		s.drop()
		f.left(holder)
		return
	}
	if s.kept >= maxBlobs {
		s.end()
		f.left(holder)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lanes[holder]
	l.idle = append(l.idle, s)
	s.kept++
	uses := s.kept
	time.AfterFunc(keptFor, func() { f.expire(s, holder, uses) })
}

// expire ends a session that nobody took since.
func (f *Fetcher) expire(s *session, holder string, uses int) {
	f.mu.Lock()
	l, i := f.lanes[holder], -1 // nil when all were dropped, or a later lane
	if l != nil && s.kept == uses {
		i = slices.Index(l.idle, s)
	}
	if i >= 0 {
		l.idle = slices.Delete(l.idle, i, i+1)
	}
	f.mu.Unlock()
	if i < 0 {
		return
	}
	s.end()
	f.left(holder)
}

// left counts a session that is no more.
func (f *Fetcher) left(holder string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lanes[holder]
	if l.open--; l.open == 0 {
		delete(f.lanes, holder)
	}
}
