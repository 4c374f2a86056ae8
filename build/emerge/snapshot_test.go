package emerge

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/build-swarm/swarm/build/emerge/emergetest"
)

func packed(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestASnapshotIsTheTreeWhateverItsTimes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := emergetest.WriteLarge(dir, 30); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(b, "profiles/categories"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	x, y := packed(t, a), packed(t, b)
	if !bytes.Equal(x, y) {
		t.Error("equal trees have different snapshots")
	}
	digest, err := TreeDigest(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := Unpack(t.Context(), bytes.NewReader(x), to, digest); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "metadata/md5-cache/sw-large/p1-1.0")); err != nil {
		t.Errorf("the metadata cache is not in it: %v", err)
	}
	if err := Unpack(t.Context(), bytes.NewReader(x), t.TempDir(), strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), "wanted 00000000") {
		t.Errorf("another digest: %v", err)
	}
}

func TestASnapshotOfAPeerStaysInItsPlace(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"a path outside":   {Name: "../x", Typeflag: tar.TypeReg},
		"an absolute path": {Name: "/etc/x", Typeflag: tar.TypeReg},
		"a link outside":   {Name: "x", Typeflag: tar.TypeSymlink, Linkname: "../../etc"},
		"an absolute link": {Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"a device":         {Name: "x", Typeflag: tar.TypeChar},
		"a hard link":      {Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
	} {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(z)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := Unpack(t.Context(), &b, dir, strings.Repeat("0", 64)); err == nil || strings.Contains(err.Error(), "wanted") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s left %v, %v", name, left, err)
		}
	}
	if err := Unpack(t.Context(), strings.NewReader("no archive"), t.TempDir(), ""); err == nil {
		t.Error("no archive was unpacked")
	}
}

func TestATreeIsTakenOverWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	mine, theirs := filepath.Join(dir, "mine"), filepath.Join(dir, "theirs")
	for at, n := range map[string]int{mine: 3, theirs: 5} {
		if err := emergetest.WriteLarge(at, n); err != nil {
			t.Fatal(err)
		}
	}
	want, err := TreeDigest(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := packed(t, theirs)
	p := &Portage{}
	if err := p.Adopt(t.Context(), Tree{Name: "r", Path: mine}, bytes.NewReader(snapshot[:len(snapshot)/2]), want); err == nil {
		t.Error("half a snapshot was taken over")
	}
	if err := p.Adopt(t.Context(), Tree{Name: "r", Path: mine, Git: true}, bytes.NewReader(snapshot), want); err == nil || !strings.Contains(err.Error(), "git") {
		t.Errorf("a checkout: %v", err)
	}
	if _, err := os.Stat(filepath.Join(mine, "sw-large/p4")); err == nil {
		t.Error("it changed though it was not taken over")
	}
	if err := p.Adopt(t.Context(), Tree{Name: "r", Path: mine}, bytes.NewReader(snapshot), want); err != nil {
		t.Fatal(err)
	}
	if got, err := TreeDigest(t.Context(), mine); err != nil || got != want {
		t.Errorf("it is %s, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".swarm-tree-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
