package httpgateway

import (
	"errors"
	"io"
	"net/http"
	"os"
)

// response notes what was sent. It passes ReadFrom and Unwrap on, so that
// sendfile and http.ResponseController go on working.
type response struct {
	http.ResponseWriter
	conn   *conn // nil without Run
	status int
	bytes  int64
	local  bool // it came from this machine's store
}

// WriteHeader notes the first final status.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (w *response) Write(b []byte) (int, error) {
	w.implicit()
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom counts, and leaves the copying to the server. A file goes out as a
// file, after its header.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.implicit()
	if lr, ok := r.(*io.LimitedReader); ok {
		if c, ok := lr.R.(*fileContent); ok {
			switch {
			case w.conn == nil: // the server's own ReadFrom knows files alone
				if err := c.place(); err != nil {
					return 0, err
				}
				lr.R = c.f
			default:
				// With the header written (held back: it goes with the body),
				// the server does not copy the first 512 bytes on its own.
				w.conn.hold()
				if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
					return 0, err
				}
			}
		}
	}
	n, err := io.Copy(w.ResponseWriter, r) // its ReadFrom, where it has one
	w.bytes += n
	if w.conn != nil {
		if uerr := w.conn.unhold(); err == nil {
			err = uerr
		}
	}
	return n, err
}

// fileContent is a file of known size as ServeContent wants it: to learn the
// size and to go to the start it seeks, which costs no system call here.
type fileContent struct {
	f       *os.File
	size    int64
	off, at int64 // wanted, and where the file stands
}

// Seek notes the place.
func (c *fileContent) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += c.off
	case io.SeekEnd:
		off += c.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start of a file")
	}
	c.off = off
	return off, nil
}

// place moves the file to where it was sought.
func (c *fileContent) place() error {
	if c.at == c.off {
		return nil
	}
	if _, err := c.f.Seek(c.off, io.SeekStart); err != nil {
		return err
	}
	c.at = c.off
	return nil
}

// Read reads; of several ranges each is read this way.
func (c *fileContent) Read(p []byte) (int, error) {
	if err := c.place(); err != nil {
		return 0, err
	}
	n, err := c.f.Read(p)
	c.off += int64(n)
	c.at = c.off
	return n, err
}

func (w *response) implicit() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// cautious holds the header back until there is a first byte of the body, so
// that a body that cannot be had is still an honest status. fail says what to
// send then; it is asked once, with the reader's error.
type cautious struct {
	*response
	code   int // held back; 0 when there is none
	sent   bool
	failed bool
	fail   func(w http.ResponseWriter, err error)
}

// WriteHeader holds the status back.
func (w *cautious) WriteHeader(status int) {
	if w.code == 0 && status >= 200 {
		w.code = status
	}
}

// Write sends the header and b.
func (w *cautious) Write(b []byte) (int, error) {
	w.commit()
	return w.response.Write(b)
}

func (w *cautious) commit() {
	if !w.sent {
		w.sent = true
		if w.code != 0 {
			w.response.WriteHeader(w.code)
		}
	}
}

// streamBuffer is the memory one stream of a blob that is elsewhere takes here.
const streamBuffer = 64 << 10

// ReadFrom waits for the first bytes of r before it sends the header, and
// flushes them: a client's timeout runs until it sees something.
func (w *cautious) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, streamBuffer)
	var total int64
	for {
		n, err := r.Read(buf)
		if n == 0 && err != nil && err != io.EOF && !w.sent {
			w.sent, w.failed = true, true
			w.fail(w.response, err)
			return 0, err
		}
		if n > 0 {
			first := !w.sent
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
			if first {
				if err := http.NewResponseController(w.response).Flush(); err != nil {
					return total, err
				}
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// finish sends a status that has no body.
func (w *cautious) finish() { w.commit() }
