package sample

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/worker"
)

// bench builds the jobs of one plan, each with what was built before.
type bench struct {
	t     *testing.T
	plan  build.Plan
	b     *Builder
	paths map[build.Key]string
	logs  map[string]string
}

func newBench(t *testing.T, tc Toolchain, o Options) *bench {
	p, _ := plan(t, tc, o)
	clock := func() time.Time { return time.Unix(1_700_000_000, 0) }
	return &bench{t: t, plan: p, b: NewBuilder(tc, clock), paths: map[build.Key]string{}, logs: map[string]string{}}
}

// detect skips loudly where nothing can be compiled.
func detect(t *testing.T) Toolchain {
	t.Helper()
	tc := Detect(context.Background(), "")
	if tc.CC == "" {
		t.Skipf("SKIPPED: compiled samples are not tested on this machine: %s", tc.Why)
	}
	return tc
}

func (b *bench) job(name string) *build.Job {
	b.t.Helper()
	for i := range b.plan.Jobs {
		if b.plan.Jobs[i].CPV.Name == name {
			return &b.plan.Jobs[i]
		}
	}
	b.t.Fatalf("no job %s", name)
	return nil
}

func (b *bench) request(j *build.Job, log io.Writer) worker.Request {
	b.t.Helper()
	req := worker.Request{Job: *j, Target: "demo", Dir: b.t.TempDir(), Log: log, Jobs: 2, Phase: func(string) {}}
	for _, r := range j.Root.All() {
		req.Root = append(req.Root, worker.RootFile{Entry: r, Path: b.paths[r.Key]})
	}
	return req
}

// build builds j and everything that its root wants, and checks the result as
// the worker does.
func (b *bench) build(j *build.Job) (*gpkg.Package, worker.Result) {
	b.t.Helper()
	for _, r := range j.Root.All() {
		if b.paths[r.Key] == "" {
			i := slices.IndexFunc(b.plan.Jobs, func(x build.Job) bool { return x.Key == r.Key })
			b.build(&b.plan.Jobs[i])
		}
	}
	var log bytes.Buffer
	res, err := b.b.Build(context.Background(), b.request(j, &log))
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", j.CPV, err, log.String())
	}
	b.paths[j.Key] = res.Path
	b.logs[j.CPV.Name] = log.String()
	return openPackage(b.t, res.Path, j), res
}

func openPackage(t *testing.T, path string, j *build.Job) *gpkg.Package {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := gpkg.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := gpkg.Check(p, j); err != nil {
		t.Fatal(err)
	}
	return p
}

