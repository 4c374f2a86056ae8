package emerge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/cas/castest"
)

// lab is a machine that builds in given roots, on its own root as base.
type lab struct {
	p     *Portage
	roots *Roots
	bases *base.Store
	ref   build.BaseRef
	files map[build.Key]string
	made  map[build.Key]string // digests of the inputs
	store string
	bring []string // archives that every build finds where sources are

	root, rest int64 // milliseconds in all: for roots, and for the rest of builds
}

// newLab finds real Portage and proves isolation, or skips.
func newLab(t *testing.T) *lab {
	t.Helper()
	cfg := testConfig(t)
	cfg.EPrefix, cfg.BuildPrefix = "", ""
	p := real(t, cfg)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the machine's own root as a base wants root")
	}
	dir := t.TempDir()
	bases := base.New(filepath.Join(dir, "bases"), castest.NewShelf(), "amd64", cfg.ConfigRoot)
	roots := NewRoots(RootsConfig{Bases: bases, Dir: dir, Own: p, Limits: sandbox.Limits{Processes: 1000}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := roots.Probe(t.Context()); err != nil {
		t.Skipf("SKIPPED, NO SANDBOXES HERE: %v", err)
	}
	ref, err := bases.AddHost(t.Context(), "host", p.Version)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{p: p, roots: roots, bases: bases, ref: ref, files: map[build.Key]string{}, store: t.TempDir()}
}

func (l *lab) plan(t *testing.T, atoms ...string) *build.Plan {
	t.Helper()
	plan, err := l.p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: atoms, Base: l.ref})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// build builds one job and keeps its package.
