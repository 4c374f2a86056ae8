package httpgateway

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// sendPiece writes head and then n bytes of f from off, by sendfile. The kernel
// is told that more follows the head, so both leave in the same segments: for a
// file of 64 KiB that is a fifth of the whole cost. It returns how much of
// each went out; a file that is shorter than off+n is sent as far as it goes.
// errUnsent when the file cannot be sent from.
func (c *conn) sendPiece(head []byte, f *os.File, off, n int64) (headSent int, sent int64, err error) {
	if c.raw == nil {
		if c.raw, err = c.SyscallConn(); err != nil {
			return 0, 0, err
		}
	}
	in := int(f.Fd())
	send := unix.Sendfile
	if n >= longSend && c.cached(in, off, n) {
		send = sendCached
	}
	var serr error
	err = c.raw.Write(func(fd uintptr) bool {
		for headSent < len(head) {
			m, err := unix.SendmsgN(int(fd), head[headSent:], nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch {
			case err == nil:
				headSent += m
			case errors.Is(err, unix.EINTR):
			default:
				serr = err
				return !errors.Is(err, unix.EAGAIN)
			}
		}
		for sent < n {
			at := off + sent
			m, err := send(int(fd), in, &at, int(n-sent))
			switch {
			case m > 0:
				sent += int64(m)
			case errors.Is(err, unix.EINTR):
			case err == nil: // the end of the file
				serr = nil
				return true
			default:
				serr = err
				return !errors.Is(err, unix.EAGAIN)
			}
		}
		serr = nil
		return true
	})
	runtime.KeepAlive(f)
	switch {
	case err != nil || serr == nil:
	case errors.Is(serr, unix.EPIPE), errors.Is(serr, unix.ECONNRESET), errors.Is(serr, unix.ETIMEDOUT):
		err = os.NewSyscallError("sendfile", serr) // the client is gone
	default: // EINVAL and the like: not from this file; EIO: not from this disk
		err = fmt.Errorf("%w: %w", errUnsent, serr)
	}
	return headSent, sent, err
}
