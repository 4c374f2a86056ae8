package httpgateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// telling serves a catalog on a port and counts plain GETs.
func telling(t *testing.T, g *httpgateway.Gateway) (addr string, plain *atomic.Int32) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	plain = new(atomic.Int32)
	done := make(chan error, 1)
	go func() { done <- g.ServeTelling(l, func() {}, func() { plain.Add(1) }) }()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String(), plain
}

// line is one connection of a client.
type line struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func open(t *testing.T, addr string) *line {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &line{t, c, bufio.NewReader(c)}
}

// ask sends a request and reads the answer.
func (l *line) ask(request string) (*http.Response, []byte) {
	l.t.Helper()
	if _, err := io.WriteString(l, request); err != nil {
		l.t.Fatal(err)
	}
	r, err := http.ReadResponse(l.r, nil)
	if err != nil {
		l.t.Fatalf("%q: %v", request, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		l.t.Fatalf("%q: %d bytes: %v", request, len(b), err)
	}
	return r, b
}

func plainGet(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n" }

// until asks until one more request was answered as a plain GET: net/http may
// have read a byte of the next one already.
func (l *line) until(plain *atomic.Int32, request string) (*http.Response, []byte) {
	l.t.Helper()
	before := plain.Load()
	for range 1000 {
		r, b := l.ask(request)
		if plain.Load() > before {
			return r, b
		}
	}
	l.t.Fatalf("%q was never a plain GET", request)
	return nil, nil
}

func TestAPlainGetIsAnsweredAsNetHTTPWould(t *testing.T) {
	for _, size := range []int{1, 5_000, 64 << 10, 1 << 20} {
		cat := httpgatewaytest.New(t)
		data := content(size, 1)
		cat.PutLocal(data)
		g := newGateway(t, cat, nil)
		path := one(t, cat, g, data)
		addr, plain := telling(t, g)
		c := open(t, addr)
		slow, want := c.ask(plainGet(path)) // the first of a connection
		if plain.Load() != 0 || !bytes.Equal(want, data) {
			t.Fatal("the first request is net/http's")
		}
		fast, got := c.until(plain, "GET "+path+" HTTP/1.1\r\nhost: 127.0.0.1\r\nUser-Agent: Wget/1.21\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n")
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes: other bytes", size)
		}
		for _, r := range []*http.Response{slow, fast} {
			if _, err := http.ParseTime(r.Header.Get("Date")); err != nil {
				t.Error(err)
			}
			r.Header.Del("Date")
		}
		if diff := cmp.Diff(slow.Header, fast.Header); diff != "" || slow.Status != fast.Status || slow.Proto != fast.Proto {
			t.Errorf("%d bytes: %s, %s: %s", size, slow.Status, fast.Status, diff)
		}
		if n := g.Counts(); n.Local == 0 || n.PackageBytes != n.Local*uint64(size) {
			t.Errorf("counted %+v", n)
		}
		// What is no plain GET is answered all the same, and then one is again.
		if r, b := c.ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-0\r\n\r\n"); r.StatusCode != 206 || len(b) != 1 {
			t.Errorf("a range: %s, %d bytes", r.Status, len(b))
		}
		if r, _ := c.ask("GET " + path + " HTTP/1.1\r\nHost: evil.example\r\n\r\n"); r.StatusCode != 421 {
			t.Errorf("another name: %s", r.Status)
		}
		if r, _ := c.ask(plainGet("/desktop/stable/x/none-1.gpkg.tar")); r.StatusCode != 404 {
			t.Errorf("no such package: %s", r.Status)
		}
		c.until(plain, plainGet(path))
	}
}

// Whoever speaks through a proxy must not be able to hide a request in a body.
func TestABodyThatReadsLikeAPlainGetIsNotAnswered(t *testing.T) {
	cat := httpgatewaytest.New(t)
	data := content(1000, 1)
	cat.PutLocal(data)
	g := newGateway(t, cat, func(c *httpgateway.Config) {
		c.Post = map[string]http.Handler{"/order": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "done")
		})}
	})
	path := one(t, cat, g, data)
	addr, plain := telling(t, g)
	c := open(t, addr)
	c.until(plain, plainGet(path))
	before := plain.Load()
	hidden := plainGet(path)
	// The header and the body arrive one after the other, so that each is read on its own.
	if _, err := fmt.Fprintf(c, "POST /order HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(hidden)); err != nil {
		t.Fatal(err)
	}
	if r, err := http.ReadResponse(c.r, nil); err != nil || r.StatusCode != 100 { // it waits for the body now
		t.Fatal(r, err)
	}
	if r, b := c.ask(hidden); r.StatusCode != 200 || string(b) != "done" || plain.Load() != before {
		t.Fatalf("a body was answered: %s, %d bytes", r.Status, len(b))
	}
	if _, b := c.ask(plainGet(path)); !bytes.Equal(b, data) {
		t.Error("the request after it got something else")
	}
}

