package gpkg

import (
	"archive/tar"
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

// FuzzOpen feeds whole containers. Whatever they are, the answer is a package
// or one of the two words for a bad one.
func FuzzOpen(f *testing.F) {
	for _, c := range []Compression{Zstd, Gzip, None} {
		s := hello()
		s.Compression = c
		f.Add(bytes.TrimRight(pack(f, s), "\x00"))
	}
	for _, b := range written(f) {
		f.Add(bytes.TrimRight(b, "\x00"))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// The end of the tar would cost the fuzzer 1,024 right zeros.
		b = append(bytes.Clone(b), make([]byte, 1024+(512-len(b)%512)%512)...)
		_, err := check(b)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	})
}

// FuzzImage feeds the image tar alone, inside a container whose hashes are
// right: no name that leaves the image may ever come out.
func FuzzImage(f *testing.F) {
	root := raw{name: "image", kind: tar.TypeDir}
	f.Add(rawTar(f, root, raw{name: "image/a/b", body: "hello"}, raw{name: "image/l", kind: tar.TypeSymlink, link: "/etc"}), byte(0))
	f.Add(rawTar(f, root, raw{name: "image/../b", body: "hello"}), byte(0))
	f.Add(rawTar(f, root, raw{name: "image/" + strings.Repeat("n", 200), body: "hello"}), byte(0))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"), byte(1))
	f.Add([]byte("\x28\xb5\x2f\xfd"), byte(2))
	f.Add([]byte("BZh9"), byte(3))
	suffixes := []string{"", ".xz", ".zst", ".bz2", ".gz"}
	for _, b := range written(f) {
		p, err := check(b)
		if err != nil {
			f.Fatal(err)
		}
		packed := make([]byte, p.image.data.Size())
		if _, err := p.image.data.ReadAt(packed, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(packed, byte(slices.Index(suffixes, strings.TrimPrefix(p.Compression.suffix(), ".tar"))))
	}
	f.Fuzz(func(t *testing.T, image []byte, kind byte) {
		m := plainMembers(t, image)
		m[2].name += suffixes[int(kind)%len(suffixes)]
		p, err := check(container(t, m...))
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		files, err := p.ListFiles(noCtx)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if n := file.Name; n == ".." || strings.HasPrefix(n, "../") || path.IsAbs(n) || path.Clean(n) != n {
				t.Fatalf("name %q came out", n)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add("DATA gpkg-1 0 BLAKE2B " + strings.Repeat("0", 128) + " SHA512 " + strings.Repeat("1", 128) + "\n")
	f.Add(signedBegin + "\nHash: SHA512\n\nDATA x 1\n" + sigBegin + "\nabc\n" + sigEnd + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		entries, _, err := parseManifest([]byte(s))
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		for name, e := range entries {
			if e.size < 0 || !plainName(name) {
				t.Fatalf("%q of %d bytes came out", name, e.size)
			}
		}
	})
}
