package disk

import "golang.org/x/sys/unix"

func (f osFile) Flush(off, n int64) {
	// A file system that cannot do it loses time at Sync and nothing else.
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
