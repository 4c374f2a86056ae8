package base

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsageIsWhatADirectoryTakesOnDisk(t *testing.T) {
	dir := t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	empty, err := Usage(t.Context(), dir)
	must(err)
	must(os.MkdirAll(filepath.Join(dir, "a/b"), 0o700), os.WriteFile(filepath.Join(dir, "a/b/data"), make([]byte, 3<<20), 0o600))
	must(os.Link(filepath.Join(dir, "a/b/data"), filepath.Join(dir, "a/again")))
	must(os.Symlink("/", filepath.Join(dir, "a/elsewhere")), os.Symlink("b", filepath.Join(dir, "a/c")))
	hole, err := os.Create(filepath.Join(dir, "hole"))
	must(err)
	must(hole.Truncate(1<<40), hole.Close())
	n, err := Usage(t.Context(), dir)
	must(err)
	if n -= empty; n < 3<<20 || n > 3<<20+256<<10 {
		t.Errorf("3 MiB under two names, a hole and two links take %d bytes", n)
	}
	if _, err := Usage(t.Context(), filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there takes something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Usage(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("it goes on: %v", err)
	}
}

func TestUsageGoesNoDeeperThanItHasDescriptorsFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", 2*deepest)), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Usage(t.Context(), dir); err != nil {
		t.Error(err)
	}
}
