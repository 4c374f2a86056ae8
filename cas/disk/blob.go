package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// maxHot is how many files of blobs stay open when nobody reads them. To open,
// look at and close one costs a third of what it takes to send 64 KiB.
const maxHot = 64

// lookAgain is how long an open file is taken to be as it was.
const lookAgain = time.Second

// hotFile is the file of a blob, open once for all who read it.
type hotFile struct {
	f    *os.File
	size int64
	// Of Store.mu:
	refs   int       // of blobs, and of Store.hot while it is there
	used   uint64    // Store.uses when it was opened last
	looked time.Time // when it was last seen to be as it was verified
}

// blob is an open blob: a place in a file that others read too.
type blob struct {
	store *Store
	cid   cid.Cid
	file  *hotFile // nil once it is closed
	size  int64
	off   int64
}

// Open implements cas.Store. It verifies the blob first when that was not done
// lately (see the package comment), which takes about a second per GiB.
func (s *Store) Open(c cid.Cid) (cas.Blob, error) {
	if h := s.takeHot(c); h != nil {
		return &blob{store: s, cid: c, file: h, size: h.size}, nil
	}
	f, err := s.openBlob(c)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", c, err)
	}
	fi, err := f.Stat()
	if err == nil && !s.fresh(c, fi) {
		err = s.verify(context.Background(), c, 0)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, fmt.Errorf("open blob %s: %w", c, err)
	}
	return &blob{store: s, cid: c, file: s.addHot(c, f, fi.Size()), size: fi.Size()}, nil
}

// Read reads on from where the last Read or Seek ended.
func (b *blob) Read(p []byte) (int, error) {
	n, err := b.ReadAt(p, b.off)
	b.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if b.file == nil {
		return 0, os.ErrClosed
	}
	n, err := b.file.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		b.Failed(err)
	}
	return n, err
}

// Seek costs no system call.
func (b *blob) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += b.off
	case io.SeekEnd:
		off += b.size
	}
	if off < 0 {
		return 0, fmt.Errorf("seek in blob %s: before its start", b.cid)
	}
	b.off = off
	return off, nil
}

// Size is the blob's size in bytes.
func (b *blob) Size() int64 { return b.size }

// File is the open file, for sendfile. Others read it too: it must not be moved
// or closed, and is not for use after Close.
func (b *blob) File() *os.File {
	if b.file == nil {
		return nil
	}
	return b.file.f
}

// Failed tells the store that File could not be read. A disk that does not give
// a blob takes it out of the store: the next reader asks its other holders.
func (b *blob) Failed(err error) {
	if failing(err) {
		b.store.unreadable(b.cid, err)
	}
}

// Close gives the file back.
func (b *blob) Close() error {
	if b.file == nil {
		return os.ErrClosed
	}
	b.store.giveHot(b.file)
	b.file = nil
	return nil
}

// unreadable takes a blob that the disk does not give out of the index.
func (s *Store) unreadable(c cid.Cid, err error) {
	if _, path, stripe, perr := s.path(c); perr == nil {
		s.lose(c, path, stripe, err.Error())
	}
}

// takeHot returns the open file of a blob, to be given back, or nil. A file that
// changed, or has no name any more, is not taken.
func (s *Store) takeHot(c cid.Cid) *hotFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hot[c]
	if h == nil {
		return nil
	}
	now := s.opts.Now()
	if now.Sub(h.looked).Abs() >= lookAgain {
		if fi, err := h.f.Stat(); err != nil || !named(fi) || !s.index[c].fresh(fi, now, s.opts.VerifiedFor) {
			s.coolLocked(c)
			return nil
		}
		h.looked = now
	}
	s.uses++
	h.refs, h.used = h.refs+1, s.uses
	return h
}

// addHot keeps a file open that was just opened, unless the blob has left the
// index meanwhile; the one used longest ago makes room.
func (s *Store) addHot(c cid.Cid, f *os.File, size int64) *hotFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	h := &hotFile{f: f, size: size, refs: 1, used: s.uses, looked: s.opts.Now()}
	if _, held := s.index[c]; !held || s.hot[c] != nil || s.opts.VerifiedFor < 0 {
		return h
	}
	if len(s.hot) >= maxHot {
		var oldest cid.Cid
		for other, o := range s.hot {
			if !oldest.Defined() || o.used < s.hot[oldest].used {
				oldest = other
			}
		}
		s.coolLocked(oldest)
	}
	h.refs++
	s.hot[c] = h
	return h
}

// giveHot ends one use of h.
func (s *Store) giveHot(h *hotFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.giveLocked()
}

// coolLocked closes the file of c when its last reader is done.
func (s *Store) coolLocked(c cid.Cid) {
	if h := s.hot[c]; h != nil {
		delete(s.hot, c)
		h.giveLocked()
	}
}

func (h *hotFile) giveLocked() {
	if h.refs--; h.refs == 0 {
		_ = h.f.Close() // only read
	}
}
