package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// ebuildOf writes a repository with one ebuild.
func ebuildOf(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "app-misc/tool/tool-1.ebuild")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestABuildReadsTheRepositoriesOfItsRound(t *testing.T) {
	asker, drone := agenttest.Start(t, t.TempDir()), agenttest.Start(t, t.TempDir())
	// What the requester has is what the drone fetches.
	held := &Shelf{}
	held.Use(asker.Store, func(context.Context, cid.Cid) error { return nil }, asker.Announce)
	fetched := 0
	shelf := &Shelf{}
	shelf.Use(drone.Store, func(ctx context.Context, c cid.Cid) error {
		if _, err := drone.Store.Stat(c); err == nil {
			return nil
		}
		blob, err := asker.Store.Open(c)
		if err != nil {
			return err
		}
		defer blob.Close()
		fetched++
		_, err = drone.Store.Put(ctx, blob, c)
		return err
	}, drone.Announce)

	dir := ebuildOf(t, "EAPI=8 # the requester's\n")
	digest, err := emerge.TreeDigest(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := Snapshots{Shelf: held}
	var name string
	for range 2 { // the second time it is there
		if name, err = snapshots.Keep(t.Context(), emerge.Tree{Name: "gentoo", Path: dir, Digest: digest}); err != nil {
			t.Fatal(err)
		}
	}
	on := claims.Ground{Target: "desk", Base: build.BaseRef{Name: "b", Digest: strings.Repeat("0", 64)}, Trees: []build.Snapshot{{Name: "gentoo", Digest: digest, CID: name}}}
	on.Tree = build.TreeOf(on.Trees)

	g := &Ground{Shelf: shelf, Trees: emerge.NewTreeStore(t.TempDir(), shelf.OpenNamed), Log: drone.Log}
	for range 2 {
		var req worker.Request
		if err := g.trees(t.Context(), on, &req); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(req.Repos["gentoo"], "app-misc/tool/tool-1.ebuild"))
		if err != nil || !bytes.Contains(b, []byte("the requester's")) {
			t.Errorf("it reads %q, %v", b, err)
		}
	}
	if fetched != 1 {
		t.Errorf("the snapshot was fetched %d times", fetched)
	}

	t.Run("which nobody has", func(t *testing.T) {
		lost := on
		lost.Trees = []build.Snapshot{{Name: "gentoo", Digest: strings.Repeat("a", 64), CID: cas.Sum([]byte("lost")).String()}}
		var req worker.Request
		err := g.trees(t.Context(), lost, &req)
		f, ok := errors.AsType[*build.Failure](err)
		if !ok || f.Class != build.BadNetwork || !strings.Contains(f.Reason, "snapshot aaaaaaaa of repository gentoo") {
			t.Errorf("got %v, want the repository named and a class that others try", err)
		}
		if req.Repos != nil {
			t.Errorf("it reads %v", req.Repos)
		}
	})
	t.Run("but not under another digest", func(t *testing.T) {
		blob, err := asker.Store.Open(mustCID(t, name))
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		if err := emerge.Unpack(t.Context(), io.Reader(blob), t.TempDir(), strings.Repeat("a", 64)); err == nil {
			t.Error("it was unpacked")
		}
	})
}

func mustCID(t *testing.T, name string) cid.Cid {
	t.Helper()
	c, err := cas.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
