package binhost

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
)

func cidOf(s string) string { return cas.Sum([]byte(s)).String() }

func entry(t testing.TB, key, cpv, slot string, meta ...build.Pair) release.Entry {
	t.Helper()
	c, err := build.ParseCPV(cpv)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(key))
	slices.SortFunc(meta, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
	return release.Entry{
		Key: build.Key(hex.EncodeToString(sum[:])), CPV: c, Slot: slot, Keywords: "amd64 ~arm64",
		Artifact: build.Artifact{CID: cidOf(key), Size: 12345, MTime: 1700000001,
			MD5: strings.Repeat("a", 32), SHA1: strings.Repeat("b", 40), Meta: meta},
	}
}

func manifest(t testing.TB, header []build.Pair, es ...release.Entry) *release.Manifest {
	t.Helper()
	m, held, err := release.Compose(nil, es, release.Options{Target: "desktop", Header: header})
	if err != nil || len(held) > 0 {
		t.Fatal(err, held)
	}
	return &m
}

var head = release.Channel{Target: "desktop", Name: "stable", Version: 1, Release: cidOf("release"), Timestamp: 1700000100}

func TestIndexIsWrittenAsPortageWritesIt(t *testing.T) {
	m := manifest(t,
		[]build.Pair{{Name: "ARCH", Value: "amd64"}, {Name: "CHOST", Value: "x86_64-pc-linux-gnu"}, {Name: "FEATURES", Value: "x"},
			{Name: "GENTOO_MIRRORS", Value: "http://mirror"}, {Name: "TIMESTAMP", Value: "9"}, {Name: "URI", Value: "http://elsewhere"},
			{Name: "USE_EXPAND_VALUES_ARCH", Value: "amd64"}, {Name: "repository", Value: "gentoo"}},
		entry(t, "b", "x/b-1", "0", build.Pair{Name: "CHOST", Value: "aarch64-linux"}, build.Pair{Name: "REPO", Value: "overlay"}),
		entry(t, "a", "x/a-1-r1", "0/2",
			build.Pair{Name: "BUILD_ID", Value: "1"}, build.Pair{Name: "BUILD_TIME", Value: "1699999999"}, build.Pair{Name: "CHOST", Value: "x86_64-pc-linux-gnu"},
			build.Pair{Name: "DESC", Value: "A  program"}, build.Pair{Name: "EAPI", Value: "8"}, build.Pair{Name: "FETCHCOMMAND", Value: "sh"},
			build.Pair{Name: "KEYWORDS", Value: "from the package"}, build.Pair{Name: "PATH", Value: "../../x"}, build.Pair{Name: "RDEPEND", Value: ""},
			build.Pair{Name: "REPO", Value: "gentoo"}, build.Pair{Name: "SHA256", Value: "00"}, build.Pair{Name: "SLOT", Value: "0/2"}, build.Pair{Name: "USE", Value: "amd64 foo"}),
	)
	got, err := Render(m, head)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := New(m)
	id := func(i int) string { return strconv.Itoa(int(x.Items()[i].BuildID)) }
	want := `ARCH: amd64
CHOST: x86_64-pc-linux-gnu
PACKAGES: 2
TIMESTAMP: 1700000100
TTL: 1
USE_EXPAND_VALUES_ARCH: amd64
VERSION: 0
REPO: gentoo

BUILD_ID: ` + id(0) + `
BUILD_TIME: 1699999999
CPV: x/a-1-r1
DESC: A program
EAPI: 8
KEYWORDS: amd64 ~arm64
MD5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
PATH: x/a/a-1-r1-` + id(0) + `.gpkg.tar
SHA1: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
SIZE: 12345
SLOT: 0/2
USE: amd64 foo
MTIME: 1700000001

BUILD_ID: ` + id(1) + `
CHOST: aarch64-linux
CPV: x/b-1
KEYWORDS: amd64 ~arm64
MD5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
PATH: x/b/b-1-` + id(1) + `.gpkg.tar
SHA1: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
SIZE: 12345
MTIME: 1700000001
REPO: overlay

`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Fatal(d)
	}
}

