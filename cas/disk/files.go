package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/cas"
)

// files is what the store does to the file system. Tests put faults here: a
// full disk, a kill between two calls, a power cut, a disk that cannot read.
// Reading recovery's directories goes to os directly.
type files interface {
	// Create makes a new file for reading and writing; it must not exist.
	Create(path string) (file, error)
	// Open opens an existing file for writing.
	Open(path string) (file, error)
	// OpenRead opens a blob for reading.
	OpenRead(path string) (*os.File, error)
	Mkdir(path string) error // an existing directory is no error
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error // a directory that stays
	Close() error              // gives back what SyncDir keeps
	Chtimes(path string, mtime time.Time) error
}

type file interface {
	io.Writer
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	// Flush begins to write a range to the disk and does not wait for it, so
	// that Sync has less to wait for. It promises nothing.
	Flush(off, n int64)
}

// flushEvery is how much is written between two Flushes.
const flushEvery = 8 << 20

// osFile is an *os.File that is a file.
type osFile struct{ *os.File }

// osFiles keeps the directories open that were synced once: opening costs as
// much as syncing, and there are at most some 260.
type osFiles struct {
	mu   sync.Mutex
	dirs map[string]*os.File
}

func newOSFiles() *osFiles { return &osFiles{dirs: map[string]*os.File{}} }

func (*osFiles) Create(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644))
}
func (*osFiles) Open(path string) (file, error)         { return opened(os.OpenFile(path, os.O_RDWR, 0)) }
func (*osFiles) OpenRead(path string) (*os.File, error) { return os.Open(path) }

// opened keeps a nil *os.File from becoming a file that is not nil.
func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (*osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (*osFiles) Remove(path string) error     { return os.Remove(path) }

func (*osFiles) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (o *osFiles) SyncDir(path string) error {
	o.mu.Lock()
	d := o.dirs[path]
	if d == nil {
		var err error
		if d, err = os.Open(path); err != nil {
			o.mu.Unlock()
			return err
		}
		o.dirs[path] = d
	}
	o.mu.Unlock()
	return d.Sync()
}

func (o *osFiles) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, d := range o.dirs {
		errs = append(errs, d.Close())
	}
	clear(o.dirs)
	return errors.Join(errs...)
}

func (*osFiles) Chtimes(path string, mtime time.Time) error {
	return os.Chtimes(path, time.Time{}, mtime) // the zero access time leaves that one alone
}

// full turns "no space" into cas.ErrFull and leaves other errors alone.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", cas.ErrFull, err)
	}
	return err
}

// removeAll empties a directory of files. A subdirectory is an error: nothing
// of ours makes one there.
func removeAll(fs files, dir string, keep func(os.DirEntry) bool) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if keep != nil && keep(e) {
			continue
		}
		if err := fs.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