func files(t *testing.T, p *gpkg.Package) []string {
	t.Helper()
	list, err := p.ListFiles(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range list {
		if f.Kind != gpkg.Dir {
			out = append(out, fmt.Sprintf("%s %o", f.Name, f.Mode))
		}
	}
	return out
}

func TestTheShellSamplesBuildWithoutACompiler(t *testing.T) {
	tc := bare(runtime.GOARCH, "gnu")
	tc.Why = "told to have none"
	b := newBench(t, tc, Options{})
	for i := range b.plan.Jobs {
		b.build(&b.plan.Jobs[i])
	}
	p, res := b.build(b.job("sample-backup"))
	want := []string{"usr/bin/sample-backup 755", "usr/share/man/man1/sample-backup.1 644"}
	if d := cmp.Diff(want, files(t, p)); d != "" {
		t.Error(d)
	}
	if p.Metadata["BDEPEND"] != ">=dev-util/sample-doc-1.0" || p.Metadata["repository"] != Repo || p.Dir != "sample-backup-0.3-1" {
		t.Errorf("metadata %q", p.Metadata)
	}
	if res.Inputs == "" || filepath.Base(res.Path) != "sample-backup-0.3-1.gpkg.tar" {
		t.Errorf("result %+v", res)
	}
}

func TestTheCompiledSamplesBuildAndLink(t *testing.T) {
	tc := detect(t)
	b := newBench(t, tc, Options{})
	p, _ := b.build(b.job("sample-text"))
	lib := "usr/" + tc.LibDir + "/libsample-text"
	want := []string{"usr/include/sample/text.h 644", lib + ".a 644", lib + ".so 777", lib + ".so.2 755"}
	if d := cmp.Diff(want, files(t, p)); d != "" {
		t.Error(d)
	}
	if got := p.Metadata["PROVIDES"]; !strings.HasSuffix(got, ": libsample-text.so.2") {
		t.Errorf("PROVIDES %q", got)
	}
	p, res := b.build(b.job("sample-calc"))
	for _, so := range []string{"libsample-text.so.2", "libsample-dft.so.1"} {
		if !strings.Contains(p.Metadata["REQUIRES"], so) || !strings.Contains(p.Metadata["NEEDED.ELF.2"], so) {
			t.Errorf("REQUIRES %q, NEEDED.ELF.2 %q lack %s", p.Metadata["REQUIRES"], p.Metadata["NEEDED.ELF.2"], so)
		}
	}
	if res.CoreMillis <= 0 || res.PeakMiB <= 0 {
		t.Errorf("cost %+v", res)
	}
	// The two USE variants are two packages.
	var digests []string
	for i := range b.plan.Jobs {
		if j := &b.plan.Jobs[i]; j.CPV.Name == "sample-hello" {
			p, _ := b.build(j)
			d, err := p.ContentDigest(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, d)
		}
	}
	if len(digests) != 2 || digests[0] == digests[1] {
		t.Errorf("USE variants have contents %v", digests)
	}
	t.Run("a second build in another place is the same", func(t *testing.T) {
		b.t = t
		first := openPackage(t, b.paths[b.job("sample-calc").Key], b.job("sample-calc"))
		b.b.now = func() time.Time { return time.Unix(1_800_000_000, 0) }
		again, _ := b.build(b.job("sample-calc"))
		x, err := first.ContentDigest(context.Background())
		y, err2 := again.ContentDigest(context.Background())
		if err != nil || err2 != nil || x != y {
			t.Errorf("contents %s and %s, %v %v", x, y, err, err2)
		}
		if again.Metadata["BUILD_TIME"] != "1800000000" {
			t.Errorf("BUILD_TIME %s", again.Metadata["BUILD_TIME"])
		}
	})
	t.Run("a cancelled build leaves no process", func(t *testing.T) {
		b.t = t
		testKill(t, b)
	})
}

// processesIn lists processes, zombies left out, whose directory is below dir.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, link := range cwds {
		at, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(at, dir) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(link), "stat"))
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			out = append(out, filepath.Base(filepath.Dir(link)))
		}
	}
	return out
}