func TestTargetMayRaiseTTL(t *testing.T) {
	for value, want := range map[string]string{"60": "60", "0": "1", "-5": "1", "999999": "1", "x": "1"} {
		b, err := Render(manifest(t, []build.Pair{{Name: "TTL", Value: value}}), head)
		if err != nil || !strings.Contains(string(b), "\nTTL: "+want+"\n") {
			t.Errorf("TTL %s: %v\n%s", value, err, b)
		}
	}
}

func TestBuildIDIsTakenFromTheCIDAndMovesOnCollision(t *testing.T) {
	var d [32]byte
	for i := range d {
		d[i] = 0xff
	}
	for n := range buildIDs {
		if got := buildID(d, n); got != 1<<31-1 {
			t.Fatalf("run %d of ones: %#x", n, got)
		}
	}
	d = [32]byte{0x80, 0, 0, 1, 0xc0, 0, 0, 4}
	if a, b := buildID(d, 0), buildID(d, 1); a != 0x40000000 || b != 0x70000001 {
		t.Fatalf("%#x %#x", a, b)
	}

	sum := [32]byte{0x12, 0x34, 0x56, 0x78, 1}
	other := sum
	other[31] = 1
	other[5] = 0x77
	a := entry(t, "a", "x/a-1", "0", build.Pair{Name: "USE", Value: "a"})
	b := entry(t, "b", "x/a-1", "0", build.Pair{Name: "USE", Value: "b"})
	c := entry(t, "c", "x/a-2", "0")
	a.Artifact.CID, b.Artifact.CID, c.Artifact.CID = cas.NewCID(sum).String(), cas.NewCID(other).String(), cas.NewCID(other).String()
	x, err := New(manifest(t, nil, a, b, c))
	if err != nil {
		t.Fatal(err)
	}
	ids := []uint32{x.Items()[0].BuildID, x.Items()[1].BuildID, x.Items()[2].BuildID}
	if ids[0] != 0x12345678>>1 || ids[1] != buildID(other, 1) || ids[2] != ids[0] {
		t.Fatalf("%#x", ids)
	}
	a.Artifact.CID = cas.NewCID([32]byte{31: 1}).String()
	if _, err := New(manifest(t, nil, a)); !errors.Is(err, release.ErrInvalid) {
		t.Fatalf("a CID without a bit to spare: %v", err)
	}
}

func TestInvalidManifestIsNotRendered(t *testing.T) {
	m := manifest(t, nil, entry(t, "a", "x/a-1", "0"))
	m.Entries[0].CPV.Version = "1\nPATH: x"
	if _, err := Render(m, head); !errors.Is(err, release.ErrInvalid) {
		t.Fatal(err)
	}
}

func TestRenderedIndexReadsBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringMatching(`[ -~]{0,30}`)
		n := rapid.IntRange(0, 8).Draw(rt, "n")
		var es []release.Entry
		for i := range n {
			e := entry(t, fmt.Sprint("k", i), fmt.Sprintf("x/p%d-%d", rapid.IntRange(0, 2).Draw(rt, "p"), rapid.IntRange(0, 2).Draw(rt, "v")), "0",
				build.Pair{Name: "DESC", Value: value.Draw(rt, "desc")}, build.Pair{Name: "RDEPEND", Value: value.Draw(rt, "rdep")},
				build.Pair{Name: "USE", Value: fmt.Sprint("u", i)})
			e.Keywords = value.Draw(rt, "kw")
			es = append(es, e)
		}
		m := manifest(t, []build.Pair{{Name: "CHOST", Value: value.Draw(rt, "chost")}}, es...)
		b, err := Render(m, head)
		if err != nil {
			rt.Fatal(err)
		}
		again, _ := Render(m, head)
		if !bytes.Equal(b, again) {
			rt.Fatal("two renderings differ")
		}
		p, err := Parse(bytes.NewReader(b))
		if err != nil {
			rt.Fatal(err)
		}
		if len(p.Entries) != n || p.Header["PACKAGES"] != strconv.Itoa(n) || p.Header["TIMESTAMP"] != "1700000100" {
			rt.Fatalf("%v, %d entries of %d", p.Header, len(p.Entries), n)
		}
		x, _ := New(m)
		paths := x.Paths()
		if len(paths) != n {
			rt.Fatalf("%d paths for %d entries", len(paths), n)
		}
		for _, e := range p.Entries {
			it, ok := paths[e["PATH"]]
			if !ok || strconv.FormatInt(it.Size, 10) != e["SIZE"] || strconv.FormatInt(it.MTime, 10) != e["MTIME"] {
				rt.Fatalf("%v", e)
			}
			for _, must := range []string{"CPV", "PATH", "BUILD_ID", "MD5", "SHA1"} {
				if e[must] == "" {
					rt.Fatalf("no %s in %v", must, e)
				}
			}
		}
	})
}

