package emerge

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/cas"
)

// shelf is a swarm's blobs in memory.
type shelf struct {
	mu   sync.Mutex
	have map[cid.Cid][]byte
}

func newShelf() *shelf { return &shelf{have: map[cid.Cid][]byte{}} }

func (s *shelf) Open(_ context.Context, c cid.Cid) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.have[c]
	if !ok {
		return nil, cas.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *shelf) Put(_ context.Context, r io.Reader) (cas.Info, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return cas.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := cas.Sum(b)
	s.have[c] = b
	return cas.Info{CID: c, Size: int64(len(b))}, nil
}

// lab is a machine that builds in given roots, on its own root as base.
type lab struct {
	p     *Portage
	roots *Roots
	bases *base.Store
	ref   build.BaseRef
	files map[build.Key]string
	store string
}

// newLab finds real Portage and proves isolation, or skips.
func newLab(t *testing.T) *lab {
	t.Helper()
	cfg := testConfig(t)
	cfg.EPrefix, cfg.BuildPrefix = "", ""
	p := real(t, cfg)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the machine's own root as a base wants root")
	}
	dir := t.TempDir()
	bases := base.New(filepath.Join(dir, "bases"), newShelf(), "amd64", cfg.ConfigRoot)
	roots := NewRoots(RootsConfig{Bases: bases, Dir: dir, Own: p, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := roots.Probe(t.Context()); err != nil {
		t.Skipf("SKIPPED, NO SANDBOXES HERE: %v", err)
	}
	ref, err := bases.AddHost(t.Context(), "host", p.Version)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{p: p, roots: roots, bases: bases, ref: ref, files: map[build.Key]string{}, store: t.TempDir()}
}

func (l *lab) plan(t *testing.T, atoms ...string) *build.Plan {
	t.Helper()
	plan, err := l.p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: atoms, Base: l.ref})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// build builds one job and keeps its package.
func (l *lab) build(t *testing.T, j build.Job) error {
	t.Helper()
	req := request(t, j, l.files)
	req.Base = l.ref
	res, err := l.roots.Build(t.Context(), req)
	if err != nil {
		return err
	}
	l.files[j.Key] = filepath.Join(l.store, string(j.Key)+".gpkg.tar")
	t.Logf("%s: %d ms of CPU, peak %d MiB, root of %d in %d ms", j.CPV, res.CoreMillis, res.PeakMiB, j.Root.Len(), res.RootMillis)
	return copyFile(res.Path, l.files[j.Key])
}

func TestRealGivenRoots(t *testing.T) {
	l := newLab(t)
	for _, j := range l.plan(t, "app-misc/tally", "app-misc/tally-tools").Jobs {
		if err := l.build(t, j); err != nil {
			t.Fatal(err)
		}
	}
	n, bytes, err := l.roots.Cached()
	t.Logf("%d layers, %d bytes", n, bytes)
	if err != nil || n == 0 {
		t.Errorf("%d roots are cached, %v", n, err)
	}
}
