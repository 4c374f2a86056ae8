package emerge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
)

// shelved is a store whose snapshots come from a map, and how often they were asked for.
func shelved(t *testing.T) (*TreeStore, map[string][]byte, *int) {
	t.Helper()
	blobs, asked := map[string][]byte{}, new(int)
	return NewTreeStore(filepath.Join(t.TempDir(), "trees"), func(_ context.Context, cid string) (io.ReadCloser, error) {
		*asked++
		b, ok := blobs[cid]
		if !ok {
			return nil, errors.New("no peer has it")
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}), blobs, asked
}

// snapshotOf packs a repository of n packages under the name cid.
func snapshotOf(t *testing.T, blobs map[string][]byte, cid string, n int) build.Snapshot {
	t.Helper()
	dir := t.TempDir()
	if err := emergetest.WriteLarge(dir, n); err != nil {
		t.Fatal(err)
	}
	digest, err := TreeDigest(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs[cid] = packed(t, dir)
	return build.Snapshot{Name: "gentoo", Digest: digest, CID: cid}
}

func TestASnapshotIsUnpackedOnceForAllBuilds(t *testing.T) {
	s, blobs, asked := shelved(t)
	snap := snapshotOf(t, blobs, "a", 3)
	for range 2 {
		repos, err := s.Open(t.Context(), []build.Snapshot{snap})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := TreeDigest(t.Context(), repos["gentoo"]); err != nil || got != snap.Digest {
			t.Errorf("it is %s, %v", got, err)
		}
	}
	if *asked != 1 {
		t.Errorf("fetched %d times", *asked)
	}
}

func TestASnapshotThatIsNotWhatItsNameSaysIsNotUsed(t *testing.T) {
	s, blobs, _ := shelved(t)
	snap := snapshotOf(t, blobs, "a", 3)
	other := snapshotOf(t, blobs, "b", 4)
	for name, bad := range map[string]build.Snapshot{
		"another tree":        {Name: "gentoo", Digest: snap.Digest, CID: other.CID},
		"none to be had":      {Name: "gentoo", Digest: snap.Digest, CID: "gone"},
		"a digest that is no": {Name: "gentoo", Digest: "../../etc", CID: "a"},
		"a name that is no":   {Name: "../etc", Digest: snap.Digest, CID: "a"},
	} {
		if repos, err := s.Open(t.Context(), []build.Snapshot{bad}); err == nil {
			t.Errorf("%s: %v", name, repos)
		}
	}
	left, err := os.ReadDir(s.dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestTheLeastRecentlyUsedSnapshotsGo(t *testing.T) {
	s, blobs, _ := shelved(t)
	var dirs []string
	open := func(cid string, n int) {
		t.Helper()
		snap := snapshotOf(t, blobs, cid, n)
		repos, err := s.Open(t.Context(), []build.Snapshot{snap})
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, repos["gentoo"])
		// Long ago, the first one longest.
		at := time.Now().Add(-time.Duration(100-len(dirs)) * time.Hour)
		if err := os.Chtimes(filepath.Dir(repos["gentoo"]), at, at); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (out string) {
		for i, d := range dirs {
			if _, err := os.Stat(d); err == nil {
				out += string(rune('0' + i))
			}
		}
		return out
	}
	open("a", 3)
	open("b", 4)
	open("c", 5)
	s.quota = 1
	release, err := HoldTrees(map[string]string{"gentoo": dirs[1]})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Dir(dirs[2]), now, now); err != nil { // just asked for
		t.Fatal(err)
	}
	open("d", 6)
	if got := there(); got != "123" {
		t.Errorf("there are %s, want the one that is held, the one just asked for and the new one", got)
	}
	release()
	open("e", 7)
	if got := there(); got != "24" {
		t.Errorf("there are %s", got)
	}
	if _, err := HoldTrees(map[string]string{"gentoo": dirs[0]}); err == nil || !strings.Contains(err.Error(), "gentoo") {
		t.Errorf("one that is gone was held: %v", err)
	}
}

func TestWhatAKilledProcessUnpackedHalfGoes(t *testing.T) {
	s, _, _ := shelved(t)
	if err := os.MkdirAll(filepath.Join(s.dir, "tmp-1/tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
