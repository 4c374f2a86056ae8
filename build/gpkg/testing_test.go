package gpkg

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
)

// hello is a small package with one of everything.
func hello() Spec {
	return Spec{
		CPV:     build.CPV{Category: "app-misc", Name: "hello", Version: "2.1-r1"},
		BuildID: 3,
		Metadata: map[string]string{
			"SLOT": "0/2", "EAPI": "8", "IUSE": "+color nls", "USE": "amd64 color", "KEYWORDS": "amd64 ~arm64",
			"IUSE_EFFECTIVE": "amd64 color nls", "repository": "samples", "DESCRIPTION": "Says\n hello",
			"RDEPEND": "dev-libs/text:0/2= >=dev-libs/ring-1.2:3/4=[x] app-shells/bash", "DEPEND": "dev-libs/text:0/2=",
			"BUILD_TIME": "1700000000", "CHOST": "x86_64-pc-linux-gnu", "PDEPEND": "", "environment.bz2": "BZh-not-read",
		},
		MTime: 1_700_000_000,
		Image: []SourceFile{
			text("usr/bin/hello", 0o755, "#!/bin/sh\necho hello\n"),
			{File: File{Name: "usr/bin/hi", Kind: Hardlink, Mode: 0o755, Link: "usr/bin/hello"}},
			{File: File{Name: "usr/lib/hello.so", Kind: Symlink, Mode: 0o777, Link: "../../etc/x"}},
			text("usr/lib/python/a.pyc", 0o644, "\x0d\x0d\x0d\x0a\x00\x00\x00\x00TIMEsizecode"),
			{File: File{Name: "var/empty", Kind: Dir, Mode: 0o700}},
		},
	}
}

func text(name string, mode int64, body string) SourceFile {
	return SourceFile{
		File: File{Name: name, Kind: Regular, Mode: mode, Size: int64(len(body)), User: "root", Group: "root"},
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
	}
}

func pack(t testing.TB, s Spec) []byte {
	t.Helper()
	s.TempDir = t.TempDir()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// check opens and verifies.
func check(b []byte) (*Package, error) {
	p, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return p, p.Verify(noCtx)
}

// raw is one member as it stands in a tar.
type raw struct {
	name string
	body string
	kind byte // tar type, 0 = plain file
	link string
}

// rawTar writes members as they are, with the times and owners of nothing.
func rawTar(t testing.TB, members ...raw) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: 0o644, Size: int64(len(m.body)),
			ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// manifest writes the Manifest of members (names with their directory).
func manifest(t testing.TB, members ...raw) string {
	t.Helper()
	var s strings.Builder
	for _, m := range members {
		h, err := newHasher()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(h, m.body)
		_, base, _ := strings.Cut(m.name, "/")
		s.WriteString(h.line(base))
	}
	return s.String()
}

// container wraps members and adds a right Manifest.
func container(t testing.TB, members ...raw) []byte {
	t.Helper()
	return rawTar(t, append(members[:len(members):len(members)], raw{name: "hello-1/Manifest", body: manifest(t, members...)})...)
}

// plainMembers are the three members of an uncompressed package with a given
// image tar and extra metadata.
func plainMembers(t testing.TB, image []byte, extra ...raw) []raw {
	t.Helper()
	meta := append([]raw{
		{name: "metadata/CATEGORY", body: "app-misc\n"}, {name: "metadata/PF", body: "hello-1\n"},
		{name: "metadata/SLOT", body: "0\n"},
	}, extra...)
	return []raw{
		{name: "hello-1/gpkg-1"},
		{name: "hello-1/metadata.tar", body: string(rawTar(t, meta...))},
		{name: "hello-1/image.tar", body: string(image)},
	}
}
