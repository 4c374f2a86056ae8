package binhost

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// An index that real Portage wrote into its PKGDIR, made into a release and
// written again, is the same lines in the same order, but for those that are
// ours to set or not safe to pass on.
func TestRecordedPortageIndexIsWrittenAgainLineByLine(t *testing.T) {
	text, err := os.ReadFile("testdata/Packages.portage-3.0.82")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	pairs := func(b Block, skip ...string) []build.Pair {
		var out []build.Pair
		for name, value := range b {
			if !slices.Contains(skip, name) {
				out = append(out, build.Pair{Name: name, Value: value})
			}
		}
		slices.SortFunc(out, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
		return out
	}
	var es []release.Entry
	for i, b := range p.Entries {
		slot := b["SLOT"]
		if slot == "" {
			slot = "0"
		}
		e := entry(t, fmt.Sprint(i), b["CPV"], slot, pairs(b, "CPV", "KEYWORDS")...)
		e.Keywords = b["KEYWORDS"]
		e.Artifact.MD5, e.Artifact.SHA1 = b["MD5"], b["SHA1"]
		e.Artifact.Size, _ = strconv.ParseInt(b["SIZE"], 10, 64)
		e.Artifact.MTime, _ = strconv.ParseInt(b["MTIME"], 10, 64)
		es = append(es, e)
	}
	got, err := Render(manifest(t, pairs(p.Header), es...), head)
	if err != nil {
		t.Fatal(err)
	}
	// Entries of one CPV stand in any order.
	lines := func(text []byte) []string {
		blocks := strings.Split(string(text), "\n\n")
		for i, b := range blocks {
			var keep []string
			for line := range strings.SplitSeq(b, "\n") {
				switch name, _, _ := strings.Cut(line, ":"); name {
				case "BUILD_ID", "PATH", "REPO_REVISIONS", "FEATURES", "GENTOO_MIRRORS", "TIMESTAMP", "TTL":
				default:
					keep = append(keep, line)
				}
			}
			blocks[i] = strings.Join(keep, "\n")
		}
		slices.Sort(blocks[1:])
		return blocks
	}
	if d := cmp.Diff(lines(text), lines(got)); d != "" {
		t.Fatal(d)
	}
}
