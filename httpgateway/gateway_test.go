package httpgateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/binhost"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

const portage = "Gentoo Portage"

var t0 = time.Unix(1_700_000_000, 0)

func newGateway(t testing.TB, cat *httpgatewaytest.Catalog, edit func(*httpgateway.Config)) *httpgateway.Gateway {
	t.Helper()
	cfg := httpgateway.Config{
		Catalog: cat, CacheDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Listen: []string{"127.0.0.1:0"},
		Patience: 100 * time.Millisecond, Stall: 100 * time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	g, err := httpgateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// get asks the handler; header is name, value, name, value.
func get(t testing.TB, h http.Handler, path string, header ...string) *http.Response {
	t.Helper()
	return ask(t, h, http.MethodGet, path, header...)
}

func ask(t testing.TB, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, nil)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, r *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func want(t testing.TB, r *http.Response, status int) []byte {
	t.Helper()
	b := body(t, r)
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d: %.200s", r.StatusCode, status, b)
	}
	if status >= 400 {
		if len(b) == 0 || bytes.Count(b, []byte("\n")) != 1 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
			t.Fatalf("status %d without one plain line: %q %v", status, b, r.Header)
		}
		for _, name := range []string{"Etag", "Content-Range", "Last-Modified"} {
			if v := r.Header.Get(name); v != "" {
				t.Fatalf("an error with %s: %s", name, v)
			}
		}
	}
	return b
}

