//go:build !linux

package httpgateway

import (
	"io"
	"os"
)

// sendPiece writes head and then n bytes of f from off. It returns how much of
// each went out; a file that is shorter than off+n is sent as far as it goes.
func (c *conn) sendPiece(head []byte, f *os.File, off, n int64) (headSent int, sent int64, err error) {
	if headSent, err = c.TCPConn.Write(head); err != nil {
		return headSent, 0, err
	}
	sent, err = io.Copy(c.TCPConn, io.NewSectionReader(f, off, n)) // f is shared, so its place is left alone
	return headSent, sent, err
}
