package emerge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
)

// TreeStore keeps unpacked snapshots of repositories, each once under its digest,
// for builds to read. A build never reads the machine's own repositories where a
// round brings its snapshots: a sync in the middle of a build would mix two trees.
//
// Nothing in it is written to after it has its name. The least recently used ones
// go when they take more than the quota, but for those that a build holds
// (HoldTrees) and those of the last hour, whose build may be on its way. It may be
// used concurrently.
type TreeStore struct {
	dir   string
	open  func(ctx context.Context, cid string) (io.ReadCloser, error)
	quota int64

	unpacking sync.Mutex // one is unpacked at a time
	mu        sync.Mutex // held for a moment: to find one, to take one away
}

const (
	// treeQuota is the most bytes that unpacked snapshots take: about four of ::gentoo.
	treeQuota = 5 << 30
	// treeAtHand is how long one that was asked for is not taken away.
	treeAtHand = time.Hour
	// treeBlock is what a file takes at the least.
	treeBlock = 4096
)

// NewTreeStore makes a store below dir; open fetches blobs. It does no I/O.
func NewTreeStore(dir string, open func(ctx context.Context, cid string) (io.ReadCloser, error)) *TreeStore {
	return &TreeStore{dir: dir, open: open, quota: treeQuota}
}

// Sweep removes what a process that was killed left half made.
func (s *TreeStore) Sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "tmp-*"))
	if err != nil {
		return fmt.Errorf("look for half-made trees: %w", err)
	}
	var errs []error
	for _, d := range left {
		errs = append(errs, os.RemoveAll(d))
	}
	return errors.Join(errs...)
}

// Open brings snapshots here, if they are not, and says in which directory each
// repository lies, by name. It may take minutes the first time.
func (s *TreeStore) Open(ctx context.Context, list []build.Snapshot) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, snap := range list {
		if !build.ValidRepo(snap.Name) || !build.Key(snap.Digest).Valid() {
			return nil, fmt.Errorf("open repository %q: its digest is %q", build.OneLine(snap.Name, 100), build.OneLine(snap.Digest, 80))
		}
		if !s.find(snap.Digest) {
			if err := s.bring(ctx, snap); err != nil {
				return nil, fmt.Errorf("open snapshot %s of repository %s: %w", short8(snap.Digest), snap.Name, err)
			}
		}
		out[snap.Name] = filepath.Join(s.dir, snap.Digest, "tree")
	}
	return out, nil
}

// find reports whether a tree is here, and notes that it was asked for.
func (s *TreeStore) find(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return os.Chtimes(filepath.Join(s.dir, digest), now, now) == nil
}

func (s *TreeStore) bring(ctx context.Context, snap build.Snapshot) (err error) {
	s.unpacking.Lock()
	defer s.unpacking.Unlock()
	if s.find(snap.Digest) {
		return nil // another build's wait has brought it
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }() // of what was not renamed
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	at := filepath.Join(tmp, "tree")
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	blob, err := s.open(ctx, snap.CID)
	if err != nil {
		return err
	}
	size, err := unpackTree(ctx, blob, at, snap.Digest)
	if err := errors.Join(err, blob.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "size"), []byte(strconv.FormatInt(size, 10)), 0o644); err != nil {
		return err
	}
	if err := syncFS(tmp); err != nil {
		return err
	}
	if err := s.makeRoom(size); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(s.dir, snap.Digest))
}

// syncFS makes durable what was written: a tree that has its name is whole, also
// after a power cut.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// keptTree is one in the store.
type keptTree struct {
	dir  string
	size int64
	used time.Time
}

func (s *TreeStore) kept() ([]keptTree, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []keptTree
	for _, e := range entries {
		if !build.Key(e.Name()).Valid() {
			continue
		}
		t := keptTree{dir: filepath.Join(s.dir, e.Name())}
		info, err := os.Stat(t.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		b, rerr := os.ReadFile(filepath.Join(t.dir, "size"))
		if err := errors.Join(err, rerr); err != nil {
			return nil, err
		}
		t.used = info.ModTime()
		if t.size, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b keptTree) int { return cmp.Or(a.used.Compare(b.used), strings.Compare(a.dir, b.dir)) })
	return out, nil
}

// makeRoom takes trees away until one of that many bytes fits in, or none may go.
func (s *TreeStore) makeRoom(size int64) error {
	all, err := s.kept()
	if err != nil {
		return fmt.Errorf("look through the trees: %w", err)
	}
	for _, t := range all {
		size += t.size
	}
	for _, t := range all {
		if size <= s.quota {
			return nil
		}
		gone, err := s.take(t)
		if err != nil {
			return fmt.Errorf("remove a tree: %w", err)
		}
		if gone {
			size -= t.size
		}
	}
	return nil
}

// take removes a tree, unless somebody holds it or has just asked for it.
func (s *TreeStore) take(t keptTree) (bool, error) {
	trash := filepath.Join(s.dir, "tmp-gone-"+filepath.Base(t.dir))
	moved, err := s.moveAway(t, trash)
	if err != nil || !moved {
		return false, err
	}
	return true, os.RemoveAll(trash)
}

func (s *TreeStore) moveAway(t keptTree, trash string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(t.dir)
	if err != nil {
		return false, err
	}
	if time.Since(info.ModTime()) < treeAtHand {
		return false, nil
	}
	f, err := os.Open(t.dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil // a build holds it
	}
	return true, os.Rename(t.dir, trash)
}

// HoldTrees keeps repositories that Open gave where they are until release is
// called or this process ends.
func HoldTrees(repos map[string]string) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			_ = f.Close() // nothing was written
		}
	}
	for name, dir := range repos {
		dir = filepath.Dir(dir)
		f, err := os.Open(dir)
		if err == nil {
			held = append(held, f)
			err = flock(f, unix.LOCK_SH)
		}
		if err == nil {
			_, err = os.Stat(dir) // whoever takes it away renames it first
		}
		if err != nil {
			release()
			return nil, fmt.Errorf("hold repository %s: %w", name, err)
		}
	}
	return release, nil
}
