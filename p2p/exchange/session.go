package exchange

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/p2p"
	"github.com/ipfs/go-cid"
)

// session is a stream to one holder. It is done with after any error.
type session struct {
	st    p2p.Stream
	stop  func() bool // ends the tie to the context
	stall time.Duration
	kept  int // how often it was left for the next blob
}

// dial opens a session. ctx bounds the opening, life the session.
func (f *Fetcher) dial(ctx, life context.Context, holder string) (*session, error) {
	return f.dialOn(ctx, life, f.net, holder)
}

// dialFor is dial for what is left of a blob.
func (f *Fetcher) dialFor(ctx, life context.Context, holder string, left int64) (*session, error) {
	if left < bulkLeast {
		return f.dial(ctx, life, holder)
	}
	return f.dialOn(ctx, life, f.bulk, holder)
}

func (f *Fetcher) dialOn(ctx, life context.Context, on Opener, holder string) (*session, error) {
	bound, cancel := context.WithTimeout(ctx, f.stall)
	defer cancel()
	st, err := on.Open(bound, holder, Protocol)
	if err != nil {
		return nil, err
	}
	s := &session{st: st, stall: f.stall}
	s.tie(life)
	return s, nil
}

// tie has the session end with life.
func (s *session) tie(life context.Context) {
	s.stop = context.AfterFunc(life, func() { _ = s.st.Reset() })
}

// drop ends the session at once.
func (s *session) drop() {
	s.stop()
	_ = s.st.Reset() // there is nothing left that we want from it
}

// end ends it in order, after a complete reply.
func (s *session) end() {
	s.stop()
	_ = s.st.Close() // the reply is here; a lost farewell harms nobody
}

// extend gives the holder another spell to make progress.
func (s *session) extend() error { return s.st.SetDeadline(time.Now().Add(s.stall)) }

func (s *session) ask(q request) error {
	b, err := q.encode()
	if err != nil {
		return err
	}
	if err := s.extend(); err != nil {
		return err
	}
	if _, err := s.st.Write(b); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	return readStatus(s.st)
}

// get asks for a slice.
func (s *session) get(c cid.Cid, off, n int64) (*cas.SliceReader, error) {
	if err := s.ask(request{opGet, c, off, n}); err != nil {
		return nil, err
	}
	return cas.NewSliceReader(s.st, c, off, n)
}

// has asks whether the holder has c, and for the size as it says.
func (s *session) has(c cid.Cid) (int64, error) {
	if err := s.ask(request{op: opHas, cid: c}); err != nil {
		return 0, err
	}
	var b [8]byte
	if _, err := io.ReadFull(s.st, b[:]); err != nil {
		return 0, fmt.Errorf("read reply: %w", err)
	}
	return int64(binary.BigEndian.Uint64(b[:])), nil
}

// lied reports whether an error is one that an honest holder with a sound disk
// does not cause.
func lied(err error) bool { return errors.Is(err, cas.ErrCorrupt) || errors.Is(err, cas.ErrRange) }

// hopeless reports whether asking this holder again for this blob is in vain.
func hopeless(err error) bool {
	return lied(err) || errors.Is(err, errNotHeld) || errors.Is(err, errRequest) || errors.Is(err, p2p.ErrNoProtocol)
}

// stalled reports whether a deadline passed. A holder that lets one pass is not
// asked again: the next answer would be as late.
func stalled(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}