func equal(t testing.TB, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

// index fetches and parses an index as Portage does.
func index(t testing.TB, h http.Handler, target string) *binhost.Packages {
	t.Helper()
	p, err := binhost.Parse(bytes.NewReader(want(t, get(t, h, "/"+target+"/stable/Packages", "User-Agent", portage), 200)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func content(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func TestIndexIsTheReleaseUnderItsHead(t *testing.T) {
	cat := httpgatewaytest.New(t)
	pkg := content(1000, 1)
	cat.PutLocal(pkg)
	e := httpgatewaytest.Entry(t, "app-misc/hello-1.0", pkg, build.Pair{Name: "EAPI", Value: "8"})
	head := cat.Publish("desktop", t0, e)
	g := newGateway(t, cat, nil)

	_, m, _ := cat.Head("desktop", "stable")
	rendered, err := binhost.Render(m, head)
	if err != nil {
		t.Fatal(err)
	}
	r := get(t, g, "/desktop/stable/Packages", "User-Agent", portage)
	equal(t, string(want(t, r, 200)), string(rendered))
	equal(t, r.Header.Get("Last-Modified"), t0.UTC().Format(http.TimeFormat))
	equal(t, r.Header.Get("X-Content-Type-Options"), "nosniff")

	r = get(t, g, "/desktop/stable/Packages.gz", "User-Agent", portage, "Accept-Encoding", "bzip2,gzip,deflate")
	equal(t, r.Header.Get("Content-Encoding"), "")
	equal(t, r.Header.Get("Last-Modified"), t0.UTC().Format(http.TimeFormat))
	z, err := gzip.NewReader(bytes.NewReader(want(t, r, 200)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, string(text), string(rendered))

	other := newGateway(t, cat, nil)
	for _, name := range []string{"Packages", "Packages.gz"} {
		a, b := get(t, g, "/desktop/stable/"+name), get(t, other, "/desktop/stable/"+name)
		equal(t, a.Header.Get("Etag"), b.Header.Get("Etag"))
		if !bytes.Equal(body(t, a), body(t, b)) {
			t.Fatal("two gateways write different bytes of", name)
		}
	}
}

func TestPortageIsToldOfAnIndexWithinItsFiveSeconds(t *testing.T) {
	cat := httpgatewaytest.New(t)
	pkg := content(10, 1)
	cat.PutLocal(pkg)
	first := cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", pkg))
	g := newGateway(t, cat, nil)
	since := func(seconds int64) string {
		return time.Unix(first.Timestamp+seconds, 0).UTC().Format(http.TimeFormat)
	}
	for _, name := range []string{"/desktop/stable/Packages", "/desktop/stable/Packages.gz"} {
		r := get(t, g, name, "User-Agent", portage, "If-Modified-Since", since(5))
		if b := body(t, r); r.StatusCode != 304 || len(b) != 0 || r.Header.Get("Last-Modified") != since(0) {
			t.Fatalf("the newest index is asked for: %d %v", r.StatusCode, r.Header)
		}
		for _, have := range []int64{4, 0, -1000} { // it has an older one
			want(t, get(t, g, name, "User-Agent", portage, "If-Modified-Since", since(have)), 200)
		}
		want(t, get(t, g, name, "User-Agent", portage, "If-Modified-Since", since(5000)), 304)
		want(t, get(t, g, name, "User-Agent", portage, "If-Modified-Since", "nonsense"), 200)
		// Anybody else gets what RFC 9110 says.
		want(t, get(t, g, name, "User-Agent", "curl/8", "If-Modified-Since", since(0)), 304)
		want(t, get(t, g, name, "User-Agent", "curl/8", "If-Modified-Since", since(-1)), 200)
	}
	// A head that came 3 s later, as from a board that broke the rule of 6 s.
	next := release.Next(&first, first.Release, t0.Add(time.Second))
	next.Timestamp = first.Timestamp + 3
	cat.Force(next)
	r := get(t, g, "/desktop/stable/Packages.gz", "User-Agent", portage, "If-Modified-Since", since(5))
	want(t, r, 200)
	equal(t, r.Header.Get("Last-Modified"), since(3))
}

func TestRollbackShowsTheOldReleaseUnderANewerTimestamp(t *testing.T) {
	cat := httpgatewaytest.New(t)
	one, two := content(10, 1), content(10, 2)
	cat.PutLocal(one)
	cat.PutLocal(two)
	h1 := cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one))
	g := newGateway(t, cat, nil)
	path1 := index(t, g, "desktop").Entries[0]["PATH"]
	cat.Publish("desktop", t0.Add(time.Second), httpgatewaytest.Entry(t, "x/a-2", two))
	p := index(t, g, "desktop")
	equal(t, []string{p.Entries[0]["CPV"], p.Header["TIMESTAMP"]}, []string{"x/a-2", "1700000006"})
	// Who has the index of before still gets what it names, byte for byte.
	equal(t, want(t, get(t, g, "/desktop/stable/"+path1), 200), one)
	cat.Rollback("desktop", h1.Release, t0)
	p = index(t, g, "desktop")
	equal(t, []string{p.Entries[0]["CPV"], p.Header["TIMESTAMP"], p.Entries[0]["PATH"]}, []string{"x/a-1", "1700000012", path1})
}

func TestHeadIsNotMovedToWhileAnEntryHasNoHolder(t *testing.T) {
	cat := httpgatewaytest.New(t)
	one, two := content(10, 1), content(20, 2)
	cat.PutLocal(one)
	g := newGateway(t, cat, nil)
	want(t, get(t, g, "/desktop/stable/Packages.gz"), 404)
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/b-1", two))
	r := get(t, g, "/desktop/stable/Packages.gz", "User-Agent", portage)
	if b := want(t, r, 503); !strings.Contains(string(b), "1 of 1 packages") || r.Header.Get("Retry-After") == "" {
		t.Fatalf("%s", b)
	}
	want(t, get(t, g, "/readyz"), 503)

	cat2 := httpgatewaytest.New(t)
	cat2.PutLocal(one)
	cat2.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one))
	g = newGateway(t, cat2, nil)
	index(t, g, "desktop")
	h2 := cat2.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one), httpgatewaytest.Entry(t, "x/b-1", two))
	p := index(t, g, "desktop")
	equal(t, []string{p.Header["PACKAGES"], p.Header["TIMESTAMP"]}, []string{"1", "1700000000"})
	s := g.Status()[0]
	if s.Missing != 1 || s.Wanted != h2 || s.Lagging.IsZero() || s.Packages != 1 || s.Problem == "" {
		t.Fatalf("%+v", s)
	}
	want(t, get(t, g, "/readyz"), 503)
	cat2.PutRemote(cas.Sum(two), &httpgatewaytest.Holder{Data: two})
	equal(t, index(t, g, "desktop").Header["PACKAGES"], "2")
	want(t, get(t, g, "/readyz"), 200)
	if s := g.Status()[0]; s.Missing != 0 || s.Served != h2 || !s.Lagging.IsZero() || s.Problem != "" {
		t.Fatalf("%+v", s)
	}
	// A holder that goes away later takes nothing from the index.
	cat2.PutRemote(cas.Sum(two), nil)
	equal(t, index(t, g, "desktop").Header["PACKAGES"], "2")
}

