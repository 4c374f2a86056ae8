package emerge

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
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
		t.Logf("%s: %d ms of CPU, peak %d MiB, root of %d", j.CPV, res.CoreMillis, res.PeakMiB, len(j.Root))
	}
	return files
}

func request(t *testing.T, j build.Job, files map[build.Key]string) worker.Request {
	t.Helper()
	req := worker.Request{Job: j, Target: "test", Dir: t.TempDir(), Log: t.Output(), Jobs: 2}
	for _, r := range j.Root {
		if r.Key != "" {
			req.Root = append(req.Root, worker.RootFile{Entry: r, Path: files[r.Key]})
		}
	}
	return req
}

func TestRealPlanAndBuildOfTheSamplePackages(t *testing.T) {
	p := real(t, testConfig(t))
	t.Logf("Portage %s, Python %s, %s", p.Version, p.PyVer, p.Python)
	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: DemoAtoms()})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range plan.Jobs {
		t.Logf("%s %s %s USE=%v needs %d root %v bound %v", j.Key.Short(), j.CPV, j.Slot, j.USE, len(j.Needs), j.Root, j.Bound)
	}
	files := buildAll(t, p, plan)
	if len(files) != 7 {
		t.Errorf("%d packages built, want 7", len(files))
	}
}

func TestRealFailuresAreClassified(t *testing.T) {
	cfg := testConfig(t)
	p := real(t, cfg)
	b := NewBuilder(p, slog.New(slog.NewTextHandler(t.Output(), nil)))
	for name, want := range map[string]struct {
		class build.Class
		text  string
	}{
		"fails":     {build.BadPackage, "undeclared"},
		"nospace":   {build.BadMachine, "no space left"},
		"sigill":    {build.BadMachine, "illegal instruction"},
		"nofetch":   {build.BadNetwork, "nofetch-1.0.tar.gz"},
		"checkreqs": {build.BadMachine, "RAM"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"sw-bad/" + name}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Build(t.Context(), request(t, plan.Jobs[0], nil))
			var f *build.Failure
			if !errors.As(err, &f) {
				t.Fatalf("%v is not a failure with a class", err)
			}
			t.Log(f)
			if f.Class != want.class || !strings.Contains(f.Reason, want.text) {
				t.Errorf("got %v, want %s: ...%s...", f, want.class, want.text)
			}
		})
	}
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

func TestRealPlanNamesWhatItLeavesOut(t *testing.T) {
	p := real(t, testConfig(t))
	for _, c := range []struct {
		atoms   []string
		dropped string
		err     error
	}{
		{[]string{"sw-bad/requse", "wordwrap"}, "REQUIRED_USE", nil},
		{[]string{"sw-bad/nodep", "wordwrap"}, "sw-good/absent: there is no such package", nil},
		{[]string{"sw-bad/cycle-a", "wordwrap"}, "cycle", nil},
		{[]string{"sw-bad/live", "wordwrap"}, "live", nil},
		{[]string{"no-such/package"}, "", ErrNoPackage},
		{[]string{"nosuch", "wordwrap"}, "", ErrNoPackage},
		{[]string{"sw-bad/masked"}, "", ErrNoPackage},
		{[]string{"@nosuch"}, "", ErrNoPackage},
	} {
		plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: c.atoms})
		if c.err != nil {
			t.Logf("%v: %v", c.atoms, err)
			if !errors.Is(err, c.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v: got %v, want %v", c.atoms, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.atoms, err)
			continue
		}
		t.Logf("%v: %v", c.atoms, plan.Dropped)
		if len(plan.Dropped) == 0 || !strings.Contains(plan.Dropped[0].Reason, c.dropped) {
			t.Errorf("%v: dropped %v, want %q", c.atoms, plan.Dropped, c.dropped)
		}
		if !slices.ContainsFunc(plan.Jobs, func(j build.Job) bool { return j.CPV.Name == "wordwrap" }) {
			t.Errorf("%v: wordwrap is not in the plan", c.atoms)
		}
	}
}
