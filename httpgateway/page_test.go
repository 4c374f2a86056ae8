package httpgateway_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// What is mounted stands behind the same guards as the binhost: the name that a
// request calls this gateway by, the methods, the bodies.
func TestAPageIsGuardedLikeTheRest(t *testing.T) {
	got := ""
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.Path
		fmt.Fprint(w, "the page")
	})
	g, err := httpgateway.New(httpgateway.Config{Catalog: httpgatewaytest.New(t), CacheDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Mount: map[string]http.Handler{"/": handler, "/-/": handler}, Post: map[string]http.Handler{"/-/order": handler}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, host, path, body string
		code                     int
	}{
		{"GET", "127.0.0.1:8090", "/", "", 200},
		{"GET", "localhost:8090", "/-/packages", "", 200},
		{"GET", "evil.example", "/", "", 421},
		{"GET", "evil.example:8090", "/-/packages", "", 421},
		{"POST", "evil.example", "/-/order", "verb=unblock", 421},
		{"POST", "127.0.0.1.evil.example", "/-/order", "verb=unblock", 421},
		{"POST", "127.0.0.1:8090", "/-/order", "verb=unblock", 200},
		{"POST", "127.0.0.1:8090", "/-/order", strings.Repeat("x", httpgateway.PostBytes+1), 413},
		{"POST", "127.0.0.1:8090", "/", "x", 405},
		{"POST", "127.0.0.1:8090", "/-/packages", "x", 405},
		{"PUT", "127.0.0.1:8090", "/-/order", "x", 405},
		{"DELETE", "127.0.0.1:8090", "/-/order", "", 405},
	} {
		got = ""
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
		r.Host = c.host
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != c.code || (got != "") != (c.code == 200) {
			t.Errorf("%s %s %s: %d, handler saw %q", c.method, c.host, c.path, w.Code, got)
		}
	}
	if n := g.Counts().Refused; n != 8 {
		t.Errorf("%d refusals are counted", n)
	}
}

func TestHitsAndMissesAreCounted(t *testing.T) {
	cat := httpgatewaytest.New(t)
	cat.PutLocal([]byte("content of jq"))
	cat.Publish("desktop", time.Unix(1_800_000_000, 0), httpgatewaytest.Entry(t, "app-misc/jq-1.7", []byte("content of jq")))
	g := newGateway(t, cat, nil)
	ask := func(path string) int {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1"+path, nil))
		return w.Code
	}
	if c := ask("/desktop/stable/Packages"); c != 200 {
		t.Fatalf("index: %d", c)
	}
	for _, p := range []string{"app-editors/vim/vim-9.1.0-1.gpkg.tar", "app-editors/vim/vim-9.1.0-77.gpkg.tar", "app-shells/bash-5.2.gpkg.tar",
		"<script>/x/x-1-1.gpkg.tar", "../../etc/passwd", "app-editors/emacs/vim-9-1.gpkg.tar", "a/b/c/d.gpkg.tar", "nothing.gpkg.tar"} {
		if c := ask("/desktop/stable/" + p); c != 404 {
			t.Errorf("%s: %d", p, c)
		}
	}
	got := g.Misses()
	if len(got) != 2 || got[0].CPV != "app-editors/vim-9.1.0" || got[0].Times != 2 || got[1].CPV != "app-shells/bash-5.2" {
		t.Errorf("%+v", got)
	}
	for i := range 1000 {
		ask(fmt.Sprintf("/desktop/stable/app-misc/x/x-%d-1.gpkg.tar", i))
	}
	if n := len(g.Misses()); n > 256 || g.Misses()[0].CPV != "app-editors/vim-9.1.0" {
		t.Errorf("%d misses are kept, the first %+v", n, g.Misses()[0])
	}
	if c := g.Counts(); c.Index != 1 || c.Missing != 1008 || c.IndexBytes == 0 || c.Local != 0 {
		t.Errorf("%+v", c)
	}
}