func TestTimestampNeverGoesBackAlsoAfterARestart(t *testing.T) {
	cat := httpgatewaytest.New(t)
	one, two := content(10, 1), content(10, 2)
	cat.PutLocal(one)
	cat.PutLocal(two)
	cache := t.TempDir()
	fresh := func() *httpgateway.Gateway {
		return newGateway(t, cat, func(c *httpgateway.Config) { c.CacheDir = cache })
	}
	h1 := cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one))
	g := fresh()
	path1 := index(t, g, "desktop").Entries[0]["PATH"]
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-2", two))
	newest := want(t, get(t, g, "/desktop/stable/Packages"), 200)

	cat.Force(h1) // the board was restored from a copy
	for _, g := range []*httpgateway.Gateway{g, fresh()} {
		equal(t, string(want(t, get(t, g, "/desktop/stable/Packages"), 200)), string(newest))
		equal(t, want(t, get(t, g, "/desktop/stable/"+path1), 200), one)
		if s := g.Status()[0]; !strings.Contains(s.Problem, "not newer") {
			t.Fatalf("%+v", s)
		}
	}
	same := h1
	same.Timestamp += 6 // another head of the very time that was served
	cat.Force(same)
	equal(t, string(want(t, get(t, fresh(), "/desktop/stable/Packages"), 200)), string(newest))
	// The board knows nothing at all: what was served is served on.
	empty := newGateway(t, httpgatewaytest.New(t), func(c *httpgateway.Config) { c.CacheDir = cache })
	equal(t, string(want(t, get(t, empty, "/desktop/stable/Packages"), 200)), string(newest))
}

