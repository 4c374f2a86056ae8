package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Check reads a blob whole and compares it with its name. A damaged one goes to
// quarantine and is ErrCorrupt.
func (s *Store) Check(ctx context.Context, c cid.Cid) error {
	if err := s.verify(ctx, c, 0); err != nil {
		return fmt.Errorf("check blob %s: %w", c, err)
	}
	return nil
}

// verify hashes a blob's file. Callers that come while one is at work wait for
// its result, and have it hurry when they do.
func (s *Store) verify(ctx context.Context, c cid.Cid, rate int64) error {
	s.mu.Lock()
	if k, ok := s.checks[c]; ok {
		if rate == 0 {
			k.once.Do(func() { close(k.hurry) })
		}
		s.mu.Unlock()
		select {
		case <-k.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !errors.Is(k.err, context.Canceled) && !errors.Is(k.err, context.DeadlineExceeded) {
			return k.err
		}
		return s.verify(ctx, c, rate) // the other one was called off, not answered
	}
	k := &check{done: make(chan struct{}), hurry: make(chan struct{})}
	s.checks[c] = k
	s.mu.Unlock()
	k.err = s.hash(ctx, c, rate, k.hurry)
	s.mu.Lock()
	delete(s.checks, c)
	s.mu.Unlock()
	close(k.done)
	return k.err
}

func (s *Store) hash(ctx context.Context, c cid.Cid, rate int64, hurry <-chan struct{}) error {
	f, err := s.openBlob(c)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h := cas.NewHasher()
	if err := copyPaced(ctx, h, f, rate, hurry); err != nil {
		if failing(err) {
			s.unreadable(c, err) // the next reader would not get it either
		}
		return err
	}
	if rate > 0 {
		forgetPages(f)
	}
	got, outboard := h.Finish()
	if got != c {
		return errors.Join(fmt.Errorf("it hashes to %s: %w", got, cas.ErrCorrupt), s.quarantine(c, fi))
	}
	return s.verified(c, fi, outboard)
}

// verified records that the file fi describes hashed to c.
func (s *Store) verified(c cid.Cid, fi os.FileInfo, outboard []byte) error {
	_, place, stripe, err := s.path(c)
	if err != nil {
		return err
	}
	stripe.Lock()
	defer stripe.Unlock()
	e, ok := s.lookup(c)
	if !ok {
		return cas.ErrNotFound
	}
	now := s.opts.Now()
	if cas.Groups(fi.Size()) > 1 {
		if !e.outboard {
			if err := s.writeOutboard(place, outboard); err != nil {
				// The blob is good all the same, and a full disk must not keep it
				// from its readers. Outboard tells whoever needs that one.
				s.opts.Log.Warn("outboard could not be written", "cid", c, "err", err)
				s.update(c, func(e *entry) { e.verified, e.mtime = now, fi.ModTime() })
				return nil
			}
		}
		if err := s.fs.Chtimes(place+outboardExt, now); err != nil {
			s.opts.Log.Warn("time of verification could not be kept", "cid", c, "err", err)
		}
	}
	s.update(c, func(e *entry) { e.verified, e.mtime, e.outboard = now, fi.ModTime(), true })
	return nil
}

// quarantine takes a damaged blob out of the store. fi is the file that was
// hashed: a copy that took its place meanwhile is left alone.
func (s *Store) quarantine(c cid.Cid, fi os.FileInfo) error {
	_, place, stripe, err := s.path(c)
	if err != nil {
		return err
	}
	stripe.Lock()
	now, err := os.Lstat(place)
	if err != nil || !os.SameFile(now, fi) {
		stripe.Unlock()
		return nil
	}
	dir := filepath.Join(s.dir, "quarantine")
	err = s.fs.Rename(place, filepath.Join(dir, c.String()))
	if err != nil { // a full or read-only disk: never serve it, at least
		s.opts.Log.Error("damaged blob could not be moved", "cid", c, "err", err)
	}
	if err := s.fs.Remove(place + outboardExt); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.opts.Log.Warn("outboard could not be removed", "cid", c, "err", err)
	}
	e, _ := s.lookup(c)
	s.forget(c)
	stripe.Unlock()
	s.opts.Log.Error("blob is damaged, moved to quarantine", "cid", c, "bytes", e.size)
	if s.opts.OnCorrupt != nil {
		s.opts.OnCorrupt(cas.Info{CID: c, Size: e.size})
	}
	return s.trimQuarantine(dir)
}

// trimQuarantine keeps the newest few, so that a dying disk cannot fill itself.
func (s *Store) trimQuarantine(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type old struct {
		path string
		t    time.Time
	}
	var all []old
	for _, e := range list {
		if fi, err := e.Info(); err == nil { // else it is gone
			all = append(all, old{filepath.Join(dir, e.Name()), fi.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return b.t.Compare(a.t) })
	for _, o := range all[min(quarantineKept, len(all)):] {
		if err := s.fs.Remove(o.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyPaced copies at rate bytes per second, 0 for as fast as it goes, and also
// that fast once hurry is closed.
func copyPaced(ctx context.Context, w io.Writer, r io.Reader, rate int64, hurry <-chan struct{}) error {
	buf := make([]byte, bufferSize)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if rate > 0 {
			t := time.NewTimer(time.Duration(int64(n)) * time.Second / time.Duration(rate))
			select {
			case <-t.C:
			case <-hurry:
				rate = 0
			case <-ctx.Done():
			}
			t.Stop()
		}
	}
}
