package httpgateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// server is what net/http hands to a handler, as far as copying goes: a
// writer with ReadFrom, which uses sendfile when it is given a file.
type server struct {
	*httptest.ResponseRecorder
	files int
}

func (s *server) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			s.files++
		}
	}
	return io.Copy(struct{ io.Writer }{s.ResponseRecorder}, r)
}

func TestFilesReachTheServerAsFilesSoThatItMaySendfile(t *testing.T) {
	cat := httpgatewaytest.New(t)
	data := content(100_000, 1)
	cat.PutLocal(data)
	g := newGateway(t, cat, nil)
	path := one(t, cat, g, data)
	for _, p := range []string{path, "/desktop/stable/Packages", "/desktop/stable/Packages.gz"} {
		w := &server{ResponseRecorder: httptest.NewRecorder()}
		g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+p, nil))
		if w.Code != 200 || w.files != 1 {
			t.Errorf("%s: status %d, %d files copied as files", p, w.Code, w.files)
		}
	}
}
