package disk

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func (f osFile) Flush(off, n int64) {
	// A file system that cannot do it loses time at Sync and nothing else.
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// allocate makes a file of size bytes without writing them.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// idle gives this thread what is left of the disk after everybody else: class
// 3 of ioprio_set(2). A scheduler that knows no classes leaves it as it was.
func idle() {
	const process, class = 1, 3 << 13
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, process, 0, class)
}

// forgetPages lets the kernel drop what was read of a file: nobody reads it soon.
func forgetPages(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// named reports whether a file still has a name.
func named(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 0
}

// failing reports whether err is what a disk says that cannot read, or a file
// system that finds itself damaged.
func failing(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG)
}
