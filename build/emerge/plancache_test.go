package emerge

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAnswersAreKeptByStateAndQuestion(t *testing.T) {
	var c planCache
	for _, k := range []keptAnswer{{"s1", "a", []byte("1")}, {"s1", "b", []byte("2")}, {"s2", "a", []byte("3")}} {
		c.keep(k)
	}
	for _, x := range []struct{ state, request, want string }{{"s1", "a", "1"}, {"s1", "b", "2"}, {"s2", "a", "3"}, {"s2", "b", ""}, {"s3", "a", ""}} {
		if got := string(c.find(x.state, x.request)); got != x.want {
			t.Errorf("%s %s: %q, want %q", x.state, x.request, got, x.want)
		}
	}
	c.find("s1", "a") // used just now
	for range maxAnswers - 1 {
		c.keep(keptAnswer{"s9", "z", []byte("9")})
	}
	if string(c.find("s1", "a")) != "1" || c.find("s1", "b") != nil || len(c.kept) != maxAnswers {
		t.Errorf("kept %v", c.kept)
	}
}

// TestRealPlanIsAskedForAgainOnlyWhenSomethingChanged plans on real Portage, again,
// and after every kind of change.
func TestRealPlanIsAskedForAgainOnlyWhenSomethingChanged(t *testing.T) {
	cfg := labMachine(t, "sw-lab/app", "sw-lab/lib-1.0:0/1", "sw-lab/app-1.0:0 [-extra]")
	p := real(t, cfg)
	plan := func() (jobs int, took time.Duration) {
		t.Helper()
		began := time.Now()
		got, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: []string{"@world"}, Update: true, Cache: true})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Jobs), time.Since(began)
	}
	asked := func() int { return len(p.plans.kept) }
	first, cold := plan()
	again, warm := plan()
	if first == 0 || again != first || asked() != 1 {
		t.Fatalf("%d jobs, then %d; %d answers", first, again, asked())
	}
	t.Logf("planned in %v, from the cache in %v", cold, warm)
	repo := filepath.Join(cfg.EPrefix, "repos/swarm-lab")
	for _, change := range []struct {
		what, path, text string
	}{
		{"a flag", filepath.Join(cfg.ConfigRoot, "etc/portage/package.use/zz"), "sw-lab/app extra\n"},
		{"the tree", filepath.Join(repo, "profiles/package.mask"), "# nothing\n"},
		{"the world", filepath.Join(cfg.EPrefix, "var/lib/portage/world"), "sw-lab/app\nsw-lab/gen\n"},
	} {
		before := p.plans.kept[0].state
		if err := errors.Join(os.MkdirAll(filepath.Dir(change.path), 0o755), os.WriteFile(change.path, []byte(change.text), 0o644)); err != nil {
			t.Fatal(err)
		}
		if plan(); p.plans.kept[0].state == before {
			t.Errorf("after a change of %s the old answer was used", change.what)
		}
	}
	before := p.plans.kept[0].state
	install(t, cfg.EPrefix, 2, "sw-lab/gen-1.0:0")
	if plan(); p.plans.kept[0].state == before {
		t.Error("after something was installed the old answer was used")
	}
}