func TestParseReadsAsPortageDoes(t *testing.T) {
	p, err := Parse(strings.NewReader("VERSION: 0\nTTL:5\nnonsense\n\nDESC: no name\n\nCPV: x/a-1\nDESC: a: b\n\nCPV: x/b-1\n\n\nCPV: x/after-1\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Packages{Header: Block{"VERSION": "0", "TTL": "5"}, Entries: []Block{{"CPV": "x/a-1", "DESC": "a: b"}, {"CPV": "x/b-1"}}}
	if d := cmp.Diff(want, p); d != "" {
		t.Fatal(d)
	}
}

func TestParseRefusesWhatIsNoWholeIndex(t *testing.T) {
	for name, in := range map[string]string{
		"empty": "", "HTML": "<html>", "version": "VERSION: 1\n\n", "cut": "VERSION: 0\n\nCPV: x/a-1\nSIZ",
		"long line": "VERSION: 0\n\nCPV: " + strings.Repeat("x", maxLine+1) + "\n", "long block": "VERSION: 0\n" + many(maxLines+1),
	} {
		if _, err := Parse(strings.NewReader(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := io.MultiReader(strings.NewReader("VERSION: 0\n\n"), errReader{})
	if _, err := Parse(broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "K%d: v\n", i)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	b, err := Render(manifest(f, []build.Pair{{Name: "CHOST", Value: "c"}}, entry(f, "a", "x/a-1", "0")), head)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("VERSION: 0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(bytes.NewReader(b))
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if err == nil && p.Header["VERSION"] != "0" {
			t.Fatal("no header")
		}
	})
}

// No value, whatever it holds, adds a line or a block to an index.
func FuzzValueStaysOnItsLine(f *testing.F) {
	f.Add("x\nPATH: y")
	f.Add("a\r\n\r\nCPV: x/evil-1")
	f.Add("\u2028\u0085\x0b\x0c\x1c")
	f.Fuzz(func(t *testing.T, v string) {
		b := appendBlock(nil, []build.Pair{{Name: "DESC", Value: oneLine(v)}, {Name: "CPV", Value: "x/a-1"}})
		if bytes.Count(b, []byte("\n")) > 3 || bytes.ContainsAny(b, "\r\v\f\x00\x1c\x1d\x1e\u0085\u2028\u2029") {
			t.Fatalf("%q", b)
		}
	})
}

func BenchmarkRender(b *testing.B) {
	for _, n := range []int{2_000, 20_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var es []release.Entry
			for i := range n {
				es = append(es, entry(b, fmt.Sprint(i), fmt.Sprintf("cat-%d/package%d-%d.%d", i%150, i, i%9, i%30), "0",
					build.Pair{Name: "BUILD_TIME", Value: "1699999999"}, build.Pair{Name: "EAPI", Value: "8"},
					build.Pair{Name: "DEPEND", Value: strings.Repeat(">=dev-libs/lib-1.0:0/2= ", 10)},
					build.Pair{Name: "RDEPEND", Value: strings.Repeat(">=dev-libs/lib-1.0 ", 10)},
					build.Pair{Name: "USE", Value: "amd64 elibc_glibc kernel_linux ssl zlib"}))
			}
			m := manifest(b, nil, es...)
			b.ResetTimer()
			for range b.N {
				out, err := Render(m, head)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(out)))
			}
		})
	}
}
