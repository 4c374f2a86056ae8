package emerge

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/worker"
)

// real finds the machine's Portage, or skips the test so that it shows.
func real(t *testing.T, cfg Config) *Portage {
	t.Helper()
	p, err := Detect(t.Context(), cfg)
	if errors.Is(err, ErrNoPortage) || errors.Is(err, ErrUnusable) {
		t.Skipf("SKIPPED, REAL PORTAGE NOT TESTED HERE: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if cfg.EPrefix != "" {
		if err := layOutPrefix(cfg.EPrefix, p.globals); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// testConfig is the sample configuration with the test repository beside it.
func testConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := DemoConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := filepath.Abs("testdata/repo")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "repos/swarm-test")
	if err := os.CopyFS(to, os.DirFS(repo)); err != nil {
		t.Fatal(err)
	}
	err = WriteConfig(dir, []Repository{
		{"swarm-demo", filepath.Join(dir, "repos/swarm-demo")}, {"swarm-test", to},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// buildAll builds a plan's jobs one after another and returns the packages.
func buildAll(t *testing.T, p *Portage, plan *build.Plan) map[build.Key]string {
	t.Helper()
	b := NewBuilder(p, slog.New(slog.NewTextHandler(t.Output(), nil)))
	files := make(map[build.Key]string)
	store := t.TempDir()
	for _, j := range plan.Jobs {
		req := request(t, j, files)
		res, err := b.Build(t.Context(), req)
		if err != nil {
			t.Fatalf("build %s: %v", j.CPV, err)
		}
		files[j.Key] = filepath.Join(store, string(j.Key)+".gpkg.tar")
		if err := copyFile(res.Path, files[j.Key]); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d ms of CPU, peak %d MiB, root of %d", j.CPV, res.CoreMillis, res.PeakMiB, j.Root.Len())
	}
	return files
}

func request(t *testing.T, j build.Job, files map[build.Key]string) worker.Request {
	t.Helper()
	req := worker.Request{Job: j, Target: "test", Dir: t.TempDir(), Log: t.Output(), Jobs: 2}
	for _, r := range j.Root.All() {
		if r.Key != "" {
			req.Root = append(req.Root, worker.RootFile{Entry: r, Path: files[r.Key]})
		}
	}
	return req
}

// TestRealCancelEndsEverything cancels a build whose processes ignore SIGTERM
// and have a session of their own.
func TestRealCancelEndsEverything(t *testing.T) {
	p := real(t, testConfig(t))
	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"sw-bad/hangs"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req := request(t, plan.Jobs[0], nil)
	req.Phase = func(phase string) {
		if phase == "compile" {
			cancel()
		}
	}
	_, err = NewBuilder(p, slog.New(slog.DiscardHandler)).Build(ctx, req)
	var f *build.Failure
	if !errors.As(err, &f) || f.Class != build.Cancelled {
		t.Errorf("got %v, want a cancelled build", err)
	}
	left, err := belonging(req.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("processes left: %v %v", left, err)
	}
}

// inPlace is a machine that builds in its own root: the test configuration as
// a Prefix of its own.
func inPlace(t *testing.T) Config {
	cfg := testConfig(t)
	cfg.BuildPrefix = ""
	return cfg
}

// emergeRun runs the real emerge on a configuration.
func emergeRun(t *testing.T, p *Portage, cfg Config, pkgdir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.Emerge, append([]string{"--ignore-default-opts", "--color=n", "--nospinner"}, args...)...)
	cmd.Env = append(p.environment(cfg.ConfigRoot, cfg.EPrefix), "PKGDIR="+pkgdir, "FEATURES=-pkgdir-index-trusted")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pkgdirOf lays packages out as emerge wants them in PKGDIR.
func pkgdirOf(t *testing.T, plan *build.Plan, files map[build.Key]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, j := range plan.Jobs {
		to := filepath.Join(dir, j.CPV.Category, j.CPV.Name, j.CPV.PF()+"-1.gpkg.tar")
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(files[j.Key], to); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// failure is the class and reason of an error of Build.
func failure(t *testing.T, err error) *build.Failure {
	t.Helper()
	var f *build.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a failure with a class", err)
	}
	t.Log(f)
	return f
}

// TestRealLibraryUpdate is the everyday case: a library's subslot moves on a
// machine that has it and a dependant installed.
func TestRealLibraryUpdate(t *testing.T) {
	cfg := inPlace(t)
	p := real(t, cfg)
	mask := filepath.Join(cfg.ConfigRoot, "etc/portage/package.mask")
	if err := os.WriteFile(mask, []byte(">=dev-libs/libtally-2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	old, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"app-misc/tally"}})
	if err != nil {
		t.Fatal(err)
	}
	files := buildAll(t, p, old)
	if out, err := emergeRun(t, p, cfg, pkgdirOf(t, old, files), "-K", "app-misc/tally"); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	if err := os.Remove(mask); err != nil {
		t.Fatal(err)
	}

	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"@world"}, Update: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(planLines(plan), "\n"))
	if len(plan.Jobs) != 2 || plan.Jobs[0].CPV.String() != "dev-libs/libtally-2.0" || plan.Jobs[1].CPV.String() != "app-misc/tally-1.0" {
		t.Fatalf("want the library and its dependant, in this order, and nothing that is installed already")
	}
	tally := plan.Jobs[1]
	if !slices.Equal(tally.Bound, []string{">=dev-libs/libtally-1.0:0/2="}) {
		t.Errorf("bound %v, want subslot 2", tally.Bound)
	}
	var baseOnly []string
	for _, r := range tally.Root.All() {
		if r.Key == "" {
			baseOnly = append(baseOnly, r.CPV.String())
		}
	}
	if !slices.Equal(baseOnly, []string{"dev-util/tablegen-1.0"}) {
		t.Errorf("from the base: %v, want the code generator, which is installed", baseOnly)
	}

	b := NewBuilder(p, slog.New(slog.DiscardHandler))
	files = map[build.Key]string{}
	res, err := b.Build(t.Context(), request(t, plan.Jobs[0], files))
	if err != nil {
		t.Fatal(err)
	}
	files[plan.Jobs[0].Key] = res.Path
	_, err = b.Build(t.Context(), request(t, tally, files))
	if f := failure(t, err); f.Class != build.BadMachine || !strings.Contains(f.Reason, "may not replace") {
		t.Errorf("a build in place replaced what is installed: %v", f)
	}

	cfg.Replace = true
	p = real(t, cfg)
	b = NewBuilder(p, slog.New(slog.DiscardHandler))
	if _, err = b.Build(t.Context(), request(t, tally, files)); err != nil {
		t.Errorf("build in place that may replace: %v", err)
	}
}

// TestRealRootIsGivenNotFound builds on a machine whose root would be used
// wrongly if builds took what they found.
func TestRealRootIsGivenNotFound(t *testing.T) {
	cfg := testConfig(t)
	p := real(t, cfg)
	b := NewBuilder(p, slog.New(slog.DiscardHandler))
	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"app-misc/tally", "sw-good/choice"}})
	if err != nil {
		t.Fatal(err)
	}
	files := buildAll(t, p, plan)
	at := func(name string) build.Job {
		i := slices.IndexFunc(plan.Jobs, func(j build.Job) bool { return j.CPV.Name == name })
		return plan.Jobs[i]
	}

	t.Run("what another job left is gone", func(t *testing.T) {
		// Now the root holds the last job's list. A job with an empty list must
		// not see it.
		if _, err := b.Build(t.Context(), request(t, at("tablegen"), files)); err != nil {
			t.Fatal(err)
		}
		have, err := base.Packages(cfg.BuildPrefix)
		if err != nil || len(have) != 0 {
			t.Errorf("installed: %v %v, want nothing", have, err)
		}
	})
	t.Run("a subset is extended", func(t *testing.T) {
		j := at("tally")
		req := request(t, j, files)
		if _, err := b.Build(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		stamp := filepath.Join(cfg.BuildPrefix, "var/db/pkg/dev-libs/libtally-2.0/COUNTER")
		before, err := os.ReadFile(stamp)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Build(t.Context(), request(t, j, files)); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(stamp); err != nil || string(after) != string(before) {
			t.Errorf("the library was installed again")
		}
	})
	t.Run("a package too few", func(t *testing.T) {
		j := at("tally")
		req := request(t, j, files)
		req.Root = req.Root[:1]
		_, err := b.Build(t.Context(), req)
		if f := failure(t, err); f.Class != build.BadMachine {
			t.Errorf("got %v", f)
		}
	})
	t.Run("another bound slot", func(t *testing.T) {
		j := at("tally")
		j.Bound = []string{">=dev-libs/libtally-1.0:0/1="}
		_, err := b.Build(t.Context(), request(t, j, files))
		if f := failure(t, err); f.Class != build.Mismatch {
			t.Errorf("got %v, want a mismatch", f)
		}
	})
}

// TestRealConfigurationMustAgree plans on one machine and builds on others
// that differ from it.
func TestRealConfigurationMustAgree(t *testing.T) {
	cfg := testConfig(t)
	p := real(t, cfg)
	use := filepath.Join(cfg.ConfigRoot, "etc/portage/package.use")
	if err := os.WriteFile(use, []byte("dev-libs/libtally static-libs -cache\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"dev-libs/libtally"}})
	if err != nil {
		t.Fatal(err)
	}
	j := plan.Jobs[0]
	if !slices.Equal(j.USE, []string{"static-libs"}) {
		t.Fatalf("USE %v", j.USE)
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, cfg Config)
		want   string // of the failure; "" = the package is built
	}{
		{"other USE flags in package.use do not matter", func(t *testing.T, cfg Config) {
			put(t, cfg, "package.use", "dev-libs/libtally -static-libs cache\n")
		}, ""},
		{"default options, masks of headers and hosts do not matter", func(t *testing.T, cfg Config) {
			add(t, cfg, "make.conf", "EMERGE_DEFAULT_OPTS=\"--ask --getbinpkgonly --jobs=9\"\nINSTALL_MASK=\"/usr/include\"\nFEATURES=\"${FEATURES} getbinpkg buildpkg\"\n")
			put(t, cfg, "binrepos.conf", "[x]\nsync-uri = http://127.0.0.1:9/\n")
		}, ""},
		{"other CFLAGS", func(t *testing.T, cfg Config) { add(t, cfg, "make.conf", "CFLAGS=\"-O1\"\n") }, "var:CFLAGS"},
		{"CFLAGS of this package", func(t *testing.T, cfg Config) {
			put(t, cfg, "env/slow.conf", "CFLAGS=\"-O0\"\n")
			put(t, cfg, "package.env", "dev-libs/libtally slow.conf\n")
		}, "var:CFLAGS"},
		{"a variable nobody has heard of", func(t *testing.T, cfg Config) { add(t, cfg, "make.conf", "MY_TOOLS=\"7\"\n") }, "var:MY_TOOLS"},
		{"a user's patch", func(t *testing.T, cfg Config) { put(t, cfg, "patches/dev-libs/libtally/a.patch", "") }, "patches"},
		{"a bashrc", func(t *testing.T, cfg Config) { put(t, cfg, "bashrc", "export CFLAGS=-O3\n") }, "bashrc"},
		{"another tree", func(t *testing.T, cfg Config) {
			add(t, cfg, "../../repos/swarm-demo/eclass/swarm-cc.eclass", "# \n")
		}, "repositories differ"},
		{"no such ebuild", func(t *testing.T, cfg Config) {
			if err := os.RemoveAll(filepath.Join(cfg.ConfigRoot, "repos/swarm-demo/dev-libs")); err != nil {
				t.Fatal(err)
			}
		}, "not in this machine's repositories"},
		{"a forced flag", func(t *testing.T, cfg Config) {
			put(t, cfg, "profile/package.use.mask", "dev-libs/libtally static-libs\n")
		}, "use is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			c.change(t, cfg)
			_, err := NewBuilder(real(t, cfg), slog.New(slog.DiscardHandler)).Build(t.Context(), request(t, j, nil))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := failure(t, err); f.Class != build.BadMachine || !strings.Contains(f.Reason, c.want) {
				t.Errorf("got %v, want ...%s...", f, c.want)
			}
		})
	}
}

func put(t *testing.T, cfg Config, name, text string) { write(t, cfg, name, text, os.O_TRUNC) }
func add(t *testing.T, cfg Config, name, text string) { write(t, cfg, name, text, os.O_APPEND) }

func write(t *testing.T, cfg Config, name, text string, flag int) {
	t.Helper()
	path := filepath.Join(cfg.ConfigRoot, "etc/portage", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestRealInstallsWhatWasBuilt installs recorded packages, which were built in
// another Prefix, from a binary host, and runs one of them.
func TestRealInstallsWhatWasBuilt(t *testing.T) {
	cfg, err := DemoConfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := real(t, cfg)
	h := newBinhost(t, "libtally-2.0", "tally-1.0", "tally-tools-1.0", "tally-plugins-1.0")
	srv := httptest.NewServer(h)
	defer srv.Close()
	put(t, cfg, "binrepos.conf/swarm.conf", "[swarm]\npriority = 9999\nsync-uri = "+srv.URL+"/t/stable\n"+
		"verify-signature = false\nlocation = "+filepath.Join(cfg.EPrefix, "var/cache/binhost/swarm")+"\n")
	out, err := emergeRun(t, p, cfg, filepath.Join(cfg.EPrefix, "var/packages"), "--getbinpkgonly", "--oneshot", "app-misc/tally-tools")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	have, err := base.Packages(cfg.EPrefix)
	if err != nil || len(have) != 4 {
		t.Errorf("installed: %v %v", have, err)
	}
	if machineIs, _ := machineArch(); machineIs != "amd64" {
		return // the recording's machine
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(cfg.EPrefix, "usr/bin/tally-top"), "a", "b", "a")
	cmd.Env = []string{"LD_LIBRARY_PATH=" + filepath.Join(cfg.EPrefix, "usr/lib")}
	if got, err := cmd.CombinedOutput(); err != nil || string(got) != "a 2\n" {
		t.Errorf("tally-top says %q: %v", got, err)
	}
}
