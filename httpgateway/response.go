package httpgateway

import (
	"io"
	"net/http"
)

// response notes what was sent. It passes ReadFrom and Unwrap on, so that
// sendfile and http.ResponseController go on working.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
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

// ReadFrom counts, and leaves the copying to the server.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.implicit()
	n, err := io.Copy(w.ResponseWriter, r) // its ReadFrom, where it has one
	w.bytes += n
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

// bufferSize is the memory one stream of a blob that is elsewhere takes here.
const bufferSize = 64 << 10

// ReadFrom waits for the first bytes of r before it sends the header, and
// flushes them: a client's timeout runs until it sees something.
func (w *cautious) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, bufferSize)
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