func TestDamagedOrClearedCacheIsMadeAgain(t *testing.T) {
	cat := httpgatewaytest.New(t)
	one := content(10, 1)
	cat.PutLocal(one)
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one))
	cache := t.TempDir()
	fresh := func() *httpgateway.Gateway {
		return newGateway(t, cat, func(c *httpgateway.Config) { c.CacheDir = cache })
	}
	g := fresh()
	good := want(t, get(t, g, "/desktop/stable/Packages"), 200)
	files, err := filepath.Glob(filepath.Join(cache, "*", "g-*", "*"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		whole, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(whole)
		flipped[len(flipped)/2] ^= 1
		for _, bad := range [][]byte{flipped, whole[:len(whole)/2], nil} {
			if err := os.WriteFile(f, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			equal(t, string(want(t, get(t, fresh(), "/desktop/stable/Packages"), 200)), string(good))
		}
	}
	// Somebody empties the cache below a running gateway.
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	equal(t, string(want(t, get(t, g, "/desktop/stable/Packages"), 200)), string(good))
}

func TestRequestsThatAreNotServed(t *testing.T) {
	cat := httpgatewaytest.New(t)
	one := content(100, 1)
	cat.PutLocal(one)
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", one))
	g := newGateway(t, cat, func(c *httpgateway.Config) {
		c.Hosts = []string{"nas.lan"}
		c.Listen = []string{"127.0.0.1:0", "bighost:8090"}
	})
	p := "/desktop/stable/" + index(t, g, "desktop").Entries[0]["PATH"]
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"} {
		want(t, ask(t, g, method, p), 405)
	}
	for _, path := range []string{
		"/x", "/desktop", "/desktop/stable", "/desktop/staging/Packages", "/other/stable/Packages", "/other/stable/Packages.gz", "/desktop/stable/",
		"/desktop/stable/../../etc/passwd", "/desktop/stable/%2e%2e/%2e%2e/etc/passwd", "/desktop/stable/x/a/a-1-1.gpkg.tar",
		"/..%2f..%2fetc/stable/Packages", "/desktop/stable/Packages.asc", "/favicon.ico", "/DESKTOP/stable/Packages", "//desktop/stable/Packages",
	} {
		want(t, get(t, g, path), 404)
	}
	for host, status := range map[string]int{
		"localhost:8090": 200, "a.localhost": 200, "127.0.0.1:1": 200, "[::1]:8090": 200, "192.168.1.5": 200, "NAS.lan.:80": 200, "bighost:8090": 200,
		"evil.example": 421, "evil.example:8090": 421, "127.0.0.1.evil.example": 421, "localhost.evil": 421, "nas.lan.evil": 421, "[evil]": 421,
	} {
		want(t, get(t, g, p, "Host", host), status)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1"+p, strings.NewReader("body"))
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	want(t, w.Result(), 400)
	want(t, get(t, g, p, "Range", "bytes="+strings.Repeat("0-0,", 8)+"1-1"), 416)
	want(t, get(t, g, "/desktop/stable/Packages", "Range", "bytes="+strings.Repeat("0-0,", 1000)+"1-1"), 416)
}

func TestRangesAndConditionsOfPackages(t *testing.T) {
	cat := httpgatewaytest.New(t)
	local, far := content(100_000, 1), content(300_000, 2)
	id := cat.PutLocal(local)
	cat.PutRemote(cas.Sum(far), &httpgatewaytest.Holder{Data: far})
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/local-1", local), httpgatewaytest.Entry(t, "x/far-1", far))
	g := newGateway(t, cat, nil)
	for _, e := range index(t, g, "desktop").Entries {
		p, data := "/desktop/stable/"+e["PATH"], local
		if e["CPV"] == "x/far-1" {
			data = far
		}
		n := len(data)
		r := get(t, g, p, "User-Agent", "Portage (Gentoo, https://www.gentoo.org) distfile-fetch")
		if !bytes.Equal(want(t, r, 200), data) {
			t.Fatal("other bytes")
		}
		etag := `"` + cas.Sum(data).String() + `"`
		equal(t, []string{r.Header.Get("Etag"), r.Header.Get("Accept-Ranges"), r.Header.Get("Content-Length"), r.Header.Get("Content-Type")},
			[]string{etag, "bytes", e["SIZE"], "application/x-tar"})
		for spec, wantBytes := range map[string][]byte{
			"bytes=5000-": data[5000:], "bytes=0-0": data[:1], "bytes=-7": data[n-7:], "bytes=70000-70010": data[70000:70011],
			fmt.Sprintf("bytes=%d-", n-1): data[n-1:], "bytes=0-51200": data[:51201], "bytes=5-999999999": data[5:],
		} {
			r := get(t, g, p, "Range", spec)
			if got := want(t, r, 206); !bytes.Equal(got, wantBytes) {
				t.Fatalf("%s: %d bytes, want %d", spec, len(got), len(wantBytes))
			}
		}
		if b := want(t, get(t, g, p, "Range", "bytes=5-9", "If-Range", etag), 206); !bytes.Equal(b, data[5:10]) {
			t.Fatal("If-Range with our tag")
		}
		want(t, get(t, g, p, "Range", "bytes=5-9", "If-Range", `"other"`), 200)
		want(t, get(t, g, p, "Range", "bytes=5-9", "If-Range", r.Header.Get("Last-Modified")), 206)
		r = get(t, g, p, "Range", fmt.Sprintf("bytes=%d-", n))
		if r.StatusCode != 416 {
			t.Fatal(r.StatusCode)
		}
		before := cat.Opened(id) + cat.Opened(cas.Sum(far))
		want(t, get(t, g, p, "If-None-Match", etag), 304)
		r = ask(t, g, "HEAD", p)
		if b := want(t, r, 200); len(b) != 0 || r.Header.Get("Content-Length") != e["SIZE"] {
			t.Fatal(r.Header)
		}
		if after := cat.Opened(id) + cat.Opened(cas.Sum(far)); after != before {
			t.Fatal("a blob was opened where no byte of it is wanted")
		}
		// Several ranges: in parts, or whole; never wrong.
		r = get(t, g, p, "Range", "bytes=0-9,20-29")
		if b := body(t, r); r.StatusCode != 206 && (r.StatusCode != 200 || !bytes.Equal(b, data)) {
			t.Fatal(r.StatusCode)
		}
	}
	cat.PutRemote(cas.Sum(far), nil)
	want(t, ask(t, g, "HEAD", "/desktop/stable/"+index(t, g, "desktop").Entries[0]["PATH"]), 503)
}

func TestPackageThatCannotBeHadIsAStatusAndNotAShortBody(t *testing.T) {
	cat := httpgatewaytest.New(t)
	far := content(300_000, 2)
	id := cas.Sum(far)
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: far})
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/far-1", far))
	g := newGateway(t, cat, nil)
	p := "/desktop/stable/" + index(t, g, "desktop").Entries[0]["PATH"]
	broken := errors.New("holder\nlied\x1b[31m")
	for name, c := range map[string]struct {
		holder *httpgatewaytest.Holder
		status int
	}{
		"nobody has it":     {nil, 503},
		"cannot be opened":  {&httpgatewaytest.Holder{Err: broken}, 502},
		"fails at once":     {&httpgatewaytest.Holder{Data: far, Serve: func(context.Context, int64, int) (int, error) { return 0, broken }}, 502},
		"ends at once":      {&httpgatewaytest.Holder{}, 502},
		"says nothing ever": {&httpgatewaytest.Holder{Data: far, Serve: func(ctx context.Context, _ int64, _ int) (int, error) { <-ctx.Done(); return 0, ctx.Err() }}, 503},
	} {
		cat.PutRemote(id, c.holder)
		for _, header := range [][]string{nil, {"Range", "bytes=70000-"}, {"Range", "bytes=0-1,5-6"}} {
			r := get(t, g, p, header...)
			if b := body(t, r); r.StatusCode != c.status || bytes.Count(b, []byte("\n")) != 1 || bytes.ContainsRune(b, 0x1b) || r.Header.Get("Etag") != "" {
				t.Errorf("%s: status %d, want %d: %q %v", name, r.StatusCode, c.status, b, r.Header)
			}
		}
	}
	// The stored copy has another length than the release says.
	short := content(100, 3)
	local := cat.PutLocal(short)
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/short-1", short))
	if err := os.Truncate(cat.Path(local), 50); err != nil {
		t.Fatal(err)
	}
	want(t, get(t, g, "/desktop/stable/"+index(t, g, "desktop").Entries[0]["PATH"]), 502)
}

