package sources

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// swarm is some peers on a network in memory, and what each has stored.
type swarm struct {
	t     *testing.T
	peers []*Sharer
	host  map[string]*castest.Memory
	dist  []string // DISTDIR of each
}

func newSwarm(t *testing.T, n int) *swarm {
	t.Helper()
	w := &swarm{t: t, host: map[string]*castest.Memory{}}
	net := p2ptest.NewNet(1)
	for i := range n {
		host := net.Host(p2ptest.ID(i))
		store := castest.NewMemory()
		w.host[host.Self()] = store
		dir := t.TempDir()
		w.dist = append(w.dist, dir)
		s, err := Open(Config{Net: host, Store: store, Announce: func(context.Context, cid.Cid) error { return nil },
			Fetch: func(ctx context.Context, c cid.Cid, holders []string) error { return w.fetch(ctx, store, c, holders) },
			File:  filepath.Join(t.TempDir(), "sources"), Distdir: func(context.Context) string { return dir }, Poll: time.Millisecond,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		s.Serve()
		w.peers = append(w.peers, s)
		t.Cleanup(func() {
			if err := host.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return w
}

// fetch copies a blob from whoever holds it.
func (w *swarm) fetch(ctx context.Context, to cas.Store, c cid.Cid, holders []string) error {
	for id, from := range w.host {
		if holders != nil && id != holders[0] {
			continue
		}
		if b, err := from.Open(c); err == nil {
			_, err := to.Put(ctx, b, c)
			return errors.Join(err, b.Close())
		}
	}
	return cas.ErrNotFound
}

func source(name, text string) build.Source {
	sum := sha512.Sum512([]byte(text))
	return build.Source{Name: name, Size: int64(len(text)), Hash: "SHA512:" + hex.EncodeToString(sum[:])}
}

// origin is where sources come from, and how often each was asked for.
func origin(t *testing.T, files map[string]string) (url string, asked func(string) int) {
	t.Helper()
	var n sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := n.LoadOrStore(r.URL.Path, new(atomic.Int64))
		c.(*atomic.Int64).Add(1)
		_, _ = io.WriteString(w, files[strings.TrimPrefix(r.URL.Path, "/")])
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func(name string) int {
		c, ok := n.Load("/" + name)
		if !ok {
			return 0
		}
		return int(c.(*atomic.Int64).Load())
	}
}

// build does what a build does: what is not brought is downloaded, then kept.
func (w *swarm) build(i int, key, url string, list ...build.Source) error {
	dir := w.t.TempDir()
	s, job := w.peers[i], build.Key(key)
	if err := s.Bring(w.t.Context(), job, list, dir); err != nil {
		return err
	}
	defer s.Keep(w.t.Context(), job, list, dir)
	for _, src := range list {
		path := filepath.Join(dir, src.Name)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if err := download(w.t.Context(), url+"/"+src.Name, path); err != nil {
				return err
			}
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = src.Check(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func download(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func TestASourceIsDownloadedOnceForAllDrones(t *testing.T) {
	for round := range 20 { // whoever comes first
		files := map[string]string{"a.tar": fmt.Sprint("the source of a ", round), "b.tar": fmt.Sprint("of b ", round)}
		url, asked := origin(t, files)
		w := newSwarm(t, 3)
		var wg sync.WaitGroup
		for i := range w.peers {
			for slot := range 2 { // two builds at once on each
				wg.Go(func() {
					if err := w.build(i, fmt.Sprintf("job %d.%d", i, slot), url, source("a.tar", files["a.tar"]), source("b.tar", files["b.tar"])); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for name := range files {
			if n := asked(name); n != 1 {
				t.Errorf("round %d: %s was downloaded %d times by 6 builds on 3 drones", round, name, n)
			}
		}
	}
}

func TestASourceOfDISTDIRIsNotDownloaded(t *testing.T) {
	url, asked := origin(t, nil)
	w := newSwarm(t, 2)
	src := source("a.tar", "kept by Portage")
	if err := os.WriteFile(filepath.Join(w.dist[0], "a.tar"), []byte("kept by Portage"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range w.peers {
		if err := w.build(i, "job", url, src); err != nil {
			t.Error(err)
		}
	}
	if n := asked("a.tar"); n != 0 {
		t.Errorf("downloaded %d times", n)
	}
}

func TestWrongBytesAreNeverUsed(t *testing.T) {
	files := map[string]string{"a.tar": "the source"}
	url, asked := origin(t, files)
	w := newSwarm(t, 2)
	src := source("a.tar", "the source")
	// In DISTDIR: of the right length, and not the source.
	if err := os.WriteFile(filepath.Join(w.dist[1], "a.tar"), []byte("THE SOURCE"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A peer that names another blob.
	liar := w.peers[0]
	info, err := liar.cfg.Store.Put(t.Context(), strings.NewReader("the sourcE"), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	liar.index[src.Hash] = info.CID
	if err := w.build(1, "job", url, src); err != nil {
		t.Error(err)
	}
	if n := asked("a.tar"); n != 1 {
		t.Errorf("downloaded %d times, want once: nobody had it", n)
	}
	// And what a mirror sends is not shared when it is not the source.
	files["c.tar"] = "an error page"
	c := source("c.tar", "the real thing")
	if err := w.build(1, "job c", url, c); !errors.Is(err, build.ErrSource) {
		t.Errorf("a wrong file of a mirror: %v", err)
	}
	if _, ok := w.peers[1].blobOf(c); ok {
		t.Error("it is shared")
	}
}

func TestASourceThatNobodyMayDownloadComesWithTheRoundOrTheJobIsRefused(t *testing.T) {
	w := newSwarm(t, 2)
	src := source("game.run", "bought")
	src.Restricted = true
	err := w.build(1, "job", "", src)
	if !errors.Is(err, ErrRestricted) || !strings.Contains(err.Error(), "game.run") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that names the file", err)
	}
	if len(w.peers[1].marks) > 0 {
		t.Errorf("others wait for it: %v", w.peers[1].marks)
	}
	info, err := w.peers[0].cfg.Store.Put(t.Context(), strings.NewReader("bought"), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	src.CID = info.CID.String()
	if err := w.build(1, "job", "", src); err != nil {
		t.Error(err)
	}
}

func TestNobodyWaitsForWhoFailed(t *testing.T) {
	files := map[string]string{"a.tar": "the source"}
	url, asked := origin(t, files)
	w := newSwarm(t, 2)
	src := source("a.tar", "the source")
	dir := t.TempDir()
	if err := w.peers[0].Bring(t.Context(), "job", []build.Source{src}, dir); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- w.build(1, "job", url, src) }()
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	w.peers[0].Keep(t.Context(), "job", []build.Source{src}, dir) // it has downloaded nothing
	if err := <-done; err != nil || asked("a.tar") != 1 {
		t.Errorf("%v, downloaded %d times", err, asked("a.tar"))
	}
}

func TestAfterPatienceEndsItDownloadsItself(t *testing.T) {
	files := map[string]string{"a.tar": "the source"}
	url, _ := origin(t, files)
	w := newSwarm(t, 2)
	src := source("a.tar", "the source")
	if err := w.peers[0].Bring(t.Context(), "job", []build.Source{src}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	w.peers[1].cfg.Patience = time.Nanosecond
	if err := w.build(1, "job", url, src); err != nil {
		t.Error(err)
	}
}

func TestSourcesAreRememberedAcrossRestarts(t *testing.T) {
	w := newSwarm(t, 1)
	src := source("a.tar", "kept by Portage")
	if err := os.WriteFile(filepath.Join(w.dist[0], "a.tar"), []byte("kept by Portage"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, ok := w.peers[0].Distfile(t.Context(), src)
	if !ok {
		t.Fatal("it is not kept")
	}
	if err := os.Remove(filepath.Join(w.dist[0], "a.tar")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(w.peers[0].cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := again.Distfile(t.Context(), src); !ok || got != c {
		t.Errorf("after a restart: %v, %t", got, ok)
	}
	if err := w.peers[0].cfg.Store.Delete(c); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Distfile(t.Context(), src); ok {
		t.Error("it is said to be there though the blob was collected")
	}
}
