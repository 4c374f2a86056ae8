package disk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// faulty is the real file system with a fault between the store and it.
type faulty struct {
	*osFiles
	// before is asked at each call that changes something; its error is the
	// call's.
	before func(call, path string) error
	// read is asked for each blob that is opened for reading; nil: the blob's file.
	read func(path string) (*os.File, error)
	// room is what may still be written, in bytes; nil: no bound.
	room *int64
}

type faultyFile struct {
	file
	path string
	fs   *faulty
}

func (f *faulty) Create(path string) (file, error) {
	if err := f.before("create", path); err != nil {
		return nil, err
	}
	g, err := f.osFiles.Create(path)
	return f.wrap(g, path, err)
}

func (f *faulty) Open(path string) (file, error) {
	g, err := f.osFiles.Open(path)
	return f.wrap(g, path, err)
}

func (f *faulty) OpenRead(path string) (*os.File, error) {
	if f.read != nil {
		return f.read(path)
	}
	return f.osFiles.OpenRead(path)
}

func (f *faulty) wrap(g file, path string, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{g, path, f}, nil
}

func (f *faulty) Mkdir(path string) error {
	if base := filepath.Base(path); len(base) == 2 && base > "01" && base < "fe" {
		return f.osFiles.Mkdir(path) // 256 of a kind: the first and the last will do
	}
	return errors.Join(f.before("mkdir", path), f.osFiles.Mkdir(path))
}

func (f *faulty) Rename(from, to string) error {
	if err := f.before("rename", to); err != nil {
		return err
	}
	return f.osFiles.Rename(from, to)
}

func (f *faulty) Remove(path string) error {
	if err := f.before("remove", path); err != nil {
		return err
	}
	return f.osFiles.Remove(path)
}

func (f *faulty) SyncDir(path string) error {
	return f.before("syncdir", path) // the faults are ours, so the disk need not hurry
}

func (f *faultyFile) Write(p []byte) (int, error) {
	return f.write(p, func(p []byte, _ int64) (int, error) { return f.file.Write(p) })
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte, skip int64) (int, error) { return f.file.WriteAt(p, off+skip) })
}

// write writes what there is room for, as a full disk does, and half when the
// fault is a kill in the middle.
func (f *faultyFile) write(p []byte, to func(p []byte, skip int64) (int, error)) (int, error) {
	half := len(p) / 2
	if n, err := to(p[:half], 0); err != nil {
		return n, err
	}
	if err := f.fs.before("write", f.path); err != nil {
		return half, err
	}
	if room := f.fs.room; room != nil {
		if *room -= int64(len(p)); *room < 0 {
			*room = 0
			return half, syscall.ENOSPC
		}
	}
	n, err := to(p[half:], int64(half))
	return half + n, err
}

func (f *faultyFile) Sync() error {
	return f.fs.before("sync", f.path)
}
