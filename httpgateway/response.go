package httpgateway

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
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
		if _, ok := lr.R.(*fileContent); ok && w.conn != nil {
			// With the header written (held back: it goes with the body), the
			// server does not copy the first 512 bytes on its own.
			w.conn.hold()
			if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
				return 0, err
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

// serveFile is http.ServeContent, shorter for the request that Portage makes:
// one for all of the file, without a condition.
func (w *response) serveFile(r *http.Request, modified time.Time, c *fileContent) {
	for _, name := range []string{"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if _, set := r.Header[name]; set || w.conn == nil || r.Method != http.MethodGet {
			http.ServeContent(w, r, "", modified, c)
			return
		}
	}
	h := w.Header()
	values := []string{modified.UTC().Format(http.TimeFormat), strconv.FormatInt(c.size, 10)}
	h["Last-Modified"], h["Content-Length"], h["Accept-Ranges"] = values[:1:1], values[1:], takesRange
	w.WriteHeader(http.StatusOK)
	_, _ = w.ReadFrom(&io.LimitedReader{R: c, N: c.size}) // short of Content-Length, the server cuts the connection
}

// fileContent is a file of known size as ServeContent wants it: to learn the
// size and to go to the start it seeks, which costs no system call here. The
// file may be shared: its own place is left alone.
type fileContent struct {
	f     *os.File
	size  int64
	off   int64
	parts []part // where f has the content; nil: as it is
	// instead, where it is set, is told why the file cannot be read and returns
	// what to read from then on.
	instead func(error) io.ReadSeeker
	other   io.ReadSeeker // what it returned; nil while f is read
}

// place is where f has the content from off on, and at most n bytes of it that
// go on there.
func (c *fileContent) place(off, n int64) (at, there int64) {
	if c.parts == nil {
		return off, n
	}
	i, found := slices.BinarySearchFunc(c.parts, off, func(p part, off int64) int { return cmp.Compare(p.at, off) })
	if !found {
		i--
	}
	p := c.parts[i] // the first begins at 0
	skip := off - p.at
	return p.off + skip, max(0, min(n, p.n-skip))
}

// readAt is ReadAt of the content.
func (c *fileContent) readAt(p []byte, off int64) (int, error) {
	done := 0
	for {
		at, n := c.place(off+int64(done), int64(len(p)-done))
		m, err := c.f.ReadAt(p[done:done+int(n)], at)
		done += m
		if err == nil && n == 0 && done < len(p) {
			err = io.EOF
		}
		if err != nil || done == len(p) {
			return done, err
		}
	}
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

// Read reads; of several ranges each is read this way, and so is what sendfile
// cannot send.
func (c *fileContent) Read(p []byte) (int, error) {
	if c.other == nil {
		n, err := c.readAt(p, c.off)
		c.off += int64(n)
		switch {
		case n > 0:
			return n, nil // the error comes again
		case err == nil || errors.Is(err, io.EOF) || c.instead == nil:
			return 0, err
		}
		c.other = c.instead(err)
	}
	if _, err := c.other.Seek(c.off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := c.other.Read(p)
	c.off += int64(n)
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
