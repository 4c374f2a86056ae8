package httpgateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// A holder that dies in the middle is no business of the client's: curl and
// wget get the whole package in the one response that they asked for. When all
// holders are gone, they fail, and never take a part for the whole.
func TestCurlAndWgetGetTheRightBytesInOneResponse(t *testing.T) {
	clients := map[string]func(url, to string) *exec.Cmd{
		"curl": func(url, to string) *exec.Cmd { return exec.Command("curl", "-sSf", "-o", to, url) },
		"wget": func(url, to string) *exec.Cmd {
			return exec.Command("wget", "-q", "-t", "1", "-T", "20", "-O", to, url)
		},
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("SKIPPED: no %s on PATH", name)
			}
			cat := httpgatewaytest.New(t)
			asked := &requests{}
			_, addr, stop := serve(t, cat, func(c *httpgateway.Config) { c.Log, c.Stall = slog.New(asked), time.Second })
			defer func() { _ = stop() }()
			data := content(3<<20, 5)
			e := httpgatewaytest.Entry(t, "x/far-1", data)
			id := cidOf(t, e)
			var opened atomic.Int64
			dies := func(ever bool) *httpgatewaytest.Holder {
				opened.Store(0)
				return &httpgatewaytest.Holder{Data: data, Serve: func(_ context.Context, at int64, n int) (int, error) {
					if at > 1<<20 && (ever || opened.Add(1) == 1) {
						return 0, errors.New("killed")
					}
					return min(n, 64<<10), nil
				}}
			}
			cat.PutRemote(id, dies(false))
			cat.Publish("desktop", t0, e)
			_, text, err := fetch(t, "http://"+addr+"/desktop/stable/Packages")
			if err != nil {
				t.Fatal(err)
			}
			_, path, _ := strings.Cut(string(text), "PATH: ")
			path, _, _ = strings.Cut(path, "\n")
			url := "http://" + addr + "/desktop/stable/" + path
			asked.take()
			to := filepath.Join(t.TempDir(), "out")
			if out, err := client(url, to).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got, err := os.ReadFile(to)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d of %d bytes, or others: %v", len(got), len(data), err)
			}
			var list []string // a request is noted after its answer
			eventually(t, func() bool {
				for _, l := range asked.take() {
					if strings.Contains(l, "x/far/") {
						list = append(list, l)
					}
				}
				return len(list) > 0
			})
			if len(list) != 1 || !strings.HasPrefix(list[0], "200 ") {
				t.Errorf("it asked %v", list)
			}
			// Every holder dies after the first bytes: the connection is cut.
			cat.PutRemote(id, dies(true))
			if out, err := client(url, to).CombinedOutput(); err == nil {
				t.Errorf("a part is taken for the whole: %s", out)
			}
			// And before the first: an error, not an empty file.
			cat.PutRemote(id, nil)
			if out, err := client(url, to).CombinedOutput(); err == nil {
				t.Errorf("nothing is taken for the whole: %s", out)
			}
			eventually(t, func() bool { return strings.Contains(strings.Join(asked.take(), " "), "503 x/far/") })
		})
	}
}

// farCatalog has ten packages of 1 GiB with holders that send zeros.
type farCatalog struct{ *benchCatalog }

const (
	farPackages = 10
	farSize     = 1 << 30
)

func newFarCatalog() *farCatalog {
	m := &release.Manifest{Target: "far"}
	for i := range farPackages {
		m.Entries = append(m.Entries, benchEntry(fmt.Sprintf("bench/far%d-1", i), i, farSize))
	}
	m.Sort()
	return &farCatalog{&benchCatalog{shown: map[string]*release.Manifest{"far": m}}}
}

func (c *farCatalog) Targets() []string { return []string{"far"} }

func (c *farCatalog) Local(cid.Cid) (httpgateway.LocalBlob, error) { return nil, cas.ErrNotFound }

func (c *farCatalog) Open(_ context.Context, _ cid.Cid, size int64) (io.ReadSeekCloser, error) {
	return &zeros{size: size}, nil
}

type zeros struct{ off, size int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.off >= z.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.size-z.off))
	clear(p[:n])
	z.off += int64(n)
	return n, nil
}

func (z *zeros) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += z.off
	case io.SeekEnd:
		off += z.size
	}
	z.off = off
	return off, nil
}

func (z *zeros) Close() error { return nil }

// BenchmarkMemory streams ten packages of 1 GiB that are elsewhere at once, and
// reports the most memory that this process, client included, had from the
// system meanwhile. The bar is 256 MiB.
func BenchmarkMemory(b *testing.B) {
	g, err := httpgateway.New(httpgateway.Config{Catalog: newFarCatalog(), CacheDir: b.TempDir(), Listen: []string{"127.0.0.1:0"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.Listen(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	base := "http://" + g.Addrs()[0] + "/far/stable/"
	_, text, err := fetch(b, base+"Packages")
	if err != nil {
		b.Fatal(err)
	}
	var paths []string
	for line := range strings.Lines(string(text)) {
		if p, ok := strings.CutPrefix(line, "PATH: "); ok {
			paths = append(paths, strings.TrimSpace(p))
		}
	}
	var most uint64
	for b.Loop() {
		eg, ctx := errgroup.WithContext(ctx)
		done := make(chan struct{})
		for _, p := range paths {
			eg.Go(func() error {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+p, nil)
				if err != nil {
					return err
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					return err
				}
				n, err := io.Copy(io.Discard, res.Body)
				if err = errors.Join(err, res.Body.Close()); err == nil && n != farSize {
					err = fmt.Errorf("%d bytes", n)
				}
				return err
			})
		}
		go func() { defer close(done); err = eg.Wait() }()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(20 * time.Millisecond):
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.Sys)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(farPackages * farSize)
	b.ReportMetric(float64(most)/(1<<20), "MiB-peak")
	b.ReportMetric(float64(most)/(256<<20), "x-bar")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

func cidOf(t testing.TB, e release.Entry) cid.Cid {
	t.Helper()
	c, err := cas.Parse(e.Artifact.CID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
