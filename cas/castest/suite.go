package castest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Blob makes n reproducible bytes; another seed gives other ones.
func Blob(n int, seed byte) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(b) // never fails
	return b
}

// sizes lie around the group size, where trees change shape.
var sizes = []int{0, 1, 1000, cas.GroupSize - 1, cas.GroupSize, cas.GroupSize + 1, 3 * cas.GroupSize, 500_000}

// Run checks that the stores that open makes keep the promises of cas.Store,
// and those of cas.Source and cas.Assembler when they have these methods.
func Run(t *testing.T, open func(t *testing.T) cas.Store) {
	for name, f := range map[string]func(*testing.T, cas.Store){
		"what is put can be read":            putAndRead,
		"a wrong hash is refused":            wrongHash,
		"a failed read keeps nothing":        failedRead,
		"a cancelled put keeps nothing":      cancelled,
		"put is idempotent":                  idempotent,
		"deleted blobs are gone":             deleted,
		"an open blob outlives its deletion": deletedWhileOpen,
		"what is not held is not found":      notFound,
		"only blob CIDs are names":           badCID,
		"puts may race":                      racing,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
	if _, ok := open(t).(cas.Source); ok {
		t.Run("slices are verifiable", func(t *testing.T) { slices(t, open(t).(cas.Source)) })
	}
	if _, ok := open(t).(cas.Assembler); ok {
		t.Run("groups in any order make a blob", func(t *testing.T) { assemble(t, open(t).(cas.Assembler)) })
		t.Run("a closed partial is taken up again", func(t *testing.T) { resume(t, open(t).(cas.Assembler)) })
		t.Run("a partial with wrong groups is refused", func(t *testing.T) { wrongGroups(t, open(t).(cas.Assembler)) })
	}
}

func put(t *testing.T, s cas.Store, b []byte) cid.Cid {
	t.Helper()
	info, err := s.Put(context.Background(), bytes.NewReader(b), cas.Sum(b))
	if err != nil || info != (cas.Info{CID: cas.Sum(b), Size: int64(len(b))}) {
		t.Fatalf("Put of %d bytes = %v, %v", len(b), info, err)
	}
	return info.CID
}

func read(t *testing.T, s cas.Store, c cid.Cid) []byte {
	t.Helper()
	b, err := s.Open(c)
	if err != nil {
		t.Fatalf("Open(%s): %v", c, err)
	}
	got, err := io.ReadAll(b)
	if err != nil || int64(len(got)) != b.Size() {
		t.Fatalf("read %d of %d bytes: %v", len(got), b.Size(), err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

// holds is the set of names that All yields, with their sizes.
func holds(t *testing.T, s cas.Store) map[cid.Cid]int64 {
	t.Helper()
	m := map[cid.Cid]int64{}
	for info, err := range s.All() {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := m[info.CID]; twice {
			t.Fatalf("All yields %s twice", info.CID)
		}
		m[info.CID] = info.Size
	}
	return m
}

func wantNone(t *testing.T, s cas.Store, c cid.Cid) {
	t.Helper()
	if _, err := s.Stat(c); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Stat = %v, want ErrNotFound", err)
	}
	if _, err := s.Open(c); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
	if m := holds(t, s); len(m) != 0 {
		t.Errorf("All = %v, want none", m)
	}
}

func putAndRead(t *testing.T, s cas.Store) {
	for _, n := range sizes {
		data := Blob(n, 1)
		info, err := s.Put(t.Context(), iotest.HalfReader(bytes.NewReader(data)), cid.Undef)
		if err != nil || info.CID != cas.Sum(data) || info.Size != int64(n) {
			t.Fatalf("Put of %d bytes = %v, %v", n, info, err)
		}
		if got, err := s.Stat(info.CID); err != nil || got != info {
			t.Fatalf("Stat = %v, %v, want %v", got, err, info)
		}
		if !bytes.Equal(read(t, s, info.CID), data) {
			t.Fatalf("%d bytes came back otherwise", n)
		}
		b, err := s.Open(info.CID)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(b, data); err != nil {
			t.Errorf("reader of %d bytes: %v", n, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if m := holds(t, s); len(m) != len(sizes) {
		t.Fatalf("All yields %d blobs, want %d", len(m), len(sizes))
	}
}

func wrongHash(t *testing.T, s cas.Store) {
	want := cas.Sum([]byte("something else"))
	if _, err := s.Put(t.Context(), bytes.NewReader(Blob(200_000, 1)), want); !errors.Is(err, cas.ErrCorrupt) {
		t.Fatalf("Put = %v, want ErrCorrupt", err)
	}
	wantNone(t, s, want)
}

func failedRead(t *testing.T, s cas.Store) {
	data := Blob(300_000, 1)
	boom := errors.New("boom")
	r := io.MultiReader(bytes.NewReader(data[:200_000]), iotest.ErrReader(boom))
	if _, err := s.Put(t.Context(), r, cas.Sum(data)); !errors.Is(err, boom) {
		t.Fatalf("Put = %v, want the reader's error", err)
	}
	wantNone(t, s, cas.Sum(data))
	put(t, s, data)
}

func cancelled(t *testing.T, s cas.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := Blob(300_000, 1)
	if _, err := s.Put(ctx, bytes.NewReader(data), cas.Sum(data)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Put = %v, want context.Canceled", err)
	}
	wantNone(t, s, cas.Sum(data))
}

func idempotent(t *testing.T, s cas.Store) {
	data := Blob(100_000, 1)
	c := put(t, s, data)
	put(t, s, data)
	if info, err := s.Put(t.Context(), bytes.NewReader(data), cid.Undef); err != nil || info.CID != c {
		t.Fatalf("third Put = %v, %v", info, err)
	}
	if m := holds(t, s); len(m) != 1 {
		t.Fatalf("All = %v, want one", m)
	}
	if !bytes.Equal(read(t, s, c), data) {
		t.Fatal("other bytes")
	}
}

func deleted(t *testing.T, s cas.Store) {
	data := Blob(100_000, 1)
	c := put(t, s, data)
	for range 2 {
		if err := s.Delete(c); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		wantNone(t, s, c)
	}
	put(t, s, data)
}

func deletedWhileOpen(t *testing.T, s cas.Store) {
	data := Blob(100_000, 1)
	c := put(t, s, data)
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(c); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes after the deletion: %v", len(got), err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func notFound(t *testing.T, s cas.Store) {
	c := cas.Sum([]byte("not here"))
	wantNone(t, s, c)
	if src, ok := s.(cas.Source); ok {
		if _, err := src.Outboard(c); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("Outboard = %v, want ErrNotFound", err)
		}
	}
}

func badCID(t *testing.T, s cas.Store) {
	bad := cid.NewCidV1(cid.DagProtobuf, cas.Sum(nil).Hash())
	if _, err := s.Put(t.Context(), bytes.NewReader(nil), bad); !errors.Is(err, cas.ErrBadCID) {
		t.Errorf("Put = %v, want ErrBadCID", err)
	}
	if err := s.Delete(bad); !errors.Is(err, cas.ErrBadCID) {
		t.Errorf("Delete = %v, want ErrBadCID", err)
	}
	for _, c := range []cid.Cid{bad, cid.Undef} {
		if _, err := s.Stat(c); err == nil {
			t.Errorf("Stat(%v) succeeds", c)
		}
		if _, err := s.Open(c); err == nil {
			t.Errorf("Open(%v) succeeds", c)
		}
	}
}

func racing(t *testing.T, s cas.Store) {
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 16 {
		wg.Go(func() {
			data := Blob(150_000, byte(i%4)) // each blob by four at once
			info, err := s.Put(context.Background(), bytes.NewReader(data), cas.Sum(data))
			if err == nil && i%8 == 0 {
				err = s.Delete(info.CID)
			}
			if err == nil {
				_, err = s.Put(context.Background(), bytes.NewReader(data), cid.Undef)
			}
			if err != nil {
				errs <- fmt.Errorf("worker %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for i := range 4 {
		data := Blob(150_000, byte(i))
		put(t, s, data)
		if !bytes.Equal(read(t, s, cas.Sum(data)), data) {
			t.Fatal("other bytes")
		}
	}
}

// Slice writes a slice of a blob that s holds.
func Slice(w io.Writer, s cas.Source, c cid.Cid, off, n int64) error {
	b, err := s.Open(c)
	if err != nil {
		return err
	}
	out, err := s.Outboard(c)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return errors.Join(cas.WriteSlice(w, b, out, b.Size(), off, n), out.Close(), b.Close())
}

func slices(t *testing.T, s cas.Source) {
	for _, n := range sizes {
		data := Blob(n, 2)
		c := put(t, s, data)
		var buf bytes.Buffer
		if err := Slice(&buf, s, c, cas.Suffix, 100_000); err != nil {
			t.Fatalf("slice of %d bytes: %v", n, err)
		}
		r, err := cas.NewSliceReader(&buf, c, cas.Suffix, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data[max(0, n-100_000):]) || !r.Proven() {
			t.Fatalf("slice of %d bytes: %d bytes, %v", n, len(got), err)
		}
	}
}

// groups reads all groups of data as a fetcher gets them.
func groups(t *testing.T, data []byte) []cas.Group {
	t.Helper()
	h := cas.NewHasher()
	_, _ = h.Write(data) // never fails
	c, out := h.Finish()
	var buf bytes.Buffer
	if err := cas.WriteSlice(&buf, bytes.NewReader(data), bytes.NewReader(out), h.Size(), 0, h.Size()); err != nil {
		t.Fatal(err)
	}
	r, err := cas.NewSliceReader(&buf, c, 0, h.Size())
	if err != nil {
		t.Fatal(err)
	}
	var all []cas.Group
	for {
		g, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		g.Data = bytes.Clone(g.Data)
		all = append(all, g)
	}
}

func assemble(t *testing.T, s cas.Assembler) {
	for _, n := range sizes {
		data := Blob(n, 3)
		c := cas.Sum(data)
		p, err := s.Assemble(c, int64(n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Assemble(c, int64(n)); !errors.Is(err, cas.ErrBusy) {
			t.Fatalf("second Assemble = %v, want ErrBusy", err)
		}
		all := groups(t, data)
		for i := range all { // backwards
			g := all[len(all)-1-i]
			if p.Has(g.Index) {
				t.Fatalf("has group %d already", g.Index)
			}
			if err := p.WriteGroup(g); err != nil {
				t.Fatal(err)
			}
			if !p.Has(g.Index) {
				t.Fatalf("does not have group %d", g.Index)
			}
		}
		if _, err := s.Stat(c); !errors.Is(err, cas.ErrNotFound) {
			t.Fatal("held before Commit")
		}
		if info, err := p.Commit(); err != nil || info.CID != c || info.Size != int64(n) {
			t.Fatalf("Commit = %v, %v", info, err)
		}
		if !bytes.Equal(read(t, s, c), data) {
			t.Fatal("other bytes")
		}
		if src, ok := s.(cas.Source); ok {
			if err := Slice(io.Discard, src, c, cas.Suffix, 1); err != nil {
				t.Fatalf("slice of an assembled blob: %v", err)
			}
		}
	}
}

func resume(t *testing.T, s cas.Assembler) {
	data := Blob(500_000, 4)
	c, all := cas.Sum(data), groups(t, data)
	p, err := s.Assemble(c, 500_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all[:3] {
		if err := p.WriteGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Assemble(c, 500_000); err != nil {
		t.Fatal(err)
	}
	for i, g := range all {
		if have := p.Has(g.Index); have != (i < 3) {
			t.Fatalf("has group %d: %v", i, have)
		}
		if err := p.WriteGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, c), data) {
		t.Fatal("other bytes")
	}
}

func wrongGroups(t *testing.T, s cas.Assembler) {
	data := Blob(500_000, 5)
	c, all, other := cas.Sum(data), groups(t, data), groups(t, Blob(500_000, 6))
	for name, list := range map[string][]cas.Group{"missing": all[1:], "foreign": append(other[:1:1], all[1:]...)} {
		p, err := s.Assemble(c, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range list {
			if err := p.WriteGroup(g); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.WriteGroup(cas.Group{Index: 99, Data: all[0].Data}); err == nil {
			t.Error("a group beyond the end was taken")
		}
		if err := p.WriteGroup(cas.Group{Index: 1, Data: all[0].Data[:10]}); err == nil {
			t.Error("half a group was taken")
		}
		if _, err := p.Commit(); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s group: Commit = %v, want ErrCorrupt", name, err)
		}
		if _, err := s.Stat(c); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s group: blob is held", name)
		}
	}
	p, err := s.Assemble(c, 500_000)
	if err != nil {
		t.Fatal(err)
	}
	if p.Has(0) || p.Has(2) {
		t.Error("groups of the refused partial are back")
	}
	if err := p.Abort(); err != nil {
		t.Fatal(err)
	}
}
