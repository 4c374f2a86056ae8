package emerge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
)

func testEntry(i int) layerEntry {
	return layerEntry{CPV: build.CPV{Category: "cat", Name: fmt.Sprintf("p%d", i), Version: "1"}, Slot: "0/0", From: fmt.Sprintf("key%d", i)}
}

func entries(is ...int) []layerEntry {
	var out []layerEntry
	for _, i := range is {
		out = append(out, testEntry(i))
	}
	return out
}

// TestARootIsExtendedFromTheLargestSubsetAlone: whatever is cached, what is
// chosen holds nothing that the job does not want, and nothing cached that is
// so holds more.
func TestARootIsExtendedFromTheLargestSubsetAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfDistinct(rapid.IntRange(0, 12), rapid.ID[int])
		var cached []*layer
		for i := range rapid.IntRange(0, 8).Draw(t, "layers") {
			cached = append(cached, &layer{ID: fmt.Sprint(i), Base: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "base"), Entries: entries(list.Draw(t, "layer")...)})
		}
		want := entries(list.Draw(t, "want")...)
		subset := func(l *layer) bool {
			return l.Base == "a" && !slices.ContainsFunc(l.Entries, func(e layerEntry) bool { return !slices.Contains(want, e) })
		}
		got := chooseLayer(cached, "a", want)
		if got != nil && !subset(got) {
			t.Fatalf("%v is no subset of %v", got.Entries, want)
		}
		for _, l := range cached {
			if subset(l) && (got == nil || len(l.Entries) > len(got.Entries)) {
				t.Fatalf("chose %v, there is %v", got, l.Entries)
			}
		}
	})
}

func TestWhatWasNotUsedForLongGoesFirstAndNothingThatIsStoodOn(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	a := &layer{ID: "a", Bytes: 10, used: at(1)}
	b := &layer{ID: "b", Parent: "a", Bytes: 10, used: at(2)}
	c := &layer{ID: "c", Bytes: 10, used: at(3)}
	all := []*layer{a, b, c}
	if got := evictLayers(all, 30, nil); got != nil {
		t.Errorf("it fits, and %s goes", got.ID)
	}
	if got := evictLayers(all, 20, nil); got != b {
		t.Errorf("%v goes, want b: c stands on nothing and was used later, a is stood on", got)
	}
	if got := evictLayers(all, 20, map[*layer]bool{b: true}); got != c {
		t.Errorf("%v goes while b is in use, want c", got)
	}
	if got := evictLayers([]*layer{a, b}, 0, map[*layer]bool{b: true}); got != nil {
		t.Errorf("%v goes, and is stood on", got)
	}
}

func TestTheCacheOutlivesTheProcessAndKeepsWhatIsHeld(t *testing.T) {
	dir := t.TempDir()
	c := &layerCache{dir: dir, quota: 1}
	h := addLayer(t, c, &held{}, entries(1), 0)
	h = addLayer(t, c, h, entries(1, 2), 0)
	again := &layerCache{dir: dir, quota: 1}
	got, err := again.take("a", entries(2, 1, 3))
	if err != nil || got.top() == nil || len(got.top().Entries) != 2 || len(again.stack(got)) != 2 {
		t.Fatalf("another process finds %v, %v", got, err)
	}
	// Both are held, so that the quota of one byte removes nothing.
	if err := again.evict(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := again.sizes(); n != 2 || err != nil {
		t.Errorf("%d layers are left, %v", n, err)
	}
	h.give()
	got.give()
	if err := again.evict(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := again.sizes(); n != 0 || err != nil {
		t.Errorf("%d layers are left of those that nobody holds, %v", n, err)
	}
	// What a killed process left half made goes with the next turn.
	if _, err := c.temp(); err != nil {
		t.Fatal(err)
	}
	release, err := c.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if left, err := filepath.Glob(filepath.Join(dir, "tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestDeepRootsAreFlattened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: marks of what is gone take root")
	}
	c := &layerCache{dir: t.TempDir(), quota: 1 << 40}
	h := &held{}
	var list []layerEntry
	for i := range maxDepth + 2 {
		release, err := c.takeTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tmp, err := c.temp()
		if err != nil {
			t.Fatal(err)
		}
		fs := filepath.Join(tmp, "fs")
		if err := os.MkdirAll(filepath.Join(fs, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fs, "d", fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if i == 5 { // takes away what the third had, and something of the base's
			if err := errors.Join(unix.Mknod(filepath.Join(fs, "d/3"), unix.S_IFCHR, 0), unix.Mknod(filepath.Join(fs, "base"), unix.S_IFCHR, 0)); err != nil {
				t.Skipf("SKIPPED: no marks here: %v", err)
			}
		}
		list = append(slices.Clone(list), testEntry(i))
		if h, err = c.keep(t.Context(), tmp, &layer{Base: "a", Entries: list}, h); err != nil {
			t.Fatal(err)
		}
		release()
	}
	defer h.give()
	if len(h.chain) > maxDepth {
		t.Errorf("%d layers stand over one another", len(h.chain))
	}
	seen := map[string]bool{}
	gone := map[string]bool{}
	for _, d := range c.stack(h) {
		files, err := os.ReadDir(filepath.Join(d, "d"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Type().IsRegular() && !gone[f.Name()] {
				seen[f.Name()] = true
			} else {
				gone[f.Name()] = true
			}
		}
		if st, err := os.Lstat(filepath.Join(d, "base")); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			gone["base"] = true
		}
	}
	if len(seen) != maxDepth+1 || seen["3"] || !gone["base"] {
		t.Errorf("it has %d of %d files, the removed one: %t, the mark: %t", len(seen), maxDepth+2, seen["3"], gone["base"])
	}
}
