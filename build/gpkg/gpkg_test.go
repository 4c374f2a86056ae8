package gpkg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
)

var noCtx = context.Background()

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	for _, c := range []Compression{"", Gzip, None} {
		t.Run("compression "+string(c), func(t *testing.T) {
			s := hello()
			s.Compression = c
			b := pack(t, s)
			p, err := check(b)
			if err != nil {
				t.Fatal(err)
			}
			if p.CPV != s.CPV || p.Dir != "hello-2.1-r1-3" || p.Signed || p.Metadata["BUILD_ID"] != "3" {
				t.Errorf("read %s in %s, signed %v, BUILD_ID %q", p.CPV, p.Dir, p.Signed, p.Metadata["BUILD_ID"])
			}
			if len(b)%10240 != 0 {
				t.Errorf("container of %d bytes is not padded to Python's record", len(b))
			}
			files, err := p.ListFiles(noCtx)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, fmt.Sprintf("%c %o %s %s", f.Kind, f.Mode, f.Name, f.Link))
			}
			want := []string{
				"d 755 . ", "d 755 usr ", "d 755 usr/bin ", "f 755 usr/bin/hello ", "h 755 usr/bin/hi usr/bin/hello",
				"d 755 usr/lib ", "l 777 usr/lib/hello.so ../../etc/x", "d 755 usr/lib/python ",
				"f 644 usr/lib/python/a.pyc ", "d 755 var ", "d 700 var/empty ",
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if !bytes.Equal(b, pack(t, s)) {
				t.Error("the same Spec gave other bytes")
			}
		})
	}
}

func TestLongNamesAreWrittenAndRead(t *testing.T) {
	s := hello()
	long := "usr/share/" + strings.Repeat("d", 120) + "/" + strings.Repeat("e", 120) + "/" + strings.Repeat("f", 150)
	s.Image = append(s.Image, text(long, 0o644, "x"), text("usr/share/grün", 0o644, "y"))
	p, err := check(pack(t, s))
	if err != nil {
		t.Fatal(err)
	}
	files, err := p.ListFiles(noCtx)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		if f.Name == long || f.Name == "usr/share/grün" {
			found++
		}
	}
	if found != 2 {
		t.Errorf("found %d of the 2 long names", found)
	}
}

func TestIndexMetaIsWhatPortageCopies(t *testing.T) {
	p, err := check(pack(t, hello()))
	if err != nil {
		t.Fatal(err)
	}
	want := []build.Pair{
		{Name: "BUILD_TIME", Value: "1700000000"}, {Name: "CHOST", Value: "x86_64-pc-linux-gnu"},
		{Name: "DEPEND", Value: "dev-libs/text:0/2="}, {Name: "DESC", Value: "Says hello"}, {Name: "EAPI", Value: "8"},
		{Name: "IUSE", Value: "+color nls"}, {Name: "KEYWORDS", Value: "amd64 ~arm64"},
		{Name: "RDEPEND", Value: "dev-libs/text:0/2= >=dev-libs/ring-1.2:3/4=[x] app-shells/bash"},
		{Name: "REPO", Value: "samples"}, {Name: "SLOT", Value: "0/2"}, {Name: "USE", Value: "amd64 color"},
	}
	if d := cmp.Diff(want, IndexMeta(p)); d != "" {
		t.Error(d)
	}
}

