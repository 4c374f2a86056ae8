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
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// serve runs a gateway on a port of its own; stop ends it and returns what
// Run returned.
func serve(t testing.TB, cat *httpgatewaytest.Catalog, edit func(*httpgateway.Config)) (g *httpgateway.Gateway, addr string, stop func() error) {
	t.Helper()
	g = newGateway(t, cat, edit)
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return g, g.Addrs()[0], stop
}

// fetch is one request over a connection of its own; the body's error is
// returned beside what came before it.
func fetch(t testing.TB, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r.Close = true
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// one publishes a release of one package and returns its path.
func one(t testing.TB, cat *httpgatewaytest.Catalog, h http.Handler, data []byte) string {
	t.Helper()
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", data))
	return "/desktop/stable/" + index(t, h, "desktop").Entries[0]["PATH"]
}

func TestServerGivesTheBytesOfLocalAndDistantPackages(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, _ := serve(t, cat, nil)
	data := content(3<<20+17, 9)
	cat.PutLocal(data)
	path := one(t, cat, g, data)
	for _, spec := range []string{"", "bytes=0-", "bytes=1048577-", "bytes=-5"} {
		resp, b, err := fetch(t, "http://"+addr+path, "Range", spec)
		if err != nil {
			t.Fatal(err)
		}
		want := data
		switch spec {
		case "bytes=1048577-":
			want = data[1048577:]
		case "bytes=-5":
			want = data[len(data)-5:]
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("%q: status %d, %d bytes, want %d", spec, resp.StatusCode, len(b), len(want))
		}
	}
	far := content(2<<20+3, 10)
	cat.PutRemote(cas.Sum(far), &httpgatewaytest.Holder{Data: far})
	cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-2", far))
	resp, b, err := fetch(t, "http://"+addr+"/desktop/stable/"+index(t, g, "desktop").Entries[0]["PATH"])
	if err != nil || !bytes.Equal(b, far) || resp.ContentLength != int64(len(far)) {
		t.Fatal(len(b), err)
	}
}

func TestPackageThatBreaksOffIsACutConnectionAndTakenUpWithRange(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, _ := serve(t, cat, nil)
	data := content(1<<20, 9)
	for name, end := range map[string]func(context.Context) error{
		"the holder fails":  func(context.Context) error { return errors.New("killed") },
		"the holder stalls": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data})
		path := one(t, cat, g, data)
		cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data, Serve: func(ctx context.Context, at int64, n int) (int, error) {
			if at >= 500_000 {
				return 0, end(ctx)
			}
			return min(n, 500_000-int(at)), nil
		}})
		resp, b, err := fetch(t, "http://"+addr+path)
		if resp == nil || resp.StatusCode != 200 || resp.ContentLength != int64(len(data)) {
			t.Fatalf("%s: %v %v", name, resp, err)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(b, data[:500_000]) {
			t.Fatalf("%s: %d bytes and %v", name, len(b), err)
		}
		cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data})
		_, rest, err := fetch(t, "http://"+addr+path, "Range", fmt.Sprintf("bytes=%d-", len(b)))
		if err != nil || !bytes.Equal(append(b, rest...), data) {
			t.Fatalf("%s: the rest: %v", name, err)
		}
	}
}

func TestFirstBytesArePassedOnBeforeTheHolderHasSentMore(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, _ := serve(t, cat, func(c *httpgateway.Config) { c.Stall = time.Minute })
	data := content(1<<20, 9)
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data})
	path := one(t, cat, g, data)
	seen := make(chan struct{})
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data, Serve: func(ctx context.Context, at int64, n int) (int, error) {
		if at == 0 {
			return 10, nil
		}
		select { // nothing more until the client has the first ten bytes
		case <-seen:
			return n, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}})
	c := dial(t, addr)
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 10)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	close(seen)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(append(first, rest...), data) {
		t.Fatal(err)
	}
}

func TestClientThatDoesNotReadIsCutOff(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, _ := serve(t, cat, func(c *httpgateway.Config) { c.SlowWrite = 50 * time.Millisecond })
	data := content(32<<20, 9) // more than the sockets hold
	for name, put := range map[string]func(){
		"local": func() { cat.PutLocal(data) }, "far": func() { cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data}) },
	} {
		if name == "far" {
			data = content(32<<20, 11)
		}
		put()
		path := one(t, cat, g, data)
		c := dial(t, addr)
		if err := c.SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		// Reading begins only when the server has given up, which a writer is
		// told by a reset.
		for err := error(nil); err == nil; {
			if _, err = c.Write(make([]byte, 64<<10)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: the server did not close the connection", name)
			}
		}
		n, _ := io.Copy(io.Discard, c)
		if n >= int64(len(data)) {
			t.Fatalf("%s: a client that does not read got all %d bytes", name, n)
		}
	}
}

func TestGreedyClientIsToldAndOthersAreServed(t *testing.T) {
	cat := httpgatewaytest.New(t)
	_, addr, _ := serve(t, cat, func(c *httpgateway.Config) { c.MaxConnsEach = 2 })
	a, b := dial(t, addr), dial(t, addr)
	for _, c := range []net.Conn{a, b} { // both are in
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
	}
	third := dial(t, addr)
	if _, err := io.WriteString(third, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(third), nil)
	if err != nil || resp.StatusCode != 503 {
		t.Fatal(resp, err)
	}
	if line, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(line), "\n") {
		t.Fatalf("%q %v", line, err)
	}
	_ = a.Close()
	eventually(t, func() bool {
		r, _, err := fetch(t, "http://"+addr+"/livez")
		return err == nil && r.StatusCode == 200
	})
}