func (l *lab) build(t *testing.T, j build.Job) error {
	t.Helper()
	req := request(t, j, l.files)
	req.Base = l.ref
	for _, path := range l.bring {
		to := filepath.Join(req.Dir, "sources", filepath.Base(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), copyFile(path, to)); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	res, err := l.roots.Build(t.Context(), req)
	if err != nil {
		return err
	}
	l.files[j.Key] = filepath.Join(l.store, string(j.Key)+".gpkg.tar")
	t.Logf("%s: %d ms of CPU, peak %d MiB, root of %d in %d ms", j.CPV, res.CoreMillis, res.PeakMiB, j.Root.Len(), res.RootMillis)
	if l.made == nil {
		l.made = map[build.Key]string{}
	}
	l.made[j.Key] = res.Inputs
	l.root, l.rest = l.root+res.RootMillis, l.rest+time.Since(began).Milliseconds()-res.RootMillis
	return errors.Join(os.RemoveAll(l.files[j.Key]), copyFile(res.Path, l.files[j.Key]))
}

// ebuild adds an ebuild to the lab's test repository.
func (l *lab) ebuild(t *testing.T, name, body string) {
	t.Helper()
	repo := filepath.Join(l.p.cfg.ConfigRoot, "repos/swarm-test")
	dir := filepath.Join(repo, "sw-hostile", name)
	text := "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.org\"\nS=\"${WORKDIR}\"\nLICENSE=\"Apache-2.0\"\nSLOT=\"0\"\n" +
		"KEYWORDS=\"amd64 arm arm64 loong ppc64 riscv x86\"\n" + body
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+"-1.0.ebuild"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(repo, "profiles/categories"), []byte("sw-bad\nsw-good\nsw-hostile\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func TestRealGivenRoots(t *testing.T) {
	l := newLab(t)
	plan := l.plan(t, "app-misc/tally", "sw-good/choice", "sw-good/right", "sw-good/left")
	var tally, choice build.Job
	for _, j := range plan.Jobs {
		switch j.CPV.Name {
		case "tally":
			tally = j
		case "choice":
			choice = j
		}
		if err := l.build(t, j); err != nil {
			t.Fatal(err)
		}
	}
	key := func(name string) build.RootEntry {
		for _, j := range plan.Jobs {
			if j.CPV.Name == name {
				return build.RootEntry{CPV: j.CPV, Slot: j.Slot, Key: j.Key}
			}
		}
		t.Fatalf("no job %s", name)
		return build.RootEntry{}
	}
	if n, bytes, err := l.roots.Cached(); err != nil || n == 0 || bytes == 0 {
		t.Errorf("%d roots of %d bytes are cached, %v", n, bytes, err)
	}
	if kept, install := l.roots.KeptRoots(); !slices.Contains(kept, tally.Key) || install <= 0 || install == unmeasured {
		t.Errorf("a Beat would tell of the roots of %v, %s a package; want that of %s among them", kept, install, tally.Key)
	}
	if have, err := base.Packages("/"); err != nil || len(have) != len(mustManifest(t, l).Packages) {
		t.Errorf("the machine's own database was changed: %v %v", have, err)
	}
	t.Run("the root is what the job says, also after another's", func(t *testing.T) {
		for _, side := range []string{"right", "left"} {
			j := choice
			j.Root = build.NewRoot(key(side))
			if err := l.build(t, j); err != nil {
				t.Fatal(err)
			}
			if got := installedFile(t, l.files[j.Key], "usr/share/choice/chosen"); got != side+"\n" {
				t.Errorf("built in a root with %s it found %q", side, got)
			}
		}
	})
	t.Run("a cached root is used, none with a package more", func(t *testing.T) {
		req := request(t, tally, l.files)
		req.Base = l.ref
		res, err := l.roots.Build(t.Context(), req)
		if err != nil || res.RootMillis > 5000 || !res.Provisional {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("another subslot than the plan's is a mismatch", func(t *testing.T) {
		j := tally
		j.Bound = []string{">=dev-libs/libtally-1.0:0/1="}
		if f := failure(t, l.build(t, j)); f.Class != build.Mismatch {
			t.Errorf("got %v", f)
		}
	})
	t.Run("a base without what the plan takes from it", func(t *testing.T) {
		j := tally
		j.Root = build.NewRoot(build.RootEntry{CPV: build.CPV{Category: "dev-libs", Name: "libtally", Version: "1.0"}, Slot: "0/1"})
		if f := failure(t, l.build(t, j)); f.Class != build.BadMachine || !strings.Contains(f.Reason, "lacks dev-libs/libtally-1.0") {
			t.Errorf("got %v", f)
		}
	})
	t.Run("the repositories of the round, though the machine's own have another ebuild of that name", func(t *testing.T) {
		own := filepath.Join(l.p.cfg.ConfigRoot, "repos/swarm-test/sw-good/right/right-1.0.ebuild")
		text, err := os.ReadFile(own)
		if err != nil {
			t.Fatal(err)
		}
		store, blobs, _ := shelved(t)
		plan, err := l.p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"sw-good/right"}, Base: l.ref, KeepTree: func(_ context.Context, tree Tree) (string, error) {
			blobs[tree.Name] = packed(t, tree.Path)
			return tree.Name, nil
		}})
		if err != nil || len(plan.Trees) < 2 || build.TreeOf(plan.Trees) != plan.Tree {
			t.Fatalf("%v: %v", plan, err)
		}
		if err := os.WriteFile(own, bytes.ReplaceAll(text, []byte("src_install() {"), []byte("src_install() {\n\tdie 'the drone builds its own ebuild'")), 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(own, text, 0o644); err != nil {
				t.Error(err)
			}
		}()
		j := plan.Jobs[len(plan.Jobs)-1]
		if f := failure(t, l.build(t, j)); f.Class != build.BadMachine || !strings.Contains(f.Reason, "no snapshot") {
			t.Errorf("without a snapshot: %v", f)
		}
		req := request(t, j, l.files)
		req.Base = l.ref
		if req.Repos, err = store.Open(t.Context(), plan.Trees); err != nil {
			t.Fatal(err)
		}
		if _, err := l.roots.Build(t.Context(), req); err != nil {
			t.Errorf("from the snapshot: %v", err)
		}
	})
	t.Run("another tree", func(t *testing.T) {
		j := choice
		j.Tree = strings.Repeat("0", 64)
		if f := failure(t, l.build(t, j)); f.Class != build.BadMachine || !strings.Contains(f.Reason, "differ") {
			t.Errorf("got %v", f)
		}
	})
}

func mustManifest(t *testing.T, l *lab) *build.Base {
	t.Helper()
	man, err := l.bases.Manifest(t.Context(), l.ref)
	if err != nil {
		t.Fatal(err)
	}
	return man
}

// installedFile reads a file of a package's image.
func installedFile(t *testing.T, path, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "tar -xOf \"$0\" --wildcards '*/image.tar.zst' | zstd -dc | tar -xO image/\"$1\"", path, name).Output()
	if err != nil {
		t.Fatalf("read %s of %s: %v", name, path, err)
	}
	return string(out)
}

// TestRealHostilePackages builds packages that try what they must not.
func TestRealHostilePackages(t *testing.T) {
	l := newLab(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(l.p.cfg.ConfigRoot, "secret.key") // in a directory that is hidden, as the state directory is
	if err := os.WriteFile(secret, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	for _, c := range []struct {
		name, body string
		class      build.Class // Good = it is built
		says       string      // in the reason, or in the log of a good one
	}{
		{"outside", "pkg_setup() { mkdir -p " + filepath.Dir(outside) + "; touch " + outside + " /etc/swarm-outside /usr/bin/swarm-outside; chmod 777 /etc; }\n", build.Good, ""},
		{"network", "pkg_setup() { ( exec 3<>/dev/tcp/127.0.0.1/" + port + " ) 2>/dev/null && die 'the network is there'; true; }\n", build.Good, ""},
		{"keys", "pkg_setup() { cat " + secret + " /var/lib/swarm/* /etc/swarm/* 2>/dev/null && die 'the keys are there'; grep -v ':[*]:' /etc/shadow && die 'passwords'; true; }\n", build.Good, ""},
		{"daemon", "src_compile() { setsid sleep 12345 & disown; }\n", build.Good, "left running and have been ended: sleep"},
		{"forks", "src_compile() { sh -c 'while sleep 12345 & do :; done' || die 'no more processes'; }\n", build.BadPackage, "processes without end"},
		{"flood", "src_compile() { yes 'all work and no play makes jack a dull boy' | head -c 90000000; }\n", build.Good, "the log is longer than 64 MiB"},
		{"broken", "src_compile() { echo 'main.c:1:5: error: that is not C' >&2; false || die 'compile failed'; }\n", build.BadPackage, "main.c:1:5: error: that is not C"},
	} {
		l.ebuild(t, c.name, c.body)
		t.Run(c.name, func(t *testing.T) {
			plan := l.plan(t, "sw-hostile/"+c.name)
			req := request(t, plan.Jobs[0], nil)
			log := &countingLog{}
			req.Base, req.Log = l.ref, log
			began := time.Now()
			res, err := l.roots.Build(t.Context(), req)
			t.Logf("%s in %v: %v, %d ms of CPU", c.name, time.Since(began).Round(time.Millisecond), err, res.CoreMillis)
			told := log.tail.String()
			if c.class != build.Good {
				f := failure(t, err)
				if f.Class != c.class {
					t.Errorf("class %s, want %s", f.Class, c.class)
				}
				told = f.Reason
			} else if err != nil {
				t.Fatalf("%v\n%s", err, told)
			}
			if !strings.Contains(told, c.says) {
				t.Errorf("it says %q, want ...%s...", told, c.says)
			}
			if log.n > 65<<20 {
				t.Errorf("the log has %d bytes", log.n)
			}
			if left, err := exec.CommandContext(t.Context(), "pgrep", "-f", "sleep 12345").Output(); err == nil {
				t.Errorf("processes are left: %s", left)
			}
		})
	}
	for _, p := range []string{outside, "/etc/swarm-outside", "/usr/bin/swarm-outside"} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s was written", p)
		}
	}
	t.Run("full disk", func(t *testing.T) {
		l.ebuild(t, "big", "src_compile() { dd if=/dev/zero of=big bs=1M count=60 || die 'cannot write'; }\n")
		plan := l.plan(t, "sw-hostile/big")
		req := request(t, plan.Jobs[0], nil)
		req.Base, req.Log = l.ref, io.Discard
		if err := unix.Mount("tmpfs", req.Dir, "tmpfs", 0, "size=32m"); err != nil {
			t.Skipf("SKIPPED: no small disk to be had: %v", err)
		}
		defer func() {
			if err := unix.Unmount(req.Dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		_, err := l.roots.Build(t.Context(), req)
		if f := failure(t, err); f.Class != build.BadMachine || !strings.Contains(f.Reason, "no space left") {
			t.Errorf("got %v", f)
		}
	})
}

// countingLog counts a log and keeps its end.
type countingLog struct {
	n    int64
	tail bytes.Buffer
}

func (c *countingLog) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	c.tail.Write(b)
	if c.tail.Len() > 1<<20 {
		c.tail.Next(c.tail.Len() - 64<<10)
	}
	return len(b), nil
}

func TestRealGivenRootCancelled(t *testing.T) {
	l := newLab(t)
	plan := l.plan(t, "sw-bad/hangs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req := request(t, plan.Jobs[0], nil)
	req.Base, req.Log = l.ref, io.Discard
	req.Phase = func(phase string) {
		if phase == "compile" {
			cancel()
		}
	}
	_, err := l.roots.Build(ctx, req)
	if f := failure(t, err); f.Class != build.Cancelled {
		t.Errorf("got %v", f)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), req.Dir) {
		t.Errorf("mounts are left: %v", err)
	}
}

// TestRealRoundOfSmallPackages measures what roots cost in a round of small
// packages: SWARM_ROUND=200 of them. They need two to five of eight libraries, as
// the packages of one language do, in four combinations; with SWARM_SPREAD=1 one to
// five of sixteen libraries, drawn by lot, so that hardly two roots are the same.
func TestRealRoundOfSmallPackages(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SWARM_ROUND"))
	if err != nil {
		t.Skip("SKIPPED: SWARM_ROUND=200 measures a round of so many packages, for 3 s each")
	}
	l := newLab(t)
	libs := 8
	spread := os.Getenv("SWARM_SPREAD") != ""
	if spread {
		libs = 16
	}
	rng := rand.New(rand.NewPCG(1, 1))
	lib := func(i int) string { return fmt.Sprintf("sw-hostile/lib%d", i) }
	for i := range libs {
		l.ebuild(t, fmt.Sprintf("lib%d", i), fmt.Sprintf("src_install() { echo 'int lib%d(void);' > lib%d.h; doheader lib%d.h; }\n", i, i, i))
	}
	var atoms []string
	for i := range n {
		needs := lib(4 + i%4)
		for k := range 1 + i%4 {
			needs += " " + lib(k)
		}
		if spread {
			needs = ""
			for _, k := range rng.Perm(libs)[:1+rng.IntN(5)] {
				needs += " " + lib(k)
			}
		}
		name := fmt.Sprintf("app%d", i)
		l.ebuild(t, name, "DEPEND=\""+needs+"\"\nsrc_compile() { echo 'int main(void) { return 0; }' > a.c; ${CC:-cc} -O2 -o "+name+" a.c || die; }\nsrc_install() { dobin "+name+"; }\n")
		atoms = append(atoms, "sw-hostile/"+name)
	}
	plan := l.plan(t, atoms...)
	without := &lab{p: l.p, bases: l.bases, ref: l.ref, files: l.files, store: t.TempDir()}
	sampled := 0
	for i, j := range plan.Jobs {
		if err := l.build(t, j); err != nil {
			t.Fatal(err)
		}
		if j.Root.Len() > 0 && i%(1+n/8) == 0 { // the same without any cached root
			without.roots = NewRoots(RootsConfig{Bases: l.bases, Dir: t.TempDir(), Own: l.p, Probed: true, Log: slog.New(slog.DiscardHandler)})
			if err := without.build(t, j); err != nil {
				t.Fatal(err)
			}
			sampled++
		}
	}
	cached, bytes, err := l.roots.Cached()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d jobs: roots %d ms, the rest %d ms, ratio %.1f %%; %d layers of %d KiB", len(plan.Jobs), l.root, l.rest, 100*float64(l.root)/float64(l.rest), cached, bytes>>10)
	t.Logf("without cached roots, %d jobs sampled: roots %d ms, the rest %d ms, ratio %.1f %%", sampled, without.root, without.rest, 100*float64(without.root)/float64(without.rest))
}

// TestRealBuiltTwice builds the same jobs on two drones that share nothing but the
// base. What comes out is the same but for times, or it is named where it differs.
func TestRealBuiltTwice(t *testing.T) {
	l := newLab(t)
	l.ebuild(t, "compiled", "BDEPEND=\"\"\nsrc_compile() { echo 'x = 1' > mod.py; python3 -m compileall -q . || die; }\nsrc_install() { insinto /usr/share/compiled; doins -r mod.py __pycache__; }\n")
	l.ebuild(t, "dated", "src_install() { insinto /usr/share/dated; date +%s%N | newins - when; echo same | newins - what; }\n")
	l.ebuild(t, "clock", "src_compile() { echo 'const char *built = __DATE__ __TIME__; int main(void) { return built[0]; }' > clock.c; cc -O2 -o clock clock.c || die; }\nsrc_install() { dobin clock; }\n")
	differ := map[string]string{"dated": "usr/share/dated/when", "clock": "usr/bin/clock"}
	plan := l.plan(t, "app-misc/wordwrap", "app-misc/tally", "sw-good/choice", "sw-hostile/compiled", "sw-hostile/dated", "sw-hostile/clock")
	found := l.builtTwice(t, plan)
	for _, j := range plan.Jobs {
		path, _, _ := strings.Cut(found[j.CPV.Name], ": ")
		if path != differ[j.CPV.Name] {
			t.Errorf("%s differs first in %q, want %q", j.CPV, found[j.CPV.Name], differ[j.CPV.Name])
		}
	}
}

// TestRealSourcesBuiltTwice is TestRealBuiltTwice with programs that people use: those
// whose archives ("hello_2.10.orig.tar.gz") lie in a directory.
func TestRealSourcesBuiltTwice(t *testing.T) {
	archives, err := filepath.Glob(filepath.Join(os.Getenv("SWARM_SOURCES"), "*.orig.tar.[gx]z"))
	if os.Getenv("SWARM_SOURCES") == "" || err != nil || len(archives) == 0 {
		t.Skip("SKIPPED: wants archives of sources in SWARM_SOURCES")
	}
	l := newLab(t)
	var atoms []string
	for _, path := range archives {
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		l.ebuild(t, name, "src_unpack() { tar -xf "+inDist+"/"+filepath.Base(path)+" --strip-components=1 || die; }\n")
		atoms = append(atoms, "sw-hostile/"+name)
	}
	l.bring = archives
	plan := l.plan(t, atoms...)
	l.builtTwice(t, plan)
}

// builtTwice builds a plan on two drones and says where results first differ, by
// package.
func (l *lab) builtTwice(t *testing.T, plan *build.Plan) map[string]string {
	t.Helper()
	found := map[string]string{}
	other := &lab{p: l.p, bases: l.bases, ref: l.ref, files: map[build.Key]string{}, store: t.TempDir(), bring: l.bring}
	other.roots = NewRoots(RootsConfig{Bases: l.bases, Dir: t.TempDir(), Own: l.p, Probed: true, Log: slog.New(slog.DiscardHandler)})
	equal := 0
	for _, j := range plan.Jobs {
		for _, drone := range []*lab{l, other} {
			if err := drone.build(t, j); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := l.made[j.Key], other.made[j.Key]; a == "" || a != b {
			t.Errorf("%s: the inputs' digests are %q and %q", j.CPV, a, b)
		}
		a, doneA, err := openPackage(l.files[j.Key])
		if err != nil {
			t.Fatal(err)
		}
		b, doneB, err := openPackage(other.files[j.Key])
		if err != nil {
			t.Fatal(err)
		}
		one, err1 := a.ContentDigest(t.Context())
		two, err2 := b.ContentDigest(t.Context())
		where, err3 := gpkg.FirstDifference(t.Context(), a, b)
		doneA()
		doneB()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if one == two {
			equal++
		}
		if (one == two) != (where == "") {
			t.Errorf("%s: digests equal %t, first difference %q", j.CPV, one == two, where)
		}
		found[j.CPV.Name] = where
		if where != "" {
			t.Logf("%s differs: %s", j.CPV, where)
		}
	}
	t.Logf("%d of %d packages have equal content digests", equal, len(plan.Jobs))
	return found
}

// A compiler cache is written by one build and read by another: see doc.go.
func TestNoBuildInARootUsesACompilerCache(t *testing.T) {
	m := &room{p: &Portage{who: identity{uid: 0, portageUser: true, sandbox: true}}}
	for _, kv := range m.variables() {
		if list, ok := strings.CutPrefix(kv, "FEATURES="); ok {
			for _, f := range []string{"-ccache", "-distcc", "-icecream"} {
				if !slices.Contains(strings.Fields(list), f) {
					t.Errorf("FEATURES %q lacks %s", list, f)
				}
			}
			return
		}
	}
	t.Error("no FEATURES")
}
