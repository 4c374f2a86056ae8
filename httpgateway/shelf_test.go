package httpgateway_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/httpgatewaytest"
)

// listCatalog has one target and no packages to fetch.
type listCatalog struct {
	benchCatalog
	head release.Channel
	m    *release.Manifest
	here map[[32]byte]bool // by digest, as the daemon's catalog has what others hold
}

func (c *listCatalog) Targets() []string { return []string{"desktop"} }

func (c *listCatalog) Head(string, string) (release.Channel, *release.Manifest, error) {
	return c.head, c.m, nil
}

func (c *listCatalog) Available(id cid.Cid) bool {
	d, err := cas.Digest(id)
	return err == nil && c.here[d]
}

// show moves the head to a release of these entries as the daemon's catalog does:
// decoded, and sharing with the one before.
func (c *listCatalog) show(t testing.TB, entries []release.Entry, header ...build.Pair) {
	t.Helper()
	m := &release.Manifest{Target: "desktop", Header: header, Entries: slices.Clone(entries)}
	m.Sort()
	enc, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	old := c.m
	if c.m, err = release.Decode(enc); err != nil {
		t.Fatal(err)
	}
	c.m.Share(old)
	if c.here == nil {
		c.here = map[[32]byte]bool{}
	}
	for _, e := range entries {
		d, err := release.Digest(e.Artifact.CID)
		if err != nil {
			t.Fatal(err)
		}
		c.here[d] = true
	}
	prev := c.head
	if prev.IsZero() {
		prev = release.Channel{Target: "desktop", Name: release.Stable}
	}
	c.head = release.Next(&prev, cas.Sum(enc).String(), t0)
}

func listEntry(i int) release.Entry {
	return benchEntry(fmt.Sprintf("cat%d/package%d-%d.%d", i%150, i, i%9, i%30), i, 1000)
}

