package emerge

import (
	"archive/tar"
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/worker"
)

func TestSourcesThatNoProgramMayDownloadComeWithTheRound(t *testing.T) {
	hash := "SHA512:" + strings.Repeat("0", 128)
	plan := func(source func(build.Source) (string, error)) *build.Plan {
		d := doc(t, "bought\napp: build bought\nfree", "app", "free")
		d.Nodes[0].Distfiles = []distfile{{"game.run", 7, hash, true}, {"patch.xz", 8, hash, false}}
		p, err := convert(d, noFiles{}, conversion{target: "t", source: source})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := plan(func(s build.Source) (string, error) { return "kept-" + s.Name, nil })
	want := []build.Source{{Name: "game.run", Size: 7, Hash: hash, Restricted: true, CID: "kept-game.run"}, {Name: "patch.xz", Size: 8, Hash: hash}}
	if shape(p) != "bought; app bought; free" || len(p.Jobs[0].Sources) != 2 || p.Jobs[0].Sources[0] != want[0] || p.Jobs[0].Sources[1] != want[1] {
		t.Errorf("%s: %+v", shape(p), p.Jobs[0].Sources)
	}
	p = plan(func(build.Source) (string, error) { return "", nil })
	if shape(p) != "free" || len(p.Dropped) != 2 || p.Dropped[0].Atom != "=cat/bought-1" || !strings.HasPrefix(p.Dropped[0].Reason, "game.run may not be downloaded") {
		t.Errorf("without the file: %s: %v", shape(p), p.Dropped)
	}
}

func TestWhatIsBuiltNeedsNoSources(t *testing.T) {
	d := doc(t, "bought\napp: build bought\nrare", "app", "rare")
	for _, i := range []int{0, 2} {
		d.Nodes[i].Distfiles = []distfile{{"game.run", 7, "SHA512:" + strings.Repeat("0", 128), true}}
	}
	conv := conversion{target: "t", source: func(build.Source) (string, error) { return "", nil }}
	var bought build.Key
	conv.built = func(k build.Key) (bool, error) {
		if bought == "" {
			bought = k // the first that is asked about
		}
		return k == bought, nil
	}
	p, err := convert(d, noFiles{}, conv)
	if err != nil {
		t.Fatal(err)
	}
	if shape(p) != "bought; app bought" || p.Jobs[0].Key != bought || len(p.Dropped) != 1 || p.Dropped[0].Atom != "=cat/rare-1" {
		t.Errorf("%s, dropped %v", shape(p), p.Dropped)
	}
}

// fetched adds an ebuild that installs the file "word" of an archive, and says what
// the archive is.
func (l *lab) fetched(t *testing.T, name, url, word string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name + "-1.0/word", Mode: 0o644, Size: int64(len(word)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write([]byte(word))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	l.ebuild(t, name, "SRC_URI=\""+url+"/"+name+"-1.0.tar\"\nRESTRICT=\"mirror\"\nS=\"${WORKDIR}/${P}\"\nsrc_unpack() { tar -xf \"${DISTDIR}/${A}\" || die; }\nsrc_install() { insinto /usr/share/word; doins word; }\n")
	s5, b2 := sha512.Sum512(b.Bytes()), blake2b.Sum512(b.Bytes())
	line := fmt.Sprintf("DIST %s-1.0.tar %d BLAKE2B %s SHA512 %s\n", name, b.Len(), hex.EncodeToString(b2[:]), hex.EncodeToString(s5[:]))
	if err := os.WriteFile(filepath.Join(l.p.cfg.ConfigRoot, "repos/swarm-test/sw-hostile", name, "Manifest"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRealSourcesAreFetchedOnceAndCheckedAlways(t *testing.T) {
	l := newLab(t)
	var asked atomic.Int64
	var archive []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(archive)
	}))
	defer srv.Close()
	archive = l.fetched(t, "fetched", srv.URL, "the word\n")
	j := l.plan(t, "sw-hostile/fetched").Jobs[0]
	if len(j.Sources) != 1 || j.Sources[0].Name != "fetched-1.0.tar" || j.Sources[0].Size != int64(len(archive)) || !j.Sources[0].Valid() {
		t.Fatalf("sources %+v", j.Sources)
	}
	build1 := func(t *testing.T, before func(dir string)) worker.Request {
		t.Helper()
		req := request(t, j, nil)
		req.Base = l.ref
		dir := filepath.Join(req.Dir, worker.SourceDir)
		if err := os.MkdirAll(dir, 0o775); err != nil {
			t.Fatal(err)
		}
		before(dir)
		res, err := l.roots.Build(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := installedFile(t, res.Path, "usr/share/word/word"); got != "the word\n" {
			t.Errorf("it was built of %q", got)
		}
		f, err := os.Open(filepath.Join(dir, "fetched-1.0.tar"))
		if err == nil {
			err = errors.Join(j.Sources[0].Check(f), f.Close())
		}
		if err != nil {
			t.Errorf("what is left to share: %v", err)
		}
		return req
	}
	build1(t, func(string) {})
	if n := asked.Load(); n != 1 {
		t.Errorf("the first drone asked %d times", n)
	}
	put := func(b []byte) func(string) {
		return func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "fetched-1.0.tar"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	build1(t, put(archive))
	if n := asked.Load(); n != 1 {
		t.Errorf("a drone that was given the source asked %d times", n-1)
	}
	wrong := bytes.ReplaceAll(archive, []byte("the word"), []byte("THE WORD"))
	build1(t, put(wrong))
	if n := asked.Load(); n != 2 {
		t.Errorf("a drone that was given wrong bytes asked %d times, want once", n-1)
	}
}