func TestAPlainGetThatTheDiskDoesNotGiveComesFromOtherHolders(t *testing.T) {
	for _, size := range []int{5_000, 100_000} {
		cat := httpgatewaytest.New(t)
		data := content(size, 1)
		id := cat.PutLocal(data)
		cat.PutRemote(id, &httpgatewaytest.Holder{Data: data})
		g := newGateway(t, cat, nil)
		path := one(t, cat, g, data)
		addr, plain := telling(t, g)
		c := open(t, addr)
		c.until(plain, plainGet(path))
		cat.Fail(id)
		if r, b := c.ask(plainGet(path)); r.StatusCode != 200 || !bytes.Equal(b, data) {
			t.Errorf("%d bytes: %s, %d came", size, r.Status, len(b))
		}
	}
}

// net/http takes the connection for idle while a plain GET is answered.
func TestAPlainGetThatIsBeingAnsweredOutlivesTheOrderToStop(t *testing.T) {
	cat := httpgatewaytest.New(t)
	data := content(200_000, 1)
	id := cat.PutLocal(data)
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: data})
	g, addr, stop := serve(t, cat, func(c *httpgateway.Config) { c.Grace, c.Stall = time.Minute, time.Minute })
	path := one(t, cat, g, data)
	c := open(t, addr)
	c.ask(plainGet(path))
	// The disk fails, so that the holder decides when it goes on.
	cat.Fail(id)
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	cat.PutRemote(id, &httpgatewaytest.Holder{Data: data, Serve: func(_ context.Context, at int64, n int) (int, error) {
		if at >= 100_000 && once.CompareAndSwap(false, true) {
			close(reached)
			<-goOn
		}
		return min(n, 10_000), nil
	}})
	if _, err := io.WriteString(c, plainGet(path)); err != nil {
		t.Fatal(err)
	}
	<-reached
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(goOn)
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if err := errors.Join(<-stopped, r.Body.Close()); err != nil {
		t.Error(err)
	}
}

func TestOnlyWhatIsSurelyPlainIsTakenForOne(t *testing.T) {
	for request, want := range map[string]bool{
		"GET /a/b HTTP/1.1\r\nHost: h\r\n\r\n":                                   true,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n":         true,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":              false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, te\r\n\r\n":     false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n":              false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n":     false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n":               false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nIf-None-Match: x\r\n\r\n":               false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n":                        false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\nHost : i\r\n\r\n":                       false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n":                        false,
		"GET /a/b HTTP/1.1\r\nHost: h\n\r\n\r\n":                                 false,
		"GET /a/b HTTP/1.1\r\nHost: h\x00\r\n\r\n":                               false,
		"GET /a/b HTTP/1.1\r\n\r\n":                                              false,
		"GET /a/b HTTP/1.0\r\nHost: h\r\n\r\n":                                   false,
		"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n":                                   false,
		"HEAD /a/b HTTP/1.1\r\nHost: h\r\n\r\n":                                  false,
		"get /a/b HTTP/1.1\r\nHost: h\r\n\r\n":                                   false,
		"GET http://h/a/b HTTP/1.1\r\nHost: h\r\n\r\n":                           false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\n":                                       false,
		"GET /a/b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n": false,
		"": false,
	} {
		if _, _, ok := httpgateway.ParsePlain([]byte(request)); ok != want {
			t.Errorf("%q: %v, want %v", request, ok, want)
		}
	}
}

// Whatever is taken for a plain GET is one to net/http as well, and the same.
func FuzzPlainGet(f *testing.F) {
	f.Add([]byte(plainGet("/desktop/stable/x/a-1.gpkg.tar")))
	f.Add([]byte("GET /a HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nUser-Agent: a b\r\nConnection: Keep-Alive\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path, host, ok := httpgateway.ParsePlain(b)
		if !ok || strings.ContainsAny(path, "%?#:") { // of these none is in a table of packages
			return
		}
		buf := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(buf)
		if err != nil {
			if httpPath(path) && httpHost(host) {
				t.Fatalf("%q: net/http refuses it: %v", b, err)
			}
			return
		}
		if r.Method != http.MethodGet || r.URL.Path != "/"+path || r.Host != strings.TrimSpace(host) || r.ContentLength != 0 || r.Close ||
			r.Header.Get("Range") != "" || buf.Buffered() != 0 {
			t.Fatalf("%q: %q on %q; net/http says %q on %q", b, path, host, r.URL.Path, r.Host)
		}
	})
}

func httpPath(s string) bool { return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz/-.0123456789") == "" }
func httpHost(s string) bool { return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-.0123456789") == "" }
