package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/cas"
)

// files is what the store does to the file system. Tests put faults here: a
// full disk, a kill between two calls, a power cut. Reading goes to os
// directly.
type files interface {
	// Create makes a new file for reading and writing; it must not exist.
	Create(path string) (file, error)
	// Open opens an existing file for writing.
	Open(path string) (file, error)
	Mkdir(path string) error // an existing directory is no error
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
	Chtimes(path string, mtime time.Time) error
}

type file interface {
	io.Writer
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

type osFiles struct{}

func (osFiles) Create(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644))
}
func (osFiles) Open(path string) (file, error) { return opened(os.OpenFile(path, os.O_RDWR, 0)) }

// opened keeps a nil *os.File from becoming a file that is not nil.
func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }

func (osFiles) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (osFiles) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFiles) Chtimes(path string, mtime time.Time) error {
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
