package cas_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
	"pgregory.net/rapid"
)

// sizes are the lengths at which the tree changes its shape.
var sizes = []int{0, 1, 63, 64, 1023, 1024, 1025, 16383, 16384, 16385, 40000, 65535, 65536, 65537, 98304,
	131072, 131073, 196608, 200001, 262144, 327681, 1 << 20, 1<<20 + 7}

func blob(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestCIDIsBlake3OfTheBytes(t *testing.T) {
	for _, n := range sizes {
		b := blob(n)
		if got, want := cas.Sum(b), cas.NewCID(blake3.Sum256(b)); got != want {
			t.Errorf("%d bytes: CID %s, want %s", n, got, want)
		}
	}
}

func TestOutboardIsBaosForAnySizeOfWrite(t *testing.T) {
	for _, n := range sizes {
		b := blob(n)
		want, root := bao.EncodeBuf(b, 6, true)
		for _, step := range []int{1000, 65536, 65537, 1 << 20} {
			h := cas.NewHasher()
			for i := 0; i < n; i += step {
				_, _ = h.Write(b[i:min(i+step, n)])
				if i == 0 {
					h.Finish() // looking does not disturb
				}
			}
			c, out := h.Finish()
			if c != cas.NewCID(root) || !bytes.Equal(out, want) || h.Size() != int64(n) {
				t.Fatalf("%d bytes in steps of %d: other tree than bao's", n, step)
			}
		}
		hashes, err := cas.CheckOutboard(bytes.NewReader(want), cas.NewCID(root), int64(n))
		if err != nil || int64(len(hashes)) != cas.Groups(int64(n)) {
			t.Fatalf("%d bytes: CheckOutboard: %d hashes, %v", n, len(hashes), err)
		}
	}
}

func TestDamagedOutboardIsFound(t *testing.T) {
	b := blob(500_000)
	h := cas.NewHasher()
	_, _ = h.Write(b)
	c, out := h.Finish()
	for i := range out {
		bad := bytes.Clone(out)
		bad[i] ^= 4
		if _, err := cas.CheckOutboard(bytes.NewReader(bad), c, h.Size()); !errors.Is(err, cas.ErrCorrupt) {
			t.Fatalf("bit flipped at %d: %v", i, err)
		}
	}
	if _, err := cas.CheckOutboard(bytes.NewReader(out[:len(out)-1]), c, h.Size()); err == nil {
		t.Fatal("short outboard accepted")
	}
}

func TestParseTakesOneFormOnly(t *testing.T) {
	c := cas.Sum([]byte("x"))
	if got, err := cas.Parse(c.String()); err != nil || got != c {
		t.Fatalf("Parse(%s) = %s, %v", c, got, err)
	}
	sha, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	long, err := mh.Encode(make([]byte, 64), mh.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.StringOfBase('z')
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", "x", sha.String(), cid.NewCidV1(cid.DagProtobuf, c.Hash()).String(),
		cid.NewCidV1(cid.Raw, long).String(), other, strings.ToUpper(c.String()), c.String() + "a",
		"../" + c.String(), strings.Repeat("b", 1<<20)} {
		if _, err := cas.Parse(s); !errors.Is(err, cas.ErrBadCID) {
			t.Errorf("Parse(%.40q) = %v, want ErrBadCID", s, err)
		}
	}
	if _, err := cas.Digest(cid.Undef); !errors.Is(err, cas.ErrBadCID) {
		t.Errorf("Digest of the undefined CID: %v", err)
	}
}

// slice is WriteSlice into memory.
func slice(t testing.TB, b []byte, off, n int64) ([]byte, cid.Cid) {
	t.Helper()
	h := cas.NewHasher()
	_, _ = h.Write(b)
	c, out := h.Finish()
	var buf bytes.Buffer
	if err := cas.WriteSlice(&buf, bytes.NewReader(b), bytes.NewReader(out), h.Size(), off, n); err != nil {
		t.Fatalf("WriteSlice(%d, %d) of %d: %v", off, n, len(b), err)
	}
	return buf.Bytes(), c
}

func TestSliceYieldsExactlyTheRangeAndIsBaos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.OneOf(rapid.SampledFrom(sizes), rapid.IntRange(1, 700_000)).Draw(rt, "size")
		b := blob(size)
		off := rapid.IntRange(0, max(size-1, 0)).Draw(rt, "off")
		n := 0
		if size > 0 {
			n = rapid.IntRange(1, size-off).Draw(rt, "n")
		}
		enc, c := slice(t, b, int64(off), int64(n))
		r, err := cas.NewSliceReader(iotest.HalfReader(bytes.NewReader(enc)), c, int64(off), int64(n))
		if err != nil {
			rt.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, b[off:off+n]) {
			rt.Fatalf("read %d bytes, %v", len(got), err)
		}
		if proven := size == 0 || off+n > (size-1)/cas.GroupSize*cas.GroupSize; r.Proven() != proven {
			rt.Fatalf("Proven = %v, want %v", r.Proven(), proven)
		}
		if size > 0 {
			if v, ok := bao.VerifySlice(enc, 6, uint64(off), uint64(n), must(cas.Digest(c))); !ok || !bytes.Equal(v, got) {
				rt.Fatal("bao does not read the slice")
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSuffixProvesTheSize(t *testing.T) {
	for _, size := range sizes {
		b := blob(size)
		for _, n := range []int64{1, 70_000, 1 << 30} {
			enc, c := slice(t, b, cas.Suffix, n)
			r := must(cas.NewSliceReader(bytes.NewReader(enc), c, cas.Suffix, n))
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, b[max(0, size-int(n)):]) || !r.Proven() {
				t.Fatalf("last %d of %d: %d bytes, proven %v, %v", n, size, len(got), r.Proven(), err)
			}
			if s, err := r.Size(); err != nil || s != int64(size) {
				t.Fatalf("Size = %d, %v, want %d", s, err, size)
			}
		}
	}
}

func TestNoDamagedSliceYieldsAWrongByte(t *testing.T) {
	b := blob(300_000)
	enc, c := slice(t, b, 70_000, 150_000)
	want := b[70_000:220_000]
	for i := 0; i < len(enc); i += 97 {
		bad := bytes.Clone(enc)
		bad[i] ^= 1 << (i % 8)
		r := must(cas.NewSliceReader(bytes.NewReader(bad), c, 70_000, 150_000))
		got, err := io.ReadAll(r)
		if err == nil && i >= 8 {
			t.Fatalf("bit flipped at %d not found", i)
		}
		if !bytes.HasPrefix(want, got) {
			t.Fatalf("bit flipped at %d: wrong bytes handed out", i)
		}
	}
	for _, cut := range []int{0, 5, 8, 60, 100_000, len(enc) - 1} {
		r := must(cas.NewSliceReader(bytes.NewReader(enc[:cut]), c, 70_000, 150_000))
		if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

// A slice of the beginning fits several lengths; one with the end fits one.
func TestALieAboutTheSizeIsFoundWithTheLastGroup(t *testing.T) {
	b := blob(3 * cas.GroupSize)
	enc, c := slice(t, b, 0, int64(len(b)))
	for _, claim := range []byte{1, 0xff} {
		bad := bytes.Clone(enc)
		bad[0] ^= claim
		r := must(cas.NewSliceReader(bytes.NewReader(bad), c, cas.Suffix, 1<<40))
		if _, err := io.Copy(io.Discard, r); err == nil || r.Proven() {
			t.Fatalf("a false size was proven (%v)", err)
		}
	}
	// Three groups claimed to be one group of nothing, under another name.
	r := must(cas.NewSliceReader(bytes.NewReader(make([]byte, 8)), c, cas.Suffix, 10))
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, cas.ErrCorrupt) {
		t.Fatalf("an empty blob passed for another: %v", err)
	}
}

func TestRangesOutsideTheBlobAreRefused(t *testing.T) {
	for _, x := range [][2]int64{{0, 0}, {-2, 5}, {5, -1}, {11, 1}, {5, 6}, {10, 1 << 62}, {1 << 62, 1 << 62}, {cas.Suffix, 0}} {
		if _, _, err := cas.Bounds(10, x[0], x[1]); !errors.Is(err, cas.ErrRange) {
			t.Errorf("Bounds(10, %d, %d) = %v, want ErrRange", x[0], x[1], err)
		}
		err := cas.WriteSlice(io.Discard, bytes.NewReader(make([]byte, 10)), nil, 10, x[0], x[1])
		if !errors.Is(err, cas.ErrRange) {
			t.Errorf("WriteSlice(10, %d, %d) = %v, want ErrRange", x[0], x[1], err)
		}
	}
}

func FuzzSliceReader(f *testing.F) {
	b := blob(200_000)
	h := cas.NewHasher()
	_, _ = h.Write(b)
	c := h.CID()
	enc, _ := slice(f, b, 0, 200_000)
	f.Add(enc, int64(0), int64(200_000))
	enc, _ = slice(f, b, cas.Suffix, 1000)
	f.Add(enc, cas.Suffix, int64(1000))
	f.Add(bytes.Repeat([]byte{0x7f}, 300), int64(1), int64(2))
	f.Fuzz(func(t *testing.T, enc []byte, off, n int64) {
		r := must(cas.NewSliceReader(bytes.NewReader(enc), c, off, n))
		got, err := io.ReadAll(r)
		if len(got) == 0 {
			if err == nil {
				t.Fatal("an empty slice of a blob that is not empty")
			}
			return
		}
		if o := r.Offset(); o < 0 || o+int64(len(got)) > int64(len(b)) || !bytes.Equal(got, b[o:o+int64(len(got))]) {
			t.Fatal("bytes that are not the blob's")
		}
	})
}

func FuzzCheckOutboard(f *testing.F) {
	b := blob(200_000)
	h := cas.NewHasher()
	_, _ = h.Write(b)
	c, out := h.Finish()
	f.Add(out, int64(len(b)))
	f.Add(out[:8], int64(1))
	f.Fuzz(func(t *testing.T, enc []byte, size int64) {
		hashes, err := cas.CheckOutboard(bytes.NewReader(enc), c, size)
		if err == nil && size > cas.GroupSize && (len(hashes) != 4 || !bytes.HasPrefix(enc[8:], out[8:])) {
			t.Fatal("another outboard accepted")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(cas.Sum(nil).String())
	f.Fuzz(func(t *testing.T, s string) {
		c, err := cas.Parse(s)
		if err == nil && c.String() != s {
			t.Fatalf("%q and %q name one blob", s, c)
		}
	})
}

func BenchmarkHasher(b *testing.B) {
	data := blob(16 << 20)
	b.SetBytes(int64(len(data)))
	var ours, whole float64
	for b.Loop() {
		ours += seconds(func() { cas.Sum(data) })
		whole += seconds(func() { blake3.Sum256(data) })
	}
	// How much the outboard and the writes of 64 KiB cost against the hash alone.
	b.ReportMetric(whole/ours, "x-blake3")
}

func BenchmarkSlice(b *testing.B) {
	data := blob(16 << 20)
	enc, c := slice(b, data, 0, int64(len(data)))
	b.SetBytes(int64(len(data)))
	var ours, plain float64
	for b.Loop() {
		ours += seconds(func() {
			if _, err := io.Copy(io.Discard, must(cas.NewSliceReader(bytes.NewReader(enc), c, 0, int64(len(data))))); err != nil {
				b.Fatal(err)
			}
		})
		plain += seconds(func() { blake3.Sum256(data) })
	}
	b.ReportMetric(plain/ours, "x-blake3")
}
