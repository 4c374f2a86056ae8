package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/ipfs/go-cid"
)

func quiet(o Options) Options {
	o.Log = slog.New(slog.DiscardHandler)
	return o
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, quiet(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.lock.Close() })
	return s
}

func put(t testing.TB, s *Store, b []byte) cid.Cid {
	t.Helper()
	info, err := s.Put(t.Context(), bytes.NewReader(b), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	return info.CID
}

// file is where a blob lies.
func blobPath(t testing.TB, s *Store, c cid.Cid) string {
	t.Helper()
	_, p, _, err := s.path(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// flip changes one bit of a file and leaves its times alone, as a bad disk
// does.
func flip(t testing.TB, path string, off int64) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Chtimes(path, time.Time{}, fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// litter lists the files of a store that are neither blobs nor their outboards.
func litter(t testing.TB, s *Store) []string {
	t.Helper()
	var bad []string
	for _, d := range []string{"tmp", "partial", "quarantine"} {
		list, err := os.ReadDir(filepath.Join(s.dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			bad = append(bad, filepath.Join(d, e.Name()))
		}
	}
	err := filepath.WalkDir(filepath.Join(s.dir, "blobs"), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		c, err := cas.Parse(strings.TrimSuffix(e.Name(), outboardExt))
		if err != nil {
			bad = append(bad, p)
			return nil
		}
		if _, err := s.Stat(c); err != nil {
			bad = append(bad, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bad
}

func TestDiskKeepsTheStorePromises(t *testing.T) {
	var all []*Store
	castest.Run(t, func(t *testing.T) cas.Store {
		s := open(t, t.TempDir(), Options{})
		all = append(all, s)
		t.Cleanup(func() {
			if l := litter(t, s); len(l) > 0 {
				t.Errorf("litter: %v", l)
			}
			if s.reserved != 0 {
				t.Errorf("%d bytes are still reserved", s.reserved)
			}
		})
		return s
	})
	if len(all) == 0 {
		t.Fatal("nothing ran")
	}
}

func TestBlobsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	big, small := castest.Blob(500_000, 1), []byte("small")
	cBig, cSmall := put(t, s, big), put(t, s, small)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if u, err := s.Usage(); err != nil || u.Blobs != 2 || u.Bytes != 500_005 {
		t.Fatalf("Usage = %+v, %v", u, err)
	}
	for c, want := range map[cid.Cid][]byte{cBig: big, cSmall: small} {
		b, err := s.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if f, ok := b.(interface{ File() *os.File }); !ok || f.File() == nil {
			t.Fatal("an open blob has no file for sendfile")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if _, err := Open(dir, quiet(Options{})); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open = %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

// A flipped bit must not reach a reader after a crash, nor after VerifiedFor.
func TestAFlippedBitIsFoundAndQuarantined(t *testing.T) {
	for name, again := range map[string]func(t *testing.T, s *Store, now *time.Time) *Store{
		"after a crash": func(t *testing.T, s *Store, now *time.Time) *Store {
			if err := s.lock.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, s.dir, s.opts)
		},
		"a day later": func(_ *testing.T, s *Store, now *time.Time) *Store {
			*now = now.Add(25 * time.Hour)
			return s
		},
		"a restart and a day later": func(t *testing.T, s *Store, now *time.Time) *Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			*now = now.Add(25 * time.Hour)
			return open(t, s.dir, s.opts)
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			var told []cas.Info
			s := open(t, t.TempDir(), Options{Now: func() time.Time { return now },
				OnCorrupt: func(i cas.Info) { told = append(told, i) }})
			for i, size := range []int{1000, 500_000} {
				good, bad := put(t, s, castest.Blob(size, 1)), put(t, s, castest.Blob(size, 2))
				flip(t, blobPath(t, s, bad), int64(size-1))
				s = again(t, s, &now)
				if b, err := s.Open(good); err != nil || b.Close() != nil {
					t.Fatalf("good blob: %v", err)
				}
				if _, err := s.Open(bad); !errors.Is(err, cas.ErrCorrupt) {
					t.Fatalf("Open = %v, want ErrCorrupt", err)
				}
				if _, err := s.Open(bad); !errors.Is(err, cas.ErrNotFound) {
					t.Fatalf("second Open = %v, want ErrNotFound", err)
				}
				if _, err := os.Stat(filepath.Join(s.dir, "quarantine", bad.String())); err != nil {
					t.Fatal(err)
				}
				if len(told) != i+1 || told[i] != (cas.Info{CID: bad, Size: int64(size)}) {
					t.Fatalf("OnCorrupt was told %v", told)
				}
				put(t, s, castest.Blob(size, 2)) // repair
				if b, err := s.Open(bad); err != nil || b.Close() != nil {
					t.Fatalf("repaired blob: %v", err)
				}
			}
		})
	}
}

// An orderly restart does not hash everything again: the bit is found later.
func TestARecentVerificationCountsAcrossARestart(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, castest.Blob(500_000, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s = open(t, s.dir, Options{Now: func() time.Time { return now }})
	if e, _ := s.lookup(c); e.verified.IsZero() {
		t.Fatal("the verification was forgotten")
	}
	path := blobPath(t, s, c)
	flip(t, path, 77)
	if b, err := s.Open(c); err != nil || b.Close() != nil {
		t.Fatalf("Open = %v; the package comment says that this is not noticed", err)
	}
	// A file that was written to is noticed when it is looked at again.
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	if _, err := s.Open(c); !errors.Is(err, cas.ErrCorrupt) {
		t.Fatalf("Open = %v, want ErrCorrupt", err)
	}
}

func TestScrubFindsEveryFlippedBit(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	bad := map[cid.Cid]bool{}
	for i := range 40 {
		data := castest.Blob(70_000, byte(i))
		c := put(t, s, data)
		if i%8 == 3 {
			flip(t, blobPath(t, s, c), int64(i*1000))
			bad[c] = true
		}
	}
	all := func(ctx context.Context, rate int64) (sound int, corrupt []cid.Cid, last error) {
		for i, err := range s.Checks(ctx, rate) {
			switch {
			case err == nil:
				sound++
			case errors.Is(err, cas.ErrCorrupt):
				corrupt = append(corrupt, i.CID)
			default:
				last = err
			}
		}
		return sound, corrupt, last
	}
	sound, corrupt, err := all(t.Context(), 0)
	if err != nil || sound != 40-len(bad) || len(corrupt) != len(bad) {
		t.Fatalf("%d sound, %d corrupt, %v", sound, len(corrupt), err)
	}
	for _, c := range corrupt {
		if !bad[c] {
			t.Errorf("%s is good", c)
		}
	}
	if sound, corrupt, err = all(t.Context(), 0); err != nil || sound != 35 || len(corrupt) != 0 {
		t.Fatalf("the second time %d sound, %d corrupt, %v", sound, len(corrupt), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := all(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled Checks end with %v", err)
	}
	list, err := os.ReadDir(filepath.Join(s.dir, "quarantine"))
	if err != nil || len(list) > quarantineKept {
		t.Fatalf("%d files in quarantine, %v", len(list), err)
	}
}

func TestADamagedOutboardIsMadeAnew(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	data := castest.Blob(500_000, 1)
	c := put(t, s, data)
	path := blobPath(t, s, c) + outboardExt
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"flipped": func() error { flip(t, path, 100); return nil },
		"cut":     func() error { return os.Truncate(path, 50) },
		"empty":   func() error { return os.Truncate(path, 0) },
		"gone":    func() error { return os.Remove(path) },
	} {
		if err := errors.Join(damage(), s.lock.Close()); err != nil {
			t.Fatal(err)
		}
		s = open(t, s.dir, Options{})
		if err := castest.Slice(io.Discard, s, c, 0, 1); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: outboard of %d bytes, %v", name, len(got), err)
		}
	}
}

func TestRecoveryRemovesWhatAKillLeaves(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, castest.Blob(500_000, 1))
	gone := cas.Sum([]byte("gone"))
	if err := os.MkdirAll(filepath.Dir(blobPath(t, s, gone)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{filepath.Join(s.dir, "tmp", "7"), blobPath(t, s, gone) + outboardExt,
		filepath.Join(s.dir, "partial", "x.part"), filepath.Join(s.dir, "partial", gone.String()+".tree")} {
		if err := os.WriteFile(p, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A person's file is nobody's litter.
	note := filepath.Join(filepath.Dir(blobPath(t, s, c)), "README")
	if err := errors.Join(os.WriteFile(note, nil, 0o644), s.lock.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.dir, Options{})
	if l := litter(t, s); len(l) != 1 || l[0] != note {
		t.Fatalf("litter: %v", l)
	}
	if _, err := s.Stat(c); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatSomebodyRemovedIsNotHeld(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, castest.Blob(100, 1))
	if err := os.Remove(blobPath(t, s, c)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(c); !errors.Is(err, cas.ErrNotFound) {
		t.Fatalf("Open = %v, want ErrNotFound", err)
	}
	if _, err := s.Stat(c); !errors.Is(err, cas.ErrNotFound) {
		t.Fatalf("Stat = %v, want ErrNotFound", err)
	}
	put(t, s, castest.Blob(100, 1))
}

func TestTheQuotaIsKeptAndTheLevelsTold(t *testing.T) {
	s := open(t, t.TempDir(), Options{Quota: 1_000_000})
	level := func() Level {
		u, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.Level
	}
	for i, step := range []struct {
		size int
		want Level
	}{{840_000, Roomy}, {20_000, NoReplicas}, {50_000, NoBuilds}, {40_000, ReadOnly}} {
		put(t, s, castest.Blob(step.size, byte(i)))
		if got := level(); got != step.want {
			t.Fatalf("after %d bytes: %v, want %v", s.used, got, step.want)
		}
	}
	data := castest.Blob(1, 9)
	if _, err := s.Put(t.Context(), bytes.NewReader(data), cid.Undef); !errors.Is(err, cas.ErrFull) {
		t.Fatalf("Put = %v, want ErrFull", err)
	}
	if _, err := s.Assemble(cas.Sum(data), 1); !errors.Is(err, cas.ErrFull) {
		t.Fatalf("Assemble = %v, want ErrFull", err)
	}
	if l := litter(t, s); len(l) > 0 {
		t.Fatalf("litter: %v", l)
	}
	if err := s.Delete(cas.Sum(castest.Blob(840_000, 0))); err != nil {
		t.Fatal(err)
	}
	if level() != Roomy {
		t.Fatal("deleting made no room")
	}
	put(t, s, data)
}

// A pass takes thirty days, whatever the blobs' sizes, and a reader does not wait
// for its pace.
func TestTheScrubIsPacedAndReadersHurryIt(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	var all time.Duration
	for i := range 200 {
		put(t, s, castest.Blob(1+i*1000, byte(i)))
	}
	for i := range s.All() {
		all += s.scrubPause(i.Size)
	}
	if all < ScrubEvery*3/4 || all > ScrubEvery*5/4 {
		t.Errorf("a pass takes %v", all)
	}
	c := put(t, s, castest.Blob(1<<20, 1))
	s.update(c, func(e *entry) { e.verified = time.Time{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.verify(ctx, c, 1) }() // would take twelve days
	for busy := false; !busy; runtime.Gosched() {
		s.mu.Lock()
		_, busy = s.checks[c]
		s.mu.Unlock()
	}
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	cancel()
}

func TestABlobWhoseFileSomebodyRemovedIsSaidToBeLost(t *testing.T) {
	var told []cas.Info
	s := open(t, t.TempDir(), Options{OnCorrupt: func(i cas.Info) { told = append(told, i) }})
	c := put(t, s, castest.Blob(500_000, 1))
	if err := os.Remove(blobPath(t, s, c)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(c); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Open = %v", err)
	}
	if len(told) != 1 || told[0] != (cas.Info{CID: c, Size: 500_000}) {
		t.Errorf("told of %v", told)
	}
	put(t, s, castest.Blob(500_000, 1))
}

func TestTheSpareRoomIsGivenBackOnAFullDisk(t *testing.T) {
	const room = 1 << 20
	s := open(t, t.TempDir(), Options{Room: room})
	there := func() bool {
		_, err := os.Stat(s.sparePath())
		return err == nil
	}
	for _, x := range []struct {
		free int64
		want bool
	}{{3 * room, false}, {5 * room, true}, {room, true}, {room / 5, false}, {2 * room, false}, {5 * room, true}} {
		s.mu.Lock()
		s.keepSpare(x.free)
		s.mu.Unlock()
		if there() != x.want {
			t.Fatalf("with %d bytes free: spare is there: %v", x.free, there())
		}
	}
	// Blobs leave the room alone, also without a quota.
	u, err := s.Usage()
	if err != nil || u.Quota == 0 || u.Free >= u.Quota {
		t.Fatalf("Usage = %+v, %v", u, err)
	}
	s = open(t, t.TempDir(), Options{Room: 1 << 60})
	if _, err := s.Put(t.Context(), bytes.NewReader([]byte("x")), cid.Undef); !errors.Is(err, cas.ErrFull) {
		t.Fatalf("Put into the room = %v", err)
	}
}

func TestAPartialSurvivesAKill(t *testing.T) {
	s := open(t, t.TempDir(), Options{Quota: 10_000_000})
	data := castest.Blob(500_000, 1)
	c := cas.Sum(data)
	p, err := s.Assemble(c, 500_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(4) {
		d := data[i*cas.GroupSize : (i+1)*cas.GroupSize]
		if err := p.WriteGroup(cas.Group{Index: i, Data: d, Hash: cas.HashGroup(d, i, false)}); err != nil {
			t.Fatal(err)
		}
	}
	flip(t, filepath.Join(s.dir, "partial", c.String()+".part"), cas.GroupSize+5)
	if err := s.lock.Close(); err != nil { // the process is gone
		t.Fatal(err)
	}
	s = open(t, s.dir, Options{Quota: 10_000_000})
	if s.reserved != 500_000 {
		t.Fatalf("%d bytes reserved", s.reserved)
	}
	if p, err = s.Assemble(c, 500_000); err != nil {
		t.Fatal(err)
	}
	for i := range int64(8) {
		// Group 1 was damaged on the disk.
		if want := i < 4 && i != 1; p.Has(i) != want {
			t.Fatalf("has group %d: %v, want %v", i, p.Has(i), want)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	// Another size means that somebody lied: begin anew.
	if p, err = s.Assemble(c, 400_000); err != nil || p.Has(0) {
		t.Fatalf("Assemble with another size: %v", err)
	}
	if err := p.Abort(); err != nil || s.reserved != 0 {
		t.Fatalf("%d bytes reserved after Abort, %v", s.reserved, err)
	}
	if l := litter(t, s); len(l) > 0 {
		t.Fatalf("litter: %v", l)
	}
}
