package gpkg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// written lists packages that real Portage (3.0.82) wrote of one installed
// package: by quickpkg, in four compressions, and signed by gpkg-sign. The
// image's names begin with "image//", which is how quickpkg writes them where
// ROOT is not "/".
func written(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/portage-*.gpkg.tar")
	if err != nil || len(names) != 5 {
		t.Fatalf("test packages: %v, %v", names, err)
	}
	out := map[string][]byte{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		kind := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(n), "portage-"), ".gpkg.tar")
		out[kind] = b
	}
	return out
}

func TestWhatPortageWritesIsRead(t *testing.T) {
	digests := map[string]bool{}
	for kind, b := range written(t) {
		p, err := check(b)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if p.CPV.String() != "app-misc/sample-hello-2.1" || p.Metadata["USE"] != "amd64 kernel_linux color" || p.Dir != "sample-hello-2.1" {
			t.Errorf("%s: %s in %s, USE %q", kind, p.CPV, p.Dir, p.Metadata["USE"])
		}
		if p.Signed != (kind == "signed") {
			t.Errorf("%s: signed %v", kind, p.Signed)
		}
		files, err := p.ListFiles(noCtx)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range files {
			names = append(names, f.Name)
		}
		if d := cmp.Diff([]string{"usr", "usr/bin", "usr/bin/sample-hello"}, names); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
		d, err := p.ContentDigest(noCtx)
		if err != nil {
			t.Fatal(err)
		}
		digests[d] = true
	}
	if len(digests) != 1 {
		t.Errorf("one content has %d digests", len(digests))
	}
}
