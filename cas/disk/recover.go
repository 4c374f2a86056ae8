package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// recover brings the directory into the state that the package comment
// promises, whatever ended the last process, and fills the index. It hashes
// nothing: after a crash nothing counts as verified, so that every blob is
// hashed before its first use.
func (s *Store) recover() error {
	if err := s.acquire(); err != nil {
		return err
	}
	clean := filepath.Join(s.dir, "clean")
	if _, err := os.Lstat(clean); err == nil {
		s.clean = true
		// Gone for good before anything changes: after a power cut it must not
		// vouch for this process.
		if err := errors.Join(s.fs.Remove(clean), s.fs.SyncDir(s.dir)); err != nil {
			return err
		}
	}
	if err := removeAll(s.fs, filepath.Join(s.dir, "tmp"), nil); err != nil {
		return fmt.Errorf("empty tmp: %w", err)
	}
	if err := s.recoverPartials(); err != nil {
		return fmt.Errorf("look through partial: %w", err)
	}
	if _, err := os.Lstat(s.sparePath()); err == nil {
		s.spare = true
	}
	top := filepath.Join(s.dir, "blobs")
	for i := range 256 {
		dir := s.shard(i)
		if err := s.fs.Mkdir(dir); err != nil {
			return err
		}
		n, err := s.recoverDir(dir, byte(i))
		if err != nil {
			return fmt.Errorf("look through %s: %w", dir, err)
		}
		if n > 0 && !s.clean {
			// A kill between steps 6 and 7 left a name that a power cut could
			// still take away, and from now on we tell people that we have it.
			if err := s.fs.SyncDir(dir); err != nil {
				return err
			}
		}
	}
	return s.fs.SyncDir(top)
}

// recoverDir indexes the blobs of one directory and removes outboards without
// a blob. It counts the blobs. Other files are a person's, and left alone.
func (s *Store) recoverDir(dir string, prefix byte) (n int, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	outboards := map[cid.Cid]time.Time{}
	for _, e := range list {
		name, isOutboard := strings.CutSuffix(e.Name(), outboardExt)
		c, err := cas.Parse(name)
		if err == nil {
			if sum, _ := cas.Digest(c); sum[0] != prefix {
				err = errors.New("in the wrong directory")
			}
		}
		if err != nil || !e.Type().IsRegular() {
			s.opts.Log.Warn("not a blob, left alone", "name", e.Name(), "err", err)
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return n, err
		}
		if isOutboard {
			outboards[c] = fi.ModTime()
			continue
		}
		n++
		s.remember(c, entry{size: fi.Size(), mtime: fi.ModTime()})
	}
	for c, t := range outboards {
		if _, ok := s.index[c]; !ok {
			if err := s.fs.Remove(filepath.Join(dir, c.String()+outboardExt)); err != nil {
				return n, err
			}
			continue
		}
		s.update(c, func(e *entry) {
			e.scrubbed = t
			if s.clean && !t.Before(e.mtime) {
				e.verified = t
			}
		})
	}
	return n, nil
}

// recoverPartials keeps transfers of the last day and removes the rest.
func (s *Store) recoverPartials() error {
	dir := filepath.Join(s.dir, "partial")
	keep := map[string]bool{}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		name, ok := strings.CutSuffix(e.Name(), ".part")
		if !ok {
			continue
		}
		c, err := cas.Parse(name)
		if err != nil {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if s.opts.Now().Sub(fi.ModTime()) > partialKept {
			continue
		}
		keep[name+".part"], keep[name+".tree"] = true, true
		s.partials[c] = fi.Size()
		s.reserved += fi.Size()
	}
	return removeAll(s.fs, dir, func(e os.DirEntry) bool { return keep[e.Name()] })
}
