package emerge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealRepositoriesThatLackSomething plans with repositories as people have them:
// Portage works out metadata itself, slower, and what it cannot work with is named.
func TestRealRepositoriesThatLackSomething(t *testing.T) {
	const manifests = "sw-lab/app-1.0 cannot be read"
	layout := func(text string) func(string) error {
		return func(r string) error {
			return os.WriteFile(filepath.Join(r, "metadata/layout.conf"), []byte(text), 0o644)
		}
	}
	for name, c := range map[string]struct {
		spoil func(repo string) error
		says  string // in the error; "" = it is planned
	}{
		"no metadata at all":         {func(r string) error { return os.RemoveAll(filepath.Join(r, "metadata")) }, manifests},
		"an empty cache":             {func(r string) error { return os.MkdirAll(filepath.Join(r, "metadata/md5-cache"), 0o755) }, ""},
		"no name":                    {func(r string) error { return os.Remove(filepath.Join(r, "profiles/repo_name")) }, ""},
		"a layout.conf of nonsense":  {layout("\x00 = [\n"), manifests},
		"masters that are not there": {layout("masters = nowhere\n"), manifests},
		"the directory is gone":      {os.RemoveAll, "there is no such package"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := labMachine(t, "sw-lab/app")
			if err := c.spoil(filepath.Join(cfg.EPrefix, "repos/swarm-lab")); err != nil {
				t.Fatal(err)
			}
			p := real(t, cfg)
			plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"sw-lab/app"}, Update: true})
			switch {
			case c.says == "" && (err != nil || len(plan.Jobs) != 3):
				t.Errorf("%v, %v", plan, err)
			case c.says != "" && (!errors.Is(err, ErrNoPackage) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n")):
				t.Errorf("got %v, want one line with %q", err, c.says)
			}
		})
	}
}

// TestRealALostRepositoryIsNamed: Portage goes on without a repository whose place is
// not there, with one line on standard error.
func TestRealALostRepositoryIsNamed(t *testing.T) {
	cfg := labConfig(t)
	p := real(t, cfg)
	if lost, err := p.LostTrees(t.Context()); err != nil || len(lost) > 0 {
		t.Errorf("nothing is lost, and it says %v, %v", lost, err)
	}
	at := filepath.Join(cfg.EPrefix, "repos/swarm-lab")
	if err := os.Rename(at, at+".away"); err != nil {
		t.Fatal(err)
	}
	if lost, err := p.LostTrees(t.Context()); err != nil || len(lost) != 1 || lost[0].Name != "swarm-lab" || lost[0].Path != at {
		t.Errorf("it says %v, %v", lost, err)
	}
}
