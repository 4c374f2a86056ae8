package httpgateway

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The scheduler takes a system call of more than 20 us for one that blocks: it
// gives the processor away, wakes another thread for it, and watches more often. A
// sendfile of half a MiB out of memory takes 150 us, blocks nobody, and so costs a
// tenth more than it does. Where the file is in memory the scheduler is not told.
// Where it may have to be read from a disk it has to be.

// longSend is from how many bytes on a sendfile takes long enough for that: to ask
// whether a part is in memory takes 1 us.
const longSend = 128 << 10

// cached reports whether both ends of a part of a file are in memory, and so, as
// the kernel reads ahead, most likely all of it.
func (c *conn) cached(in int, off, n int64) bool {
	if strconv.IntSize == 32 {
		return false // the plain system call has offsets of 32 bits there
	}
	one := [][]byte{c.probe[:]}
	for _, at := range [...]int64{off, off + n - 1} {
		if m, err := unix.Preadv2(in, one, at, unix.RWF_NOWAIT); m != 1 || err != nil {
			return false
		}
	}
	return true
}

// sendCached is unix.Sendfile without a word to the scheduler. The socket does not
// block either.
func sendCached(out, in int, off *int64, n int) (int, error) {
	m, _, errno := unix.RawSyscall6(unix.SYS_SENDFILE, uintptr(out), uintptr(in), uintptr(unsafe.Pointer(off)), uintptr(n), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
