package sample

import (
	"bytes"
	"compress/bzip2"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestBzip2IsReadBackByTheStandardReader(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 20_000)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	for name, in := range map[string][]byte{
		"one byte":       []byte("a"),
		"two bytes":      []byte("ab"),
		"runs":           []byte("abbbbbbbbbbccccaaaa" + strings.Repeat("x", 1000)),
		"periodic":       bytes.Repeat([]byte("abc"), 500),
		"text":           bytes.Repeat([]byte("declare -x EAPI=\"8\"\ndeclare -x SLOT=\"0/2\"\n"), 40),
		"random":         random,
		"255 and 0":      {255, 0, 255, 0, 0, 0, 0, 0},
		"run of 259 +-1": append(bytes.Repeat([]byte{7}, 258), append([]byte{1}, append(bytes.Repeat([]byte{7}, 259), append([]byte{2}, bytes.Repeat([]byte{7}, 260)...)...)...)...),
	} {
		z, err := bzip2Pack(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(z)))
		if err != nil || !bytes.Equal(got, in) {
			t.Errorf("%s: %v, %d bytes back of %d", name, err, len(got), len(in))
		}
	}
}

func FuzzBzip2(f *testing.F) {
	f.Add([]byte("hello hello"))
	f.Fuzz(func(t *testing.T, in []byte) {
		z, err := bzip2Pack(in)
		if err != nil {
			return
		}
		got, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(z)))
		if err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%v, %d bytes back of %d", err, len(got), len(in))
		}
	})
}
