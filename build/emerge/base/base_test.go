package base

import (
	"archive/tar"
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/cas/castest"
)

func TestMain(m *testing.M) {
	if code, hidden := sandbox.Main(os.Args, Ops()); hidden {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: making a base takes root")
	}
}

// write makes files below dir: "name" = text; a name that ends in "/" is a
// directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// root writes a small root with Portage and a library in its database.
func root(t *testing.T, dir string) {
	write(t, dir, map[string]string{
		"usr/bin/emerge": "#!/bin/sh\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "dev/null": "no device", "var/tmp/junk": "x", "proc/": "",
		"var/db/pkg/sys-apps/portage-3.0.82/SLOT": "0\n", "var/db/pkg/sys-apps/portage-3.0.82/repository": "gentoo\n",
		"var/db/pkg/dev-libs/lib-1.0/SLOT": "0/1\n", "var/db/pkg/dev-libs/lib-1.0/USE": "b a amd64\n", "var/db/pkg/dev-libs/lib-1.0/IUSE": "+a b c\n",
		"var/db/pkg/dev-libs/-MERGING-lib-2.0/SLOT": "0\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Symlink("../usr/bin/emerge", at("etc/link")), os.Link(at("usr/bin/emerge"), at("usr/bin/emerge-too")),
		os.Chmod(at("usr/bin/emerge"), 0o755|os.ModeSetuid),
		filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.Type()&os.ModeSymlink != 0 {
				return err
			}
			when := time.Unix(1e9+int64(len(p)-len(dir)), 0)
			return os.Chtimes(p, when, when)
		}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// list writes down what is below dir, to compare.
func list(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(at string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, at)
		fmt.Fprintf(&b, "%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			text, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %d %q", st.Mtim.Sec, st.Nlink, text)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestABaseTravelsAndIsTheSameEverywhere(t *testing.T) {
	asRoot(t)
	blobs := castest.NewShelf()
	here := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	ref, err := here.AddDirectory(t.Context(), "one", "a test", func(dir string) error { root(t, dir); return os.Lchown(filepath.Join(dir, "etc/passwd"), 250, 250) })
	if err != nil {
		t.Fatal(err)
	}
	again, err := here.AddDirectory(t.Context(), "two", "a test", func(dir string) error { root(t, dir); return os.Lchown(filepath.Join(dir, "etc/passwd"), 250, 250) })
	if err != nil || again.Digest != ref.Digest {
		t.Errorf("the same files made another base: %v, %v", again, err)
	}
	there := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	got, err := there.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := here.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	// The files that nobody packs stand only where the base was made.
	for _, gone := range []string{"dev/null", "var/tmp/junk"} {
		if err := os.Remove(filepath.Join(mine.Lower[0], gone)); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := list(t, mine.Lower[0]), list(t, got.Lower[0]); a != b {
		t.Errorf("here:\n%s\nthere:\n%s", a, b)
	}
	if got.Manifest.Portage != "3.0.82" || len(got.Manifest.Packages) != 2 || got.Manifest.Packages[0].Slot != "0/1" || !slices.Equal(got.Manifest.Packages[0].USE, []string{"a", "b"}) {
		t.Errorf("manifest %+v", got.Manifest)
	}
	if b, err := os.Stat(filepath.Join(got.Lower[0], "etc/link")); err != nil || b.Mode()&os.ModeSetuid == 0 {
		t.Errorf("the link leads to %v, %v", b, err)
	}

	names, err := here.Names()
	if err != nil || len(names) != 2 || names[0].Newest() != ref {
		t.Errorf("names %v, %v", names, err)
	}
	if err := here.Forget(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine.Lower[0]); err != nil {
		t.Errorf("the other name's files are gone: %v", err)
	}
	if err := here.Forget(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine.Lower[0]); err == nil {
		t.Error("the files are still there and no name means them")
	}
	if err := here.Forget(t.Context(), "two"); !errors.Is(err, ErrNoBase) {
		t.Errorf("forgotten twice: %v", err)
	}
}

func TestTheNextGenerationIsALayer(t *testing.T) {
	asRoot(t)
	blobs := castest.NewShelf()
	here := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	ref, err := here.AddDirectory(t.Context(), "one", "a test", func(dir string) error { root(t, dir); return nil })
	if err != nil {
		t.Fatal(err)
	}
	old, err := here.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	// What an overlay leaves when lib-1.0 becomes lib-2.0, and usr/bin is made
	// anew.
	upper := t.TempDir()
	write(t, upper, map[string]string{"var/db/pkg/dev-libs/lib-2.0/SLOT": "0/2\n", "usr/bin/emerge": "#!/bin/bash\n"})
	if err := unix.Mknod(filepath.Join(upper, "var/db/pkg/dev-libs/lib-1.0"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(upper, "usr/bin"), opaqueNames[0], []byte("y"), 0); err != nil {
		t.Skipf("SKIPPED: no extended attributes here: %v", err)
	}
	next, err := here.AddLayer(t.Context(), old, upper, Next{Name: "one", Generation: 1, Source: "an update"})
	if n, nerr := here.Named("one"); nerr != nil || n.Newest() != ref {
		t.Errorf("before it is named, the name means %v, %v", n, nerr)
	}
	if err == nil {
		err = here.Name(next)
	}
	if err != nil {
		t.Fatal(err)
	}
	there := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	got, err := there.Open(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	packages, err := Packages(got.Lower...)
	if err != nil || len(List(packages)) != 2 || List(packages)[0].CPV.Version != "2.0" || got.Manifest.From != ref.Digest || got.Manifest.Generation != 1 {
		t.Errorf("packages %v, manifest %+v, %v", List(packages), got.Manifest, err)
	}
	if files, err := os.ReadDir(filepath.Join(got.Lower[0], "usr/bin")); err != nil || len(files) != 1 {
		t.Errorf("usr/bin holds %v, %v", files, err)
	}
	if n, err := here.Named("one"); err != nil || len(n.Generations) != 2 || n.Newest() != next {
		t.Errorf("the name means %v, %v", n, err)
	}
}

// TestManyGenerationsBecomeOneArchive updates a base until its archives are
// flattened: the files are the same, and the name does not depend on who did it.
func TestManyGenerationsBecomeOneArchive(t *testing.T) {
	asRoot(t)
	blobs := castest.NewShelf()
	here := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	ref, err := here.AddDirectory(t.Context(), "one", "a test", func(dir string) error { root(t, dir); return nil })
	if err != nil {
		t.Fatal(err)
	}
	grow := func(s *Store, from build.BaseRef, n int) build.BaseRef {
		on, err := s.Open(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		upper := t.TempDir()
		write(t, upper, map[string]string{fmt.Sprintf("var/db/pkg/dev-libs/lib-%d.0/SLOT", n+2): "0/2\n", "usr/share/count": fmt.Sprint(n)})
		err = unix.Mknod(filepath.Join(upper, fmt.Sprintf("var/db/pkg/dev-libs/lib-%d.0", n+1)), unix.S_IFCHR, 0)
		for _, dir := range []string{"", "usr", "usr/share", "usr/share/count", "var", "var/db", "var/db/pkg", "var/db/pkg/dev-libs", fmt.Sprintf("var/db/pkg/dev-libs/lib-%d.0", n+2)} {
			err = errors.Join(err, os.Chtimes(filepath.Join(upper, dir), time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}
		if err != nil {
			t.Fatal(err)
		}
		next, err := s.AddLayer(t.Context(), on, upper, Next{Name: "one", Generation: n + 1, Source: "an update"})
		if err == nil {
			err = s.Name(next)
		}
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	var chain []build.BaseRef
	for n := range maxStack {
		ref = grow(here, ref, n)
		chain = append(chain, ref)
	}
	man, err := here.Manifest(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(man.Layers) != 1 || man.Generation != maxStack || man.From != chain[len(chain)-2].Digest || len(man.Packages) != 2 || man.Packages[0].CPV.Version != "17.0" {
		t.Errorf("generation %d after %.6s: %d layers, packages %v", man.Generation, man.From, len(man.Layers), man.Packages)
	}
	before, err := here.Manifest(t.Context(), chain[len(chain)-2])
	if err != nil || len(before.Layers) != maxStack {
		t.Fatalf("the generation before has %d layers, %v", len(before.Layers), err)
	}
	// Another peer makes the same of the generation before, and what it unpacks of
	// the one archive is what was flattened here.
	there := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	if again := grow(there, chain[len(chain)-2], maxStack-1); again.Digest != ref.Digest {
		t.Errorf("another peer names it %s, here it is %s", again.Digest, ref.Digest)
	}
	third := New(filepath.Join(t.TempDir(), "bases"), blobs, "amd64")
	a, err := here.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	b, err := third.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if x, y := list(t, a.Lower[0]), list(t, b.Lower[0]); x != y {
		t.Errorf("flattened:\n%s\nunpacked:\n%s", x, y)
	}
	if next := grow(here, ref, maxStack); next == ref {
		t.Error("a flattened base does not grow")
	}

	// Of the many generations three keep their name, and one that is built on.
	gone, err := here.Prune(t.Context(), "one", func(digest string) bool { return digest == chain[4].Digest })
	if err != nil {
		t.Fatal(err)
	}
	n, err := here.Named("one")
	if err != nil || len(n.Generations) != KeepGenerations+1 || n.Generations[0].Digest != chain[4].Digest || len(gone) != maxStack+2-KeepGenerations-1 {
		t.Errorf("%d are gone, there are %v, %v", len(gone), n.Generations, err)
	}
	for _, digest := range gone {
		if _, err := os.Stat(filepath.Join(here.dir, digest)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the files of %.8s are still there: %v", digest, err)
		}
	}
	if _, err := here.Open(t.Context(), chain[4]); err != nil {
		t.Errorf("what is built on cannot be opened: %v", err)
	}
	// A base without a name goes when nobody opened it for a day, and only then.
	if err := third.Tidy(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Lower[0]); err != nil {
		t.Errorf("one that was just opened: %v", err)
	}
	old := time.Now().Add(-2 * unpackedFor)
	if err := os.Chtimes(filepath.Join(third.dir, ref.Digest), old, old); err != nil {
		t.Fatal(err)
	}
	if err := third.Tidy(t.Context(), func(digest string) bool { return digest == ref.Digest }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Lower[0]); err != nil {
		t.Errorf("one that is in use: %v", err)
	}
	if err := third.Tidy(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Lower[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that nobody uses: %v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, c := range []struct {
		name    string
		entries []tar.Header
	}{
		{"up", []tar.Header{{Name: "../x", Typeflag: tar.TypeReg}}},
		{"through a link", []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(outside)}, {Name: "a/outside", Typeflag: tar.TypeReg}}},
		{"through a relative link", []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "a/x", Typeflag: tar.TypeDir}}},
		{"a hard link to outside", []tar.Header{{Name: "a", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}},
		{"deep", []tar.Header{{Name: strings.Repeat("a/", 100), Typeflag: tar.TypeDir}}},
		{"more than told", []tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 2000}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range c.entries {
				h.Mode = 0o755
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(make([]byte, h.Size)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := UnpackTar(t.Context(), &b, t.TempDir(), 1000); err == nil {
				t.Error("it was unpacked")
			}
			if _, err := os.Lstat(outside); err == nil {
				t.Error("it wrote outside")
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "a/b", Typeflag: tar.TypeDir, Mode: 0o755}), w.WriteHeader(&tar.Header{Name: "a/c", Typeflag: tar.TypeSymlink, Linkname: "../../x"}), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		in := filepath.Join(dir, "in")
		if err := os.Mkdir(in, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = UnpackTar(t.Context(), bytes.NewReader(data), in, 1<<20) // any error will do
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("beside the directory: %v %v", left, err)
		}
	})
}

// signedStage writes a stage with its signature and the key's file.
func signedStage(t *testing.T, xz bool) (stage, keys string) {
	t.Helper()
	dir, from := t.TempDir(), t.TempDir()
	root(t, from)
	stage = filepath.Join(dir, "stage3-test.tar")
	out, err := exec.CommandContext(t.Context(), "tar", "-C", from, "-cf", stage, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if xz {
		if out, err := exec.CommandContext(t.Context(), "xz", stage).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no xz here: %v %s", err, out)
		}
		stage += ".xz"
	}
	e, err := openpgp.NewEntity("test", "", "test@example.org", &packet.Config{DefaultHash: crypto.SHA512, Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.Open(stage)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	var sig, pub bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&sig, e, text, nil); err != nil {
		t.Fatal(err)
	}
	a, err := armor.Encode(&pub, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(e.Serialize(a), a.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	keys = filepath.Join(dir, "keys.asc")
	if err := errors.Join(os.WriteFile(stage+".asc", sig.Bytes(), 0o644), os.WriteFile(keys, pub.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	return stage, keys
}

func TestAStageIsTakenOnlyWithItsSignature(t *testing.T) {
	asRoot(t)
	stage, keys := signedStage(t, true)
	_, other := signedStage(t, false)
	s := New(filepath.Join(t.TempDir(), "bases"), castest.NewShelf(), "amd64")
	ref, err := s.AddStage(t.Context(), "signed", Stage{File: stage, Keyring: keys})
	if err != nil {
		t.Fatal(err)
	}
	if man, err := s.Manifest(t.Context(), ref); err != nil || man.Kind != build.BaseStage3 || !strings.Contains(man.Source, "signed by ") {
		t.Errorf("manifest %+v, %v", man, err)
	}
	if _, err := s.AddStage(t.Context(), "x", Stage{File: stage, Keyring: other}); !errors.Is(err, ErrSignature) {
		t.Errorf("another's key: %v", err)
	}
	if _, err := s.AddStage(t.Context(), "x", Stage{File: stage, Keyring: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no keys: %v", err)
	}
	text, err := os.ReadFile(stage)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), filepath.Base(stage))
	text[len(text)/2] ^= 1
	if err := os.WriteFile(changed, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddStage(t.Context(), "x", Stage{File: changed, Keyring: keys}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no signature: %v", err)
	}
	if _, err := s.AddStage(t.Context(), "x", Stage{File: changed, Signature: stage + ".asc", Keyring: keys}); !errors.Is(err, ErrSignature) {
		t.Errorf("a changed archive: %v", err)
	}
	if ref, err := s.AddStage(t.Context(), "unsigned", Stage{File: stage, Unsigned: true}); err != nil {
		t.Errorf("unsigned, as asked: %v", err)
	} else if man, err := s.Manifest(t.Context(), ref); err != nil || !strings.Contains(man.Source, "not signed") {
		t.Errorf("manifest %+v, %v", man, err)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestAHostBaseIsItsMachinesAndHidesItsSecrets(t *testing.T) {
	asRoot(t)
	secret := t.TempDir()
	write(t, secret, map[string]string{"key": "secret"})
	blobs := castest.NewShelf()
	dir := t.TempDir()
	s := New(filepath.Join(dir, "bases"), blobs, "amd64", secret)
	ref, err := s.AddHost(t.Context(), "host", "3.0.82")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), ref)
	if err != nil || !r.Manifest.Provisional() {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, d := range []string{"upper", "work", "mnt"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	res, out, err := sandbox.Output(t.Context(), sandbox.Spec{
		Machine: r.Machine, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Mount: filepath.Join(dir, "mnt"),
		Args: []string{"/bin/sh", "-c", "cat " + secret + "/key; ls -A /root /home /tmp /var/tmp | grep -v :; grep -v ':[*]:' /etc/shadow; ls /bin/sh"},
		Env:  []string{"PATH=/usr/bin:/bin"},
	}, nil, 1<<20)
	if errors.Is(err, sandbox.ErrSetup) {
		t.Skipf("SKIPPED, NO SANDBOXES HERE: %v", err)
	}
	if err != nil || res.Exit != 0 || strings.Contains(string(out), "secret\n") || !strings.HasSuffix(string(out), "\n/bin/sh\n") {
		t.Errorf("%+v %v: %q", res, err, out)
	}
	man := *r.Manifest
	man.Host = "host:another"
	other, err := man.Ref("host")
	if err != nil {
		t.Fatal(err)
	}
	b, err := build.Marshal(&man)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.Put(t.Context(), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), other); !errors.Is(err, ErrOtherHost) {
		t.Errorf("another machine's: %v", err)
	}
}
