package exchange

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/p2p/p2ptest"
	"github.com/ipfs/go-cid"
)

// flippedEnv is how many blobs TestAFlippedBitIsNeitherServedNorKept damages.
const flippedEnv = "EXCHANGE_TEST_FLIPPED"

// One bit flips in each of many blobs of one holder, the holder crashes, and comes
// back: it serves none of them, finds all of them, and has all of them again from
// the other.
func TestAFlippedBitIsNeitherServedNorKept(t *testing.T) {
	blobs := 40
	if n, err := strconv.Atoi(os.Getenv(flippedEnv)); err == nil {
		blobs = n
	}
	net := p2ptest.NewNet(1)
	me, bad, good := net.Host("me"), net.Host("bad"), net.Host("good")
	dir := t.TempDir()
	open := func(d string) *disk.Store {
		t.Helper()
		s, err := disk.Open(d, disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	damaged, sound := open(dir), open(t.TempDir())
	rng := rand.New(rand.NewPCG(1, 1))
	var names []cid.Cid
	for i := range blobs {
		data := castest.Blob(1+rng.IntN(200_000), byte(i))
		data = append(data, strconv.Itoa(i)...)
		for _, s := range []*disk.Store{damaged, sound} {
			info, err := s.Put(t.Context(), bytes.NewReader(data), cid.Undef)
			if err != nil {
				t.Fatal(err)
			}
			if s == damaged {
				names = append(names, info.CID)
			}
		}
	}
	if err := damaged.Close(); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".bao") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		flipped++
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil || flipped != blobs {
		t.Fatalf("%d of %d are damaged: %v", flipped, blobs, err)
	}
	if err := os.Remove(filepath.Join(dir, "clean")); err != nil { // as after a crash
		t.Fatal(err)
	}
	damaged = open(dir)
	Serve(bad, damaged, nil)
	Serve(good, sound, nil)

	// None is served, neither to a peer nor to a reader of the same machine.
	f := NewFetcher(me, nil)
	for _, c := range names[:blobs/2] {
		into := castest.NewMemory()
		if err := f.Fetch(wait(t), c, []string{"bad"}, into); !errors.Is(err, ErrNoHolder) {
			t.Fatalf("%s: a damaged blob comes from the peer: %v", c, err)
		}
		if _, err := damaged.Open(c); !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrNotFound) {
			t.Fatalf("%s: a damaged blob is opened: %v", c, err)
		}
	}
	// All that nobody asked for are found, too.
	found := blobs / 2
	for i, err := range damaged.Checks(t.Context(), 0) {
		if !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s: %v", i.CID, err)
			continue
		}
		found++
	}
	// And healed from the other holder.
	mend := NewFetcher(bad, nil)
	began := time.Now()
	for _, c := range names {
		if err := mend.Fetch(wait(t), c, []string{"bad", "good"}, damaged); err != nil {
			t.Fatalf("%s is not healed: %v", c, err)
		}
		if got := content(t, damaged, c); cas.Sum(got) != c {
			t.Fatalf("%s is healed with other bytes", c)
		}
	}
	if found != blobs {
		t.Errorf("%d of %d were found", found, blobs)
	}
	t.Logf("%d blobs with a flipped bit: none served, %d found, all healed in %v", blobs, found, time.Since(began))
	for _, err := range []error{me.Close(), bad.Close(), good.Close(), damaged.Close(), sound.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
}
