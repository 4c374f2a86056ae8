package publish

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

func TestAReleaseIsBroughtToTheMachineThatHasItsPackagesInstalled(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	set := release.Installed{Target: "t", Packages: []release.InstalledPackage{{CPV: build.CPV{Category: "x", Name: "app", Version: "1"}, Slot: "0"}}}
	if err := Subscribe(t.Context(), p.Board, p.Store, p.Announce, &set); err != nil {
		t.Fatal(err)
	}
	pub := publisher(p)
	lib := version(t, "x/lib-1")
	app := version(t, "x/app-2", lib)
	other := version(t, "x/other-1")
	ask(p, "r1", lib, app, other)
	far := map[cid.Cid]string{}
	for _, j := range []build.Job{lib, app, other} {
		built(t, p, j)
	}
	out := finalize(t, pub)
	// The packages go elsewhere; what is fetched comes back.
	for _, e := range out.Manifest.Entries {
		c, err := cas.Parse(e.Artifact.CID)
		if err != nil {
			t.Fatal(err)
		}
		far[c] = e.CPV.Name
		if err := p.Store.Delete(c); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	got := map[string]int{}
	done := make(chan int, 10)
	pre := &Prefetcher{Board: p.Board, Store: p.Store, Wait: time.Millisecond, Done: func(_ string, n int) { done <- n }, Fetch: func(ctx context.Context, c cid.Cid) error {
		mu.Lock()
		defer mu.Unlock()
		name, ok := far[c]
		if !ok {
			return p.NoPeers(ctx, c)
		}
		if got[name]++; got[name] == 1 && name == "lib" {
			return errors.New("its holder is away for a moment")
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- pre.Run(ctx) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it never has all")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got["app"] == 0 || got["lib"] < 2 || got["other"] != 0 {
		t.Errorf("fetched %v: want the newer app, its lib, and not what is not installed", got)
	}
}
