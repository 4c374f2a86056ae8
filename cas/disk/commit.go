package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// The commit protocol. Numbers are those of the comments below.
//
//	1  temp file in tmp/, so in the same file system as its place
//	2  write, hashing the same bytes
//	3  compare the hash with the name; a difference ends here
//	4  outboard to a temp file, renamed beside the blob's place (not fsynced:
//	   it is derived, and checked before use)
//	5  fsync the temp file
//	6  rename it to its place: from here the blob exists for this process
//	7  fsync the directory: from here the blob exists after a power cut
//	8  index it; the caller may acknowledge (send a receipt, publish)
//
// A kill before 6 leaves temps and perhaps an outboard without a blob, which
// recover removes. A kill after 6 leaves a whole blob that nobody was told of,
// which recover indexes. A blob assembled from groups (partial.go) joins at 3
// with the hash of the groups' hashes.

// temp is a file in tmp/ that vanishes unless it is renamed.
type temp struct {
	file
	path string
	fs   files
}

func (s *Store) temp() (*temp, error) {
	s.mu.Lock()
	s.seq++
	path := filepath.Join(s.dir, "tmp", fmt.Sprintf("%d", s.seq))
	s.mu.Unlock()
	f, err := s.fs.Create(path)
	if err != nil {
		return nil, full(err)
	}
	return &temp{f, path, s.fs}, nil
}

// discard closes and removes the file.
func (t *temp) discard() error { return errors.Join(t.Close(), t.fs.Remove(t.path)) }

func (s *Store) put(ctx context.Context, r io.Reader, want cid.Cid) (info cas.Info, err error) {
	t, err := s.temp() // 1
	if err != nil {
		return info, err
	}
	var held int64 // reserved so far
	defer func() {
		s.release(held)
		if err != nil {
			err = errors.Join(err, t.discard())
		}
	}()
	h := cas.NewHasher()
	buf := s.buffer()
	defer s.buffers.Put(buf)
	for eof := false; !eof; { // 2
		if err := ctx.Err(); err != nil {
			return info, err
		}
		n, err := io.ReadFull(r, *buf)
		eof = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !eof {
			return info, err
		}
		if err := s.reserve(int64(n)); err != nil {
			return info, err
		}
		held += int64(n)
		if _, err := t.Write((*buf)[:n]); err != nil {
			return info, full(err)
		}
		_, _ = h.Write((*buf)[:n])
		if held%flushEvery == 0 {
			t.Flush(held-flushEvery, flushEvery)
		}
	}
	c, outboard := h.Finish()
	if want.Defined() && c != want { // 3
		return info, fmt.Errorf("bytes hash to %s, not %s: %w", c, want, cas.ErrCorrupt)
	}
	if info, err := s.Stat(c); err == nil {
		return info, t.discard()
	}
	info = cas.Info{CID: c, Size: h.Size()}
	return info, s.commit(info, t.file, t.path, outboard)
}

// commit takes a file whose bytes hash to info.CID through steps 4 to 8. On
// success it has closed f; on an error f is open, at path or nowhere.
func (s *Store) commit(info cas.Info, f file, path string, outboard []byte) error {
	dir, place, stripe, err := s.path(info.CID)
	if err != nil {
		return err
	}
	small := cas.Groups(info.Size) == 1
	if !small {
		if err := s.writeOutboard(place, outboard); err != nil { // 4
			return err
		}
	}
	if err := f.Sync(); err != nil { // 5
		return errors.Join(full(err), s.dropOutboard(info.CID, place))
	}
	stripe.Lock()
	defer stripe.Unlock()
	if err := s.fs.Rename(path, place); err != nil { // 6
		return errors.Join(full(err), s.dropOutboardLocked(info.CID, place))
	}
	if err := s.fs.SyncDir(dir); err != nil { // 7
		// After a failed fsync nobody knows what is on the disk; better no blob.
		return errors.Join(full(err), s.fs.Rename(place, path), s.dropOutboardLocked(info.CID, place))
	}
	fi, err := os.Stat(place)
	if err != nil {
		return err
	}
	s.remember(info.CID, entry{size: info.Size, verified: s.opts.Now(), mtime: fi.ModTime(), outboard: !small}) // 8
	_ = f.Close()                                                                                               // fsynced: there is nothing left that closing could fail to write
	return nil
}

// writeOutboard puts an outboard beside the blob at place, whole or not at all.
func (s *Store) writeOutboard(place string, outboard []byte) error {
	t, err := s.temp()
	if err != nil {
		return err
	}
	if _, err := t.Write(outboard); err != nil {
		return errors.Join(full(err), t.discard())
	}
	if err := s.fs.Rename(t.path, place+outboardExt); err != nil {
		return errors.Join(full(err), t.discard())
	}
	return t.Close()
}

func (s *Store) dropOutboard(c cid.Cid, place string) error {
	_, _, stripe, err := s.path(c)
	if err != nil {
		return err
	}
	stripe.Lock()
	defer stripe.Unlock()
	return s.dropOutboardLocked(c, place)
}

// dropOutboardLocked removes the outboard of a blob that did not make it,
// unless somebody else stored the same blob meanwhile.
func (s *Store) dropOutboardLocked(c cid.Cid, place string) error {
	if _, ok := s.lookup(c); ok {
		return nil
	}
	if err := s.fs.Remove(place + outboardExt); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