func TestHolderThatComesBackIsWaitedFor(t *testing.T) {
	cat := httpgatewaytest.New(t)
	far := content(300_000, 2)
	id := cas.Sum(far)
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: far})
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/far-1", far))
	g := newGateway(t, cat, func(c *httpgateway.Config) { c.Patience, c.Stall = time.Minute, time.Minute })
	p := "/desktop/stable/" + index(t, g, "desktop").Entries[0]["PATH"]
	// The first holder breaks off after 100,000 bytes; from then on another.
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: far, Serve: func(_ context.Context, at int64, n int) (int, error) {
		if at >= 100_000 {
			cat.PutRemote(id, &httpgatewaytest.Holder{Data: far})
			return 0, errors.New("killed")
		}
		return min(n, 1000), nil
	}})
	if !bytes.Equal(want(t, get(t, g, p), 200), far) {
		t.Fatal("other bytes")
	}
	// Nobody has it at first.
	tries := 0
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: far, Serve: func(_ context.Context, _ int64, n int) (int, error) {
		if tries++; tries < 3 {
			return 0, cas.ErrNotFound
		}
		return n, nil
	}})
	if !bytes.Equal(want(t, get(t, g, p), 200), far) {
		t.Fatal("other bytes")
	}
}

func TestMountedHandlersComeFirstAndAreReadOnly(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g := newGateway(t, cat, func(c *httpgateway.Config) {
		c.Mount = map[string]http.Handler{
			"/":    http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "root of "+r.URL.Path) }),
			"/ui/": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ui") }),
		}
	})
	equal(t, string(want(t, get(t, g, "/ui/x"), 200)), "ui")
	equal(t, string(want(t, get(t, g, "/"), 200)), "root of /")
	want(t, get(t, g, "/other"), 404)
	want(t, ask(t, g, "POST", "/ui/x"), 405)
	want(t, get(t, g, "/ui/x", "Host", "evil.example"), 421)

	plain := newGateway(t, cat, nil)
	equal(t, string(want(t, get(t, plain, "/livez"), 200)), "ok\n")
	equal(t, string(want(t, get(t, plain, "/readyz"), 200)), "ok\n")
	if b := want(t, get(t, plain, "/"), 200); !strings.Contains(string(b), "Build Swarm") {
		t.Fatalf("%s", b)
	}
	_, err := httpgateway.New(httpgateway.Config{Catalog: cat, CacheDir: "x", Log: slog.New(slog.DiscardHandler),
		Mount: map[string]http.Handler{"no slash": http.NotFoundHandler()}})
	if err == nil {
		t.Fatal("a pattern that no path can match is accepted")
	}
}

func TestWhoWaitsForAnAnswerIsToldOfAndAMachineThatPollsIsNot(t *testing.T) {
	asked := 0
	g := newGateway(t, httpgatewaytest.New(t), func(c *httpgateway.Config) { c.Asked = func() { asked++ } })
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if get(t, g, path); asked != 0 {
			t.Errorf("%s counts", path)
		}
	}
	for n, path := range []string{"/", "/desktop/stable/Packages", "/desktop/stable/app-misc/jq/jq-1-1.gpkg.tar"} {
		if get(t, g, path); asked != n+1 {
			t.Errorf("%s does not count", path)
		}
	}
}
