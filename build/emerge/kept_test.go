package emerge

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
)

// addLayer keeps one layer above others, with a file in it.
func addLayer(t *testing.T, c *layerCache, on *held, list []layerEntry, ms int64) *held {
	t.Helper()
	release, err := c.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	tmp, err := c.temp()
	if err != nil {
		t.Fatal(err)
	}
	name := list[len(list)-1].CPV.Name
	if err := os.WriteFile(filepath.Join(tmp, "fs", name), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := c.keep(t.Context(), tmp, &layer{Base: "a", Entries: list, Millis: ms}, on)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func testKey(digit string) build.Key { return build.Key(strings.Repeat(digit, 64)) }

func TestADroneTellsOfWhoseRootsItKeeps(t *testing.T) {
	roots := func(dir string) *Roots {
		return NewRoots(RootsConfig{Dir: dir, Probed: true, Log: slog.New(slog.DiscardHandler)})
	}
	dir := t.TempDir()
	r := roots(dir)
	if jobs, install := r.KeptRoots(); len(jobs) != 0 || install != unmeasured {
		t.Errorf("with nothing cached: %v, %s", jobs, install)
	}
	// One package in 3 s; two more above it in 8; another two in 40 s.
	first := addLayer(t, r.layers, &held{}, entries(1), 3000)
	second := addLayer(t, r.layers, &held{chain: slices.Clone(first.chain)}, entries(1, 2, 3), 8000)
	other := addLayer(t, r.layers, &held{}, entries(4, 5), 40_000)
	for _, n := range []struct {
		l *layer
		k build.Key
	}{{first.top(), testKey("1")}, {second.top(), testKey("2")}, {second.top(), testKey("3")}} {
		if err := r.layers.rootOf(n.l, n.k); err != nil {
			t.Fatal(err)
		}
	}
	for i, h := range []*held{other, second, first} {
		h.give()
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		for _, l := range []string{layerID("a", entries(4, 5)), layerID("a", entries(1, 2, 3)), layerID("a", entries(1))}[i : i+1] {
			if err := os.Chtimes(filepath.Join(r.layers.dir, l, "lock"), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if jobs, _ := r.KeptRoots(); len(jobs) != 0 {
		t.Errorf("the directory was read again at once: %v", jobs)
	}
	// Builds are other processes: what they wrote is found.
	jobs, install := roots(dir).KeptRoots()
	if want := []build.Key{testKey("1"), testKey("3")}; !slices.Equal(jobs, want) || install != 4*time.Second {
		t.Errorf("kept roots of %v, %s a package; want %v, the last used first, and 4 s", jobs, install, want)
	}
	// A name that is none is left out.
	if err := os.WriteFile(filepath.Join(r.layers.dir, layerID("a", entries(1)), "job"), []byte("../x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if jobs, _ := roots(dir).KeptRoots(); !slices.Equal(jobs, []build.Key{testKey("3")}) {
		t.Errorf("kept roots of %v", jobs)
	}
}
