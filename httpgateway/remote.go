package httpgateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// remote is a blob that is elsewhere, as ServeContent wants it. It opens the
// blob at the first Read, and again at the same place when the reader fails
// (the Catalog's reader fails over between holders; this outlives the moment
// in which there is none). Bytes are verified below, so a second reader may
// go on where the first ended. It belongs to one request.
type remote struct {
	ctx   context.Context // of the request: an io.Reader has no other way in
	open  func(context.Context) (io.ReadSeekCloser, error)
	size  int64
	first time.Time     // when to give up on the first byte
	stall time.Duration // how long to wait for each later one
	log   *slog.Logger

	off     int64 // of the next Read
	started bool
	cur     io.ReadSeekCloser
	at      int64              // where cur stands
	cancel  context.CancelFunc // of cur
	err     error              // the one that ended it
}

// retryEvery is the pause between attempts to open a blob.
const retryEvery = 250 * time.Millisecond

// Seek moves the place of the next Read. It costs nothing.
func (b *remote) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += b.off
	case io.SeekEnd:
		off += b.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start of a blob")
	}
	b.off = off
	return off, nil
}

// Read returns the next bytes, or the reason why nobody has them after
// patience (before the first byte) or stall.
func (b *remote) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.off >= b.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.size-b.off)]
	deadline := b.first
	if b.started {
		deadline = time.Now().Add(b.stall)
	}
	last := errSilent
	for {
		n, err := b.attempt(p, deadline)
		if n > 0 {
			b.started = true
			b.off += int64(n)
			return n, nil
		}
		if b.ctx.Err() != nil {
			b.err = b.ctx.Err()
			return 0, b.err
		}
		if err != nil && !errors.Is(err, context.Canceled) { // ours, after the deadline
			last = err
		}
		pause := min(retryEvery, time.Until(deadline))
		if pause <= 0 {
			b.err = last
			return 0, b.err
		}
		b.log.Debug("opening a blob again", "offset", b.off, "err", err)
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-b.ctx.Done():
			again.Stop()
		}
	}
}

// errSilent is the reason where no holder gave one.
var errSilent = errors.New("no holder answered")

// attempt reads once, opening the blob where there is no reader. What takes
// until deadline is cancelled.
func (b *remote) attempt(p []byte, deadline time.Time) (int, error) {
	if err := b.ready(deadline); err != nil {
		return 0, err
	}
	guard := time.AfterFunc(time.Until(deadline), b.cancel)
	defer guard.Stop()
	if b.at != b.off {
		if _, err := b.cur.Seek(b.off, io.SeekStart); err != nil {
			b.close()
			return 0, fmt.Errorf("seek to %d: %w", b.off, err)
		}
		b.at = b.off
	}
	n, err := b.cur.Read(p)
	b.at += int64(n)
	if n == 0 && err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("blob ends at %d of %d bytes: %w", b.off, b.size, io.ErrUnexpectedEOF)
		}
		b.close()
	}
	return n, err
}

// ready opens the blob, if it is not open.
func (b *remote) ready(deadline time.Time) error {
	if b.cur != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(b.ctx)
	b.cancel = cancel
	guard := time.AfterFunc(time.Until(deadline), cancel)
	r, err := b.open(ctx)
	guard.Stop()
	if err != nil {
		b.close()
		return err
	}
	b.cur, b.at = r, 0
	return nil
}

// close ends the reader. It may be opened again by Read.
func (b *remote) close() {
	if b.cur != nil {
		if err := b.cur.Close(); err != nil {
			b.log.Debug("close blob reader", "err", err)
		}
		b.cur = nil
	}
	if b.cancel != nil {
		b.cancel()
		b.cancel = nil
	}
}