// eventually asks until ok; each try is a request, so nothing spins.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

func TestConnectionsBeyondTheTotalWait(t *testing.T) {
	cat := httpgatewaytest.New(t)
	_, addr, _ := serve(t, cat, func(c *httpgateway.Config) { c.MaxConns = 1 })
	a := dial(t, addr)
	if _, err := io.WriteString(a, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(a), nil); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, _, err := fetch(t, "http://"+addr+"/livez")
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatal("a second connection was served beside the first:", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = a.Close()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestHugeHeaderIsRefused(t *testing.T) {
	_, addr, _ := serve(t, httpgatewaytest.New(t), nil)
	resp, _, err := fetch(t, "http://"+addr+"/livez", "X-Big", strings.Repeat("x", 32<<10))
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Fatal(resp, err)
	}
}

func TestHeaderThatDoesNotEndIsNotWaitedForEver(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the five seconds that a header may take")
	}
	t.Parallel()
	_, addr, _ := serve(t, httpgatewaytest.New(t), nil)
	c := dial(t, addr)
	if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: local"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || bytes.HasPrefix(b, []byte("HTTP/1.1 200")) {
		t.Fatalf("%q %v", b, err)
	}
}

func TestPortInUseIsNamedWithItsSetting(t *testing.T) {
	_, addr, _ := serve(t, httpgatewaytest.New(t), nil)
	g := newGateway(t, httpgatewaytest.New(t), func(c *httpgateway.Config) { c.Listen, c.Setting = []string{addr}, "--gateway" })
	err := g.Run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "--gateway") || strings.Contains(err.Error(), "\n") {
		t.Fatal(err)
	}
	bad := newGateway(t, httpgatewaytest.New(t), func(c *httpgateway.Config) { c.Listen = []string{"192.0.2.1:1"} })
	if err := bad.Run(t.Context()); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Fatal(err)
	}
	if _, err := httpgateway.New(httpgateway.Config{Catalog: httpgatewaytest.New(t), CacheDir: "x", Log: nil}); err == nil {
		t.Fatal("no log")
	}
}

func TestShutdownLetsARunningDownloadFinish(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, stop := serve(t, cat, func(c *httpgateway.Config) { c.Stall, c.Grace = time.Minute, time.Minute })
	data := content(1<<20, 9)
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data})
	path := one(t, cat, g, data)
	begun, proceed := make(chan struct{}, 1), make(chan struct{})
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data, Serve: func(ctx context.Context, at int64, n int) (int, error) {
		if at == 0 {
			return 10, nil
		}
		select {
		case begun <- struct{}{}:
		default:
		}
		select {
		case <-proceed:
			return n, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}})
	type result struct {
		b   []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		_, b, err := fetch(t, "http://"+addr+path)
		got <- result{b, err}
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, func() bool { // the port is closed first
		_, _, err := fetch(t, "http://"+addr+"/livez")
		return err != nil
	})
	close(proceed)
	if r := <-got; r.err != nil || !bytes.Equal(r.b, data) {
		t.Fatal(len(r.b), r.err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func TestShutdownCutsWhatRunsBeyondTheGrace(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, addr, stop := serve(t, cat, func(c *httpgateway.Config) { c.Stall, c.Grace = time.Hour, 10*time.Millisecond })
	data := content(1<<20, 9)
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data})
	path := one(t, cat, g, data)
	begun := make(chan struct{}, 1)
	cat.PutRemote(cas.Sum(data), &httpgatewaytest.Holder{Data: data, Serve: func(ctx context.Context, at int64, _ int) (int, error) {
		if at == 0 {
			return 10, nil
		}
		begun <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	got := make(chan error, 1)
	go func() {
		_, _, err := fetch(t, "http://"+addr+path)
		got <- err
	}()
	<-begun
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err == nil {
		t.Fatal("a download that was cut looks whole")
	}
}

func TestRunFollowsTheHeadWithoutARequest(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, _, _ := serve(t, cat, func(c *httpgateway.Config) { c.Poll = time.Hour })
	data := content(10, 1)
	cat.PutLocal(data)
	head := cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", data))
	g.Kick()
	eventually(t, func() bool {
		s := g.Status()
		return len(s) == 1 && s[0].Served == head
	})
}

func TestLargeReleaseIsMadeWhileTheOldOneIsServed(t *testing.T) {
	cat := httpgatewaytest.New(t)
	g, _, _ := serve(t, cat, func(c *httpgateway.Config) { c.Poll = time.Hour })
	data := content(10, 1)
	cat.PutLocal(data)
	old := cat.Publish("desktop", t0, httpgatewaytest.Entry(t, "x/a-1", data))
	equal(t, index(t, g, "desktop").Header["PACKAGES"], "1")
	many := make([]release.Entry, 4_001)
	for i := range many {
		many[i] = httpgatewaytest.Entry(t, fmt.Sprintf("x/a-%d", i), data)
	}
	next := cat.Publish("desktop", t0, many...)
	seen := map[string]bool{}
	eventually(t, func() bool {
		p := index(t, g, "desktop")
		seen[p.Header["TIMESTAMP"]] = true
		return p.Header["TIMESTAMP"] == fmt.Sprint(next.Timestamp) && len(p.Entries) == len(many)
	})
	if !seen[fmt.Sprint(old.Timestamp)] {
		t.Fatal("a request waited for a large release")
	}
}
