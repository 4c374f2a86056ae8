package daemon

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// cacheLayer writes a cached root as a build's own process leaves it.
func cacheLayer(t *testing.T, state, id string, job build.Key, packages int, ms int64) {
	t.Helper()
	type entry struct {
		CPV, Slot, From string
	}
	var list []entry
	for range packages {
		list = append(list, entry{"app-misc/x-1", "0", string(job)})
	}
	b, err := json.Marshal(map[string]any{"id": id, "base": "b", "entries": list, "ms": ms})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(state, "roots", "layers", id)
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "layer.json"), b, 0o644),
		os.WriteFile(filepath.Join(dir, "lock"), nil, 0o644), os.WriteFile(filepath.Join(dir, "job"), []byte(job), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// From the cache on disk, through the builder of the daemon and the pool of builds'
// own processes, to what other peers read.
func TestTheBeatOfADroneNamesTheRootsItKeeps(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	state := t.TempDir()
	job := agenttest.Job(t, "app")
	cacheLayer(t, state, "0123", job.Key, 2, 9000)

	roots := rootTools{State: state}
	b := &Builders{Build: map[build.Builder]worker.Builder{
		build.BuilderPortage: tools{Roots: roots}.ebuilds(nil, roots.roots(roots.bases(&Shelf{}), nil, true, p.Log), p.Log),
	}}
	pool, err := b.Apart([]string{"/bin/false"}, filepath.Join(state, "work"), time.Second, p.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	w, err := worker.New(worker.Config{Self: p.Self, Board: p.Board, Store: p.Store, Builders: b.Build, Dir: filepath.Join(state, "jobs"),
		Pending: filepath.Join(state, "pending"), Slots: 1, Speed: 1000, Log: p.Log})
	if err != nil {
		t.Fatal(err)
	}
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		report := claims.Beat{Nick: "me", Slots: 1, Speed: 1000, Accepting: true}
		report.Roots, report.InstallMS = w.KeptRoots()
		return []claims.Event{claims.Report{Beat: report}}
	})
	p.Until("the Beat names the root", func(r *claims.Replica, now claims.Now) bool {
		me := r.Peers(now)[0].Beat
		return len(me.Roots) == 1 && hex.EncodeToString(me.Roots[0]) == string(job.Key) && me.InstallMS == 4500
	})
}