// testKill cancels a long build once its first file compiles.
func testKill(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch := writerFunc(func(p []byte) {
		if strings.Contains(string(p), "cc -c dft_") {
			cancel()
		}
	})
	req := b.request(b.job("sample-spectrum"), watch)
	_, err := b.b.Build(ctx, req)
	wantFailure(t, err, "cancelled", "stopped: context canceled")
	if left := processesIn(t, req.Dir); len(left) > 0 {
		t.Errorf("processes %v still run in %s", left, req.Dir)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestAPackageThatDoesNotBuildIsBlamed(t *testing.T) {
	tc := bare(runtime.GOARCH, "gnu")
	tc.Why = "told to have none"
	b := newBench(t, tc, Options{Broken: true})
	_, err := b.b.Build(context.Background(), b.request(b.job("sample-broken-script"), io.Discard))
	wantFailure(t, err, build.BadPackage, "error: sample-broken-script fails on purpose")
}

func TestTheFirstErrorOfACompilerIsTold(t *testing.T) {
	b := newBench(t, detect(t), Options{Broken: true})
	var log bytes.Buffer
	_, err := b.b.Build(context.Background(), b.request(b.job("sample-broken"), &log))
	wantFailure(t, err, build.BadPackage, "no_such_name")
	if !strings.Contains(log.String(), "no_such_name") {
		t.Errorf("log %q", log.String())
	}
}

func wantFailure(t *testing.T, err error, class build.Class, says string) {
	t.Helper()
	var f *build.Failure
	if !errors.As(err, &f) || f.Class != class || !strings.Contains(f.Reason, says) || strings.Contains(f.Reason, "\n") {
		t.Errorf("got %v, want %s: %s", err, class, says)
	}
}

func TestTheMachineIsBlamedForWhatIsItsFault(t *testing.T) {
	tc := bare(runtime.GOARCH, "gnu")
	tc.Why = "no C compiler on PATH"
	full := newBench(t, gcc(), Options{})
	_, err := NewBuilder(tc, nil).Build(context.Background(), full.request(full.job("sample-gen"), io.Discard))
	wantFailure(t, err, build.BadMachine, "no C compiler")

	b := newBench(t, tc, Options{})
	log := &fullWriter{}
	_, err = b.b.Build(context.Background(), b.request(b.job("sample-greet"), log))
	wantFailure(t, err, build.BadMachine, "no space left on device")

	damaged := filepath.Join(t.TempDir(), "x.gpkg.tar")
	if err := os.WriteFile(damaged, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	b.paths[b.job("sample-doc").Key] = damaged
	_, err = b.b.Build(context.Background(), b.request(b.job("sample-backup"), io.Discard))
	wantFailure(t, err, build.BadMachine, "damaged gpkg")

	b.build(b.job("sample-greet"))
	b.paths[b.job("sample-doc").Key] = b.paths[b.job("sample-greet").Key]
	_, err = b.b.Build(context.Background(), b.request(b.job("sample-backup"), io.Discard))
	wantFailure(t, err, build.BadMachine, "the file is app-shells/sample-greet-1.0")
}

// fullWriter is a log on a full disk.
type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) {
	return 0, fmt.Errorf("write build log: %w", syscall.ENOSPC)
}

func TestLinesOfALogTellWhoseFaultItIs(t *testing.T) {
	exit := func() error {
		_, err := runGroup(context.Background(), command{dir: t.TempDir(), env: baseEnv(t.TempDir()), path: "/bin/sh",
			args: []string{"-c", "exit 1"}, out: io.Discard})
		return err
	}()
	for _, c := range []struct {
		log   string
		class build.Class
		says  string
	}{
		{"cc -c a.c\na.c:3:1: error: first\na.c:4:1: error: second\n", build.BadPackage, "a.c:3:1: error: first"},
		{"\x1b[1mfoo.c:1:1: \x1b[31merror:\x1b[0m x\n", build.BadPackage, "error:"},
		{"fatal error: error writing to /tmp/x.s: No space left on device\nerror: compile failed\n", build.BadMachine, "No space left"},
		{"cc: fatal error: Killed signal terminated program cc1\n", build.BadMachine, "Killed signal"},
		{"only this\n\n", build.BadPackage, "only this"},
		{"unfinished line", build.BadPackage, "unfinished line"},
		{"", build.BadPackage, "exit status 1"},
		{strings.Repeat("x", 1<<20) + " error: far away", build.BadPackage, "xxx"},
	} {
		l := &logScanner{w: &stickyWriter{w: io.Discard}}
		// In pieces, as a pipe gives them.
		for b := []byte(c.log); len(b) > 0; b = b[min(len(b), 7):] {
			if _, err := l.Write(b[:min(len(b), 7)]); err != nil {
				t.Fatal(err)
			}
		}
		wantFailure(t, l.failure(exit), c.class, c.says)
	}
}

func TestAMachineWithoutACompilerSaysWhy(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: no compiler is looked for here")
	}
	ctx := context.Background()
	if tc := Detect(ctx, "no-such-compiler"); tc.CC != "" || !strings.Contains(tc.Why, "no-such-compiler") {
		t.Errorf("missing compiler: %+v", tc)
	}
	t.Setenv("PATH", t.TempDir())
	if tc := Detect(ctx, ""); tc.CC != "" || !strings.Contains(tc.Why, "no C compiler (cc, gcc, clang) on PATH") || tc.CHOST == "" {
		t.Errorf("empty PATH: %+v", tc)
	}
	// A compiler that cannot link, as one without the C library's headers.
	dir := os.Getenv("PATH")
	for name, script := range map[string]string{"cc": "#!/bin/sh\necho cc 1.0\ncase $1 in -x) echo no stdio.h >&2; exit 1;; esac\n", "ar": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if tc := Detect(ctx, ""); tc.CC != "" || !strings.Contains(tc.Why, "cannot make a program") || !strings.Contains(tc.Why, "no stdio.h") {
		t.Errorf("useless compiler: %+v", tc)
	}
}

func TestARecipeSeesNothingOfTheDaemonsEnvironment(t *testing.T) {
	t.Setenv("SWARM_TEST_SECRET", "hunter2")
	var log bytes.Buffer
	_, err := runGroup(context.Background(), command{dir: t.TempDir(), env: baseEnv(t.TempDir()), path: "/bin/sh",
		args: []string{"-c", "env"}, out: &log})
	if err != nil || strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "PATH=") {
		t.Errorf("%v: %s", err, log.String())
	}
}