func TestCheckHoldsThePackageAgainstTheJob(t *testing.T) {
	p, err := check(pack(t, hello()))
	if err != nil {
		t.Fatal(err)
	}
	good := func() build.Job {
		return build.Job{CPV: p.CPV, Slot: "0/2", Repo: "samples", USE: []string{"color"}, IUSE: []string{"color", "nls"},
			Bound: []string{"dev-libs/ring:3/4=", "dev-libs/text:0/2="}}
	}
	j := good()
	if err := Check(p, &j); err != nil {
		t.Fatal(err)
	}
	j.Bound = []string{">=dev-libs/ring-1.2:3/4=[x]", "dev-libs/text:0/2="}
	if err := Check(p, &j); err != nil {
		t.Errorf("atoms as they stand in the package: %v", err)
	}
	for name, change := range map[string]func(*build.Job){
		"version":            func(j *build.Job) { j.CPV.Version = "2.2" },
		"repository":         func(j *build.Job) { j.Repo = "gentoo" },
		"subslot":            func(j *build.Job) { j.Slot = "0/3" },
		"flag off":           func(j *build.Job) { j.USE = nil },
		"flag on":            func(j *build.Job) { j.USE = []string{"color", "nls"} },
		"flag it lacks":      func(j *build.Job) { j.IUSE = append(j.IUSE, "static") },
		"flag of its own":    func(j *build.Job) { j.IUSE = j.IUSE[:1] },
		"other subslot":      func(j *build.Job) { j.Bound[1] = "dev-libs/text:0/1=" },
		"bound but unwanted": func(j *build.Job) { j.Bound = j.Bound[:1] },
		"wanted but unbound": func(j *build.Job) { j.Bound = append(j.Bound, "dev-libs/z:0/1=") },
	} {
		j := good()
		change(&j)
		err := Check(p, &j)
		if !errors.Is(err, ErrMismatch) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContentDigestLeavesOutWhatTwoBuildsDifferIn(t *testing.T) {
	open := func(s Spec) *Package {
		p, err := check(pack(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	digest := func(s Spec) string {
		d, err := open(s).ContentDigest(noCtx)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := func(s Spec) string {
		d, err := FirstDifference(noCtx, open(hello()), open(s))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	want := digest(hello())
	again := hello()
	again.MTime++
	again.BuildID = 4
	again.Compression = Gzip
	again.Metadata["BUILD_TIME"] = "1700000999"
	again.Metadata["environment.bz2"] = "other"
	again.Metadata["COUNTER"] = "77"
	again.Image[0].MTime = 99
	again.Image[3] = text("usr/lib/python/a.pyc", 0o644, "\x0d\x0d\x0d\x0a\x00\x00\x00\x00XXXXsizecode")
	if got := digest(again); got != want {
		t.Error("times alone changed the digest")
	}
	if got := first(again); got != "" {
		t.Errorf("times alone are a difference: %s", got)
	}
	says := map[string]string{
		"content": "usr/bin/hello: other bytes", "mode": "usr/bin/hello: mode 755 and 4755", "owner": "usr/bin/hello: another owner",
		"link": "usr/lib/hello.so: another link", "pyc code": "usr/lib/python/a.pyc: other bytes", "metadata": "metadata RDEPEND: another value", "a file": "usr/x: in the second one alone",
	}
	for name, change := range map[string]func(*Spec){
		"content": func(s *Spec) { s.Image[0] = text("usr/bin/hello", 0o755, "#!/bin/sh\necho HELLO\n") },
		"mode":    func(s *Spec) { s.Image[0].Mode = 0o4755 },
		"owner":   func(s *Spec) { s.Image[0].UID = 250 },
		"link":    func(s *Spec) { s.Image[2].Link = "../../etc/y" },
		"pyc code": func(s *Spec) {
			s.Image[3] = text("usr/lib/python/a.pyc", 0o644, "\r\r\r\n\x00\x00\x00\x00TIMEsizeCODE")
		},
		"metadata": func(s *Spec) { s.Metadata["RDEPEND"] = "" },
		"a file":   func(s *Spec) { s.Image = append(s.Image, text("usr/x", 0o644, "")) },
	} {
		s := hello()
		change(&s)
		if digest(s) == want {
			t.Errorf("%s changed and the digest did not", name)
		}
		if got := first(s); got != says[name] {
			t.Errorf("%s changed: the first difference is %q, want %q", name, got, says[name])
		}
	}
}

// TestEveryDamageIsTold flips bytes and cuts at each block of a small
// package: nothing but damage may be told, and nothing may pass unless it is
// out of what the format covers (the outer tar's own times, owners, padding).
func TestEveryDamageIsTold(t *testing.T) {
	s := hello()
	b := pack(t, s)
	good, err := check(b)
	if err != nil {
		t.Fatal(err)
	}
	want, err := good.ContentDigest(noCtx)
	if err != nil {
		t.Fatal(err)
	}
	// Every third byte, so that it is quick under the race detector too.
	for i := 0; i < len(b); i += 3 {
		bad := bytes.Clone(b)
		bad[i] ^= 0x11
		p, err := check(bad)
		if err == nil {
			if d, err := p.ContentDigest(noCtx); err != nil || d != want {
				t.Fatalf("byte %d changed: passes with other content (%v)", i, err)
			}
			continue
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for n := 0; n < len(bytes.TrimRight(b, "\x00"))+512; n += 256 {
		if _, err := check(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestLayoutsThatAreRefused(t *testing.T) {
	image := rawTar(t, raw{name: "image", kind: tar.TypeDir})
	ok := plainMembers(t, image)
	if _, err := check(container(t, ok...)); err != nil {
		t.Fatal(err)
	}
	with := func(more ...raw) []byte { return container(t, append(append([]raw{}, ok...), more...)...) }
	big := raw{name: "hello-1/metadata.tar", body: string(rawTar(t,
		raw{name: "metadata/BIG", body: strings.Repeat("x", maxMetadata)}))}
	cases := map[string]struct {
		data []byte
		says string
	}{
		"empty file":            {nil, "no members"},
		"not a tar":             {bytes.Repeat([]byte("x"), 4096), "container"},
		"second directory":      {with(raw{name: "hello-2/x"}), "two directories"},
		"no directory":          {with(raw{name: "x"}), "one directory"},
		"deeper directory":      {with(raw{name: "hello-1/a/b"}), "one directory"},
		"parent directory":      {with(raw{name: "../x"}), "one directory"},
		"absolute name":         {with(raw{name: "/x"}), "one directory"},
		"unknown member":        {with(raw{name: "hello-1/readme"}), "unknown member"},
		"symlink member":        {with(raw{name: "hello-1/readme", kind: tar.TypeSymlink, link: "/etc/passwd"}), "plain file"},
		"repeated member":       {with(ok[2]), "twice"},
		"two images":            {with(raw{name: "hello-1/image.tar.gz"}), "two image"},
		"no gpkg-1":             {container(t, ok[1:]...), "no gpkg-1"},
		"no image":              {container(t, ok[:2]...), "no image"},
		"no metadata":           {container(t, ok[0], ok[2]), "no metadata"},
		"no Manifest":           {rawTar(t, ok...), "no Manifest"},
		"signature of nothing":  {with(raw{name: "hello-1/x.tar.sig"}), "signature"},
		"data after the end":    {append(container(t, ok...), bytes.Repeat([]byte("y"), 512)...), "after the end"},
		"metadata too large":    {container(t, ok[0], big, ok[2]), "metadata of"},
		"metadata outside":      {container(t, plainMembers(t, image, raw{name: "metadata/../x", body: "y"})...), "metadata member"},
		"metadata link":         {container(t, plainMembers(t, image, raw{name: "metadata/X", kind: tar.TypeSymlink, link: "y"})...), "metadata member"},
		"metadata twice":        {container(t, plainMembers(t, image, raw{name: "metadata/SLOT", body: "y"})...), "twice"},
		"control characters":    {container(t, plainMembers(t, image, raw{name: "metadata/USE", body: "a\x1bb"})...), "control characters"},
		"not UTF-8":             {container(t, plainMembers(t, image, raw{name: "metadata/USE", body: "a\xff"})...), "control characters"},
		"manifest lacks member": {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest", body: manifest(t, ok[:2]...)})...), "not in the Manifest"},
		"manifest has more":     {rawTar(t, ok[0], ok[1], raw{name: "hello-1/Manifest", body: manifest(t, ok...)}), "missing"},
		"manifest garbage":      {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest", body: "hello"})...), "Manifest line"},
		"manifest size": {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest",
			body: strings.Replace(manifest(t, ok...), "gpkg-1 0", "gpkg-1 1", 1)})...), "the Manifest says 1"},
		"manifest huge size": {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest",
			body: strings.Replace(manifest(t, ok...), "gpkg-1 0", "gpkg-1 9999999999999999999", 1)})...), "size"},
		"manifest negative size": {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest",
			body: strings.Replace(manifest(t, ok...), "gpkg-1 0", "gpkg-1 -0", 1)})...), "size"},
		"manifest one hash": {rawTar(t, append(ok[:3:3], raw{name: "hello-1/Manifest",
			body: strings.Replace(manifest(t, ok...), "BLAKE2B", "MD5", 1)})...), "lacks"},
	}
	for name, c := range cases {
		_, err := check(c.data)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestHugeDeclaredSizesAreRefusedBeforeTheyAreRead(t *testing.T) {
	b := pack(t, hello())
	// The outer header of metadata.tar.zst declares 6 GiB.
	at := bytes.Index(b, []byte("metadata.tar.zst")) &^ 511
	copy(b[at+124:], "57777777777\x00")
	fixChecksum(b[at : at+512])
	if _, err := check(b); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("outer size: %v", err)
	}
	image := rawTar(t, raw{name: "image", kind: tar.TypeDir}, raw{name: "image/x", body: "x"})
	copy(image[512+124:], "77777777777\x00")
	fixChecksum(image[512:1024])
	if _, err := check(container(t, plainMembers(t, image)...)); !errors.Is(err, ErrDamaged) ||
		!strings.Contains(err.Error(), "too large") {
		t.Errorf("inner size: %v", err)
	}
}

// fixChecksum rewrites the checksum of a tar header.
func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestImagesThatLeaveTheirRootAreRefused(t *testing.T) {
	root := raw{name: "image", kind: tar.TypeDir}
	for name, c := range map[string]struct {
		members []raw
		says    string
	}{
		"parent":             {[]raw{root, {name: "image/../x"}}, "leaves the image"},
		"parent in front":    {[]raw{root, {name: "../image/x"}}, "leaves the image"},
		"parent at the end":  {[]raw{root, {name: "image/a/..", kind: tar.TypeDir}}, "leaves the image"},
		"absolute":           {[]raw{root, {name: "/image/x"}}, "leaves the image"},
		"twice by a slash":   {[]raw{root, {name: "image/x"}, {name: "image//x"}}, "twice"},
		"parent after two":   {[]raw{root, {name: "image//../x"}}, "leaves the image"},
		"dot":                {[]raw{root, {name: "image/./x"}}, "leaves the image"},
		"beside":             {[]raw{root, {name: "images/x"}}, "leaves the image"},
		"twice":              {[]raw{root, {name: "image/x"}, {name: "image/x"}}, "twice"},
		"twice as directory": {[]raw{root, {name: "image/x"}, {name: "image/x/", kind: tar.TypeDir}}, "twice"},
		"character device":   {[]raw{root, {name: "image/x", kind: tar.TypeChar}}, "device"},
		"block device":       {[]raw{root, {name: "image/x", kind: tar.TypeBlock}}, "device"},
		"pipe":               {[]raw{root, {name: "image/x", kind: tar.TypeFifo}}, "pipe"},
		"hard link out":      {[]raw{root, {name: "image/x", kind: tar.TypeLink, link: "/etc/shadow"}}, "leaves the image"},
		"hard link ahead":    {[]raw{root, {name: "image/x", kind: tar.TypeLink, link: "image/y"}}, "not an earlier file"},
		"below a symlink": {[]raw{root, {name: "image/x", kind: tar.TypeSymlink, link: "/etc"}, {name: "image/x/shadow"}},
			"not a directory"},
		"symlink above":  {[]raw{root, {name: "image/x/y/z"}, {name: "image/x", kind: tar.TypeSymlink, link: "/etc"}}, "members below it"},
		"root a file":    {[]raw{{name: "image", body: "x"}}, "not a directory"},
		"nothing at all": {nil, "no directory image"},
	} {
		_, err := check(container(t, plainMembers(t, rawTar(t, c.members...))...))
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestABombEndsAtTheRatio(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	tw := tar.NewWriter(z)
	body := make([]byte, 1<<20)
	for i := range 100 {
		if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("image/%d", i), Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	m := plainMembers(t, b.Bytes())
	m[2].name += ".gz"
	if _, err := check(container(t, m...)); err != nil {
		t.Fatalf("100 MiB of zeros in %d packed bytes is within the ratio: %v", b.Len(), err)
	}
	// 100 KiB packed; make the limit bite by asking for the walk's own limit.
	p, err := Open(bytes.NewReader(container(t, m...)), int64(len(container(t, m...))))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.imageLimit(), int64(freeImage+b.Len()*maxRatio); got != want {
		t.Errorf("limit %d, want %d", got, want)
	}
	l := &limitReader{r: bytes.NewReader(body), left: 1000, what: "image"}
	if n, err := io.Copy(io.Discard, l); n > 1001 || !errors.Is(err, ErrDamaged) {
		t.Errorf("limitReader passed %d bytes, %v", n, err)
	}
}

func TestAPackageReadsWithHashesInEitherOrder(t *testing.T) {
	image := rawTar(t, raw{name: "image", kind: tar.TypeDir})
	m := plainMembers(t, image)
	lines := strings.Split(strings.TrimSpace(manifest(t, m...)), "\n")
	for i, l := range lines {
		f := strings.Fields(l)
		lines[i] = strings.Join([]string{f[0], f[1], f[2], f[5], f[6], f[3], f[4]}, " ")
	}
	b := rawTar(t, append(m, raw{name: "hello-1/Manifest", body: strings.Join(lines, "\n") + "\n"})...)
	if _, err := check(b); err != nil {
		t.Fatal(err)
	}
}

func TestASignedPackageIsReadAndSaysSo(t *testing.T) {
	image := rawTar(t, raw{name: "image", kind: tar.TypeDir})
	m := plainMembers(t, image)
	m = append(m, raw{name: "hello-1/metadata.tar.sig", body: "armor"}, raw{name: "hello-1/image.tar.sig", body: "armor"})
	signed := signedBegin + "\nHash: SHA512\n\n" + manifest(t, m...) + sigBegin + "\n\nabc\n" + sigEnd + "\n"
	p, err := check(rawTar(t, append(m, raw{name: "hello-1/Manifest", body: signed})...))
	if err != nil {
		t.Fatal(err)
	}
	if !p.Signed {
		t.Error("not told as signed")
	}
	for name, text := range map[string]string{
		"no signature": signedBegin + "\n\n" + manifest(t, m...),
		"text after":   signed + manifest(t, m...),
		"no text":      signedBegin + "\n" + sigBegin + "\n" + sigEnd,
	} {
		if _, err := check(rawTar(t, append(m[:5:5], raw{name: "hello-1/Manifest", body: text})...)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherCompressionsAreReadOrNamed(t *testing.T) {
	image := rawTar(t, raw{name: "image", kind: tar.TypeDir}, raw{name: "image/x", body: strings.Repeat("hello ", 5000)})
	for cmd, suf := range map[string]string{"xz": ".xz", "bzip2": ".bz2", "zstd": ".zst", "gzip": ".gz"} {
		t.Run(cmd, func(t *testing.T) {
			if _, err := exec.LookPath(cmd); err != nil {
				t.Skipf("SKIPPED: no %s on this machine", cmd)
			}
			c := exec.Command(cmd, "-c")
			c.Stdin = bytes.NewReader(image)
			packed, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			m := plainMembers(t, packed)
			m[2].name += suf
			p, err := check(container(t, m...))
			if err != nil {
				t.Fatal(err)
			}
			if files, err := p.ListFiles(noCtx); err != nil || len(files) != 2 || files[1].Size != 30000 {
				t.Errorf("files %v, %v", files, err)
			}
			m[2].body = string(packed[:len(packed)-6])
			if _, err := check(container(t, m...)); !errors.Is(err, ErrDamaged) {
				t.Errorf("cut short: %v", err)
			}
		})
	}
	m := plainMembers(t, image)
	m[2].name += ".lz4"
	if _, err := check(container(t, m...)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("lz4: %v", err)
	}
}

func TestACancelledVerifyStops(t *testing.T) {
	b := pack(t, hello())
	p, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(noCtx)
	cancel()
	if err := p.Verify(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("index out of range") }

func TestAPanicInADecompressorIsDamage(t *testing.T) {
	d := &decompressor{r: panickingReader{}, src: &sourceReader{}}
	if _, err := d.Read(make([]byte, 1)); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// failingReader is a disk that breaks.
type failingReader struct{}

var errDisk = errors.New("input/output error")

func (f failingReader) ReadAt(p []byte, off int64) (int, error) { return 0, errDisk }

func TestAFailingDiskIsNotADamagedPackage(t *testing.T) {
	_, err := Open(failingReader{}, 10240)
	if !errors.Is(err, errDisk) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}