func listGateway(t testing.TB, c *listCatalog) *httpgateway.Gateway {
	t.Helper()
	g, err := httpgateway.New(httpgateway.Config{Catalog: c, CacheDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A gateway that has followed a target for long and one that has just come show
// the same bytes under the same names, and any range of them.
func TestAnIndexThatGrewIsTheOneMadeAtOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var c listCatalog
	old := listGateway(t, &c)
	shown := map[int]release.Entry{}
	for i := range 600 {
		shown[i] = listEntry(i)
	}
	header := []build.Pair{{Name: "ARCH", Value: "amd64"}, {Name: "CHOST", Value: "x86_64-pc-linux-gnu"}}
	for round := range 15 {
		switch round % 5 {
		case 0:
			for range 20 {
				i := random.IntN(900)
				shown[i] = listEntry(i)
			}
		case 1:
			for range 10 {
				delete(shown, random.IntN(900))
			}
		case 2: // only what the tree says of one changes
			i := slices.Sorted(maps.Keys(shown))[random.IntN(len(shown))]
			e := shown[i]
			e.Keywords = fmt.Sprintf("amd64 ~arm%d", round)
			shown[i] = e
		case 3: // a second instance of one CPV
			e := listEntry(round)
			other := benchEntry(fmt.Sprintf("other/x-%d", round), 1, 1000)
			e.Key, e.Artifact.CID = other.Key, other.Artifact.CID
			e.Artifact.Meta = slices.Clone(e.Artifact.Meta)
			e.Artifact.Meta[len(e.Artifact.Meta)-1].Value = "amd64 debug"
			shown[10_000+round] = e
		case 4:
			header[1].Value = fmt.Sprintf("x86_64-pc-linux-gnu%d", round/10) // not each time
		}
		c.show(t, slices.Collect(maps.Values(shown)), header...)
		fresh := listGateway(t, &c)
		for _, name := range []string{"Packages", "Packages.gz"} {
			p := "/desktop/stable/" + name
			a, b := get(t, old, p), get(t, fresh, p)
			grown := want(t, a, 200)
			if !bytes.Equal(grown, want(t, b, 200)) || a.Header.Get("Etag") != b.Header.Get("Etag") || a.Header.Get("Content-Length") != b.Header.Get("Content-Length") {
				t.Fatalf("round %d: %s differs", round, name)
			}
			from := random.IntN(len(grown))
			to := from + random.IntN(len(grown)-from)
			if got := want(t, get(t, old, p, "Range", fmt.Sprintf("bytes=%d-%d", from, to)), 206); !bytes.Equal(got, grown[from:to+1]) {
				t.Fatalf("round %d: %s from %d to %d differs", round, name, from, to)
			}
			if name == "Packages.gz" {
				z, err := gzip.NewReader(bytes.NewReader(grown))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(z)
				if err != nil || !bytes.Equal(text, want(t, get(t, old, "/desktop/stable/Packages"), 200)) {
					t.Fatalf("round %d: unpacks to something else: %v", round, err)
				}
			}
		}
		x := index(t, old, "desktop")
		if len(x.Entries) != len(shown) || x.Header["PACKAGES"] != fmt.Sprint(len(shown)) {
			t.Fatalf("round %d: %d entries, %s in the header, want %d", round, len(x.Entries), x.Header["PACKAGES"], len(shown))
		}
	}
}

// The same through a socket, where sendfile takes the parts of a file.
func TestAnIndexThatGrewIsSentWhole(t *testing.T) {
	var c listCatalog
	g, err := httpgateway.New(httpgateway.Config{Catalog: &c, CacheDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := telling(t, g)
	var entries []release.Entry
	for i := range 1500 {
		entries = append(entries, listEntry(i))
		if i > 1000 && i%250 == 0 {
			c.show(t, entries)
			if _, got, err := fetch(t, "http://"+addr+"/desktop/stable/Packages"); err != nil || !bytes.Equal(got, want(t, get(t, listGateway(t, &c), "/desktop/stable/Packages"), 200)) {
				t.Fatalf("%d entries: %d bytes, %v", i+1, len(got), err)
			}
		}
	}
}

// A package that left the index is served for as many generations as before,
// also by a gateway that took up what one before it had added to.
func TestAPathOutlivesItsEntryBy32Generations(t *testing.T) {
	cat := httpgatewaytest.New(t)
	stays, leaves := content(10, 1), content(10, 2)
	cat.PutLocal(stays)
	cat.PutLocal(leaves)
	cache := t.TempDir()
	gateway := func() *httpgateway.Gateway {
		return newGateway(t, cat, func(c *httpgateway.Config) { c.CacheDir = cache })
	}
	keep, gone := httpgatewaytest.Entry(t, "x/stays-1", stays), httpgatewaytest.Entry(t, "x/leaves-1", leaves)
	cat.Publish("desktop", t0, keep, gone)
	g := gateway()
	var path string
	for _, e := range index(t, g, "desktop").Entries {
		if e["CPV"] == "x/leaves-1" {
			path = "/desktop/stable/" + e["PATH"]
		}
	}
	for turn := 1; turn <= 32; turn++ {
		cat.Publish("desktop", t0, keep)
		index(t, g, "desktop")
		if turn == 16 {
			g = gateway() // what it knows comes from the disk, and it begins a shelf of its own
		}
		status := 200
		if turn == 32 {
			status = 404
		}
		for _, g := range []*httpgateway.Gateway{g, gateway()} {
			if got := get(t, g, path).StatusCode; got != status {
				t.Errorf("generation %d: status %d, want %d", turn, got, status)
			}
		}
	}
	cat.Publish("desktop", t0, keep, gone)
	index(t, g, "desktop")
	if !bytes.Equal(want(t, get(t, g, path), 200), leaves) {
		t.Error("listed again, it is something else")
	}
}

// What a crash leaves behind a shelf's end is nobody's.
func TestBytesThatNoHeadNamesAreNotShown(t *testing.T) {
	var c listCatalog
	cache := t.TempDir()
	gateway := func() *httpgateway.Gateway {
		g, err := httpgateway.New(httpgateway.Config{Catalog: &c, CacheDir: cache, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	entries := []release.Entry{listEntry(1), listEntry(2)}
	c.show(t, entries)
	g := gateway()
	index(t, g, "desktop")
	for round := range 3 {
		files, err := filepath.Glob(filepath.Join(cache, "*", "g-*", "P*"))
		if err != nil || len(files) < 2 {
			t.Fatal(files, err)
		}
		for _, name := range files {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString("half a chunk")
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		entries = append(entries, listEntry(10+round))
		c.show(t, entries)
		good := want(t, get(t, listGateway(t, &c), "/desktop/stable/Packages.gz"), 200)
		for _, g := range []*httpgateway.Gateway{g, gateway()} {
			if !bytes.Equal(want(t, get(t, g, "/desktop/stable/Packages.gz"), 200), good) {
				t.Fatalf("round %d: other bytes", round)
			}
		}
	}
}
