package emerge

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
)

// taskRE is one line of "emerge -pv": what it would do, and the package.
var taskRE = regexp.MustCompile(`(?m)^\[(ebuild|binary)[^\]]*\] ([^ :]+)`)

// pretended is what emerge -p would do, sorted.
func pretended(t testing.TB, p *Portage, cfg Config, args ...string) (tasks []string, took time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.Emerge, append([]string{"--pretend", "--verbose", "--color=n", "--nospinner"}, args...)...)
	cmd.Env = p.environment(cfg.ConfigRoot, cfg.EPrefix)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("emerge -p %v: %v\n%s", args, err, out)
	}
	// CPU, not wall: others use the machine.
	took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	for _, m := range taskRE.FindAllStringSubmatch(string(out), -1) {
		tasks = append(tasks, m[2])
	}
	slices.Sort(tasks)
	return tasks, took
}

func wanted(p *build.Plan) (tasks []string) {
	want := map[build.Key]bool{}
	for _, k := range p.Want {
		want[k] = true
	}
	for _, j := range p.Jobs {
		if want[j.Key] {
			tasks = append(tasks, j.CPV.String())
		}
	}
	slices.Sort(tasks)
	return tasks
}

// TestWantIsWhatEmergeWouldDo compares the plan with emerge -p on a machine
// that is behind, with the user's default options, and after a flag changed.
func TestWantIsWhatEmergeWouldDo(t *testing.T) {
	for name, change := range map[string]func(*testing.T, Config){
		"behind":         func(*testing.T, Config) {},
		"a flag changed": func(t *testing.T, cfg Config) { put(t, cfg, "package.use", "sw-lab/app extra\n") },
		"default options": func(t *testing.T, cfg Config) {
			add(t, cfg, "make.conf", "EMERGE_DEFAULT_OPTS=\"--exclude sw-lab/lib --jobs=3\"\n")
		},
		"a flag and nothing else": func(t *testing.T, cfg Config) {
			put(t, cfg, "package.use", "sw-lab/doc -html\n")
			put(t, cfg, "package.mask", ">=sw-lab/lib-2\n")
		},
		"another slot": func(t *testing.T, cfg Config) { put(t, cfg, "package.mask", ">=sw-lab/lib-2\n") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := labMachine(t, "sw-lab/user sw-lab/doc sw-lab/python:3.13",
				"sw-lab/lib-1.0:0/1", "sw-lab/gen-1.0:0",
				"sw-lab/app-1.0:0 [-extra] DEPEND=sw-lab/lib:0/1=;RDEPEND=sw-lab/lib:0/1=;BDEPEND=sw-lab/gen",
				"sw-lab/user-1.0:0 [] DEPEND=sw-lab/app sw-lab/lib:0/1=;RDEPEND=sw-lab/app sw-lab/lib:0/1=",
				"sw-lab/doc-1.0:0 [html] BDEPEND=sw-lab/gen")
			change(t, cfg)
			p := real(t, cfg)
			want, _ := pretended(t, p, cfg, "-uDN", "@world")
			plan, err := p.Plan(t.Context(), PlanRequest{Target: "t", Atoms: []string{"@world"}, Update: true})
			if err != nil {
				t.Fatal(err)
			}
			got := wanted(plan)
			if !slices.Equal(got, want) {
				t.Errorf("the plan wants\n%s\nemerge would do\n%s\ndropped %v", strings.Join(got, "\n"), strings.Join(want, "\n"), plan.Dropped)
			}
			t.Logf("%d tasks: %v", len(want), want)
		})
	}
}

// largeMachine has n packages of the large repository to update: all are
// installed one version behind.
func largeMachine(t testing.TB, n int) Config {
	t.Helper()
	dir := t.TempDir()
	cfg, err := DemoConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "repos/swarm-large")
	if err := emergetest.WriteLarge(to, n); err != nil {
		t.Fatal(err)
	}
	if err := WriteConfig(dir, []Repository{{"swarm-demo", filepath.Join(dir, "repos/swarm-demo")}, {"swarm-large", to}}); err != nil {
		t.Fatal(err)
	}
	cfg.BuildPrefix = ""
	return cfg
}

// BenchmarkPlanOf1400 reports what a plan costs beside emerge -p of the same, in
// CPU: on an empty machine, where both plans are one, and on one that has every
// package installed a version behind, where the complete graph is resolved too.
func BenchmarkPlanOf1400(b *testing.B) {
	b.Run("empty", func(b *testing.B) { benchmarkPlan(b, 0) })
	b.Run("installed", func(b *testing.B) { benchmarkPlan(b, 1400) })
}

func benchmarkPlan(b *testing.B, installed int) {
	if _, err := exec.LookPath("emerge"); err != nil {
		b.Skip("no emerge on PATH")
	}
	cfg := largeMachine(b, 1400)
	p, err := Detect(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := layOutPrefix(cfg.EPrefix, p.globals); err != nil {
		b.Fatal(err)
	}
	for i := range installed {
		install(b, cfg.EPrefix, 0, fmt.Sprintf("sw-large/p%d-1.0:0/1.0 [-a,b,-c]", i))
		if err := os.WriteFile(filepath.Join(cfg.EPrefix, fmt.Sprintf("var/db/pkg/sw-large/p%d-1.0/repository", i)), []byte("swarm-large\n"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var ratios, needs, wants []float64
	for b.Loop() {
		want, theirs := pretended(b, p, cfg, "-uDN", "sw-large/all")
		before := childTime(b)
		plan, err := p.Plan(b.Context(), PlanRequest{Target: "t", Atoms: []string{"sw-large/all"}, Update: true})
		if err != nil {
			b.Fatal(err)
		}
		ours := childTime(b) - before
		var doc document
		if err := p.ask(b.Context(), append(p.environment(cfg.ConfigRoot, cfg.EPrefix), "SWARM_EMERGE="+p.who.script), map[string]any{
			"mode": "plan", "atoms": []string{"sw-large/all"}, "options": []string{"--update", "--deep", "--newuse"}, "max_tries": 10, "keyed": keyedGlobals(),
		}, &doc); err != nil {
			b.Fatal(err)
		}
		need := time.Duration(doc.NeedMillis) * time.Millisecond
		wants = append(wants, (ours-need).Seconds()/theirs.Seconds())
		if got := wanted(plan); !slices.Equal(got, want) {
			b.Fatalf("the plan wants %d packages, emerge %d", len(got), len(want))
		}
		enc, err := build.Marshal(plan)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(want)), "tasks")
		b.ReportMetric(float64(len(enc))/1e6, "plan-MB")
		ratios = append(ratios, ours.Seconds()/theirs.Seconds())
		needs = append(needs, ours.Seconds())
	}
	slices.Sort(ratios)
	slices.Sort(needs)
	b.ReportMetric(ratios[len(ratios)/2], "plan/emerge-p")
	b.ReportMetric(needs[len(needs)/2], "plan-CPU-s")
	slices.Sort(wants)
	b.ReportMetric(wants[len(wants)/2], "want/emerge-p")
}

// BenchmarkPlanElsewhere reports what a plan of 1,400 packages costs that another
// machine makes, beside the machine's own, in CPU: laying out what is published is in
// it. The plans are equal, or it fails.
func BenchmarkPlanElsewhere(b *testing.B) {
	if _, err := exec.LookPath("emerge"); err != nil {
		b.Skip("no emerge on PATH")
	}
	cfg := largeMachine(b, 1400)
	p, err := Detect(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := layOutPrefix(cfg.EPrefix, p.globals); err != nil {
		b.Fatal(err)
	}
	for i := range 1400 {
		install(b, cfg.EPrefix, 0, fmt.Sprintf("sw-large/p%d-1.0:0/1.0 [-a,b,-c]", i))
		if err := os.WriteFile(filepath.Join(cfg.EPrefix, fmt.Sprintf("var/db/pkg/sw-large/p%d-1.0/repository", i)), []byte("swarm-large\n"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	set := published(b, cfg.EPrefix, nil)
	bundle, err := p.Evaluate(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	repos := map[string]string{}
	for _, r := range bundle.Repos {
		repos[r.Name] = filepath.Join(cfg.EPrefix, "repos", r.Name)
	}
	req := PlanRequest{Target: "t", Atoms: []string{"sw-large/all"}, Update: true}
	var ratios, laid []float64
	for b.Loop() {
		before := childTime(b)
		own, err := p.Plan(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		theirs := childTime(b) - before
		before, began := childTime(b), time.Now()
		q, err := p.StandIn(b.Context(), b.TempDir(), Machine{Bundle: bundle, Repos: repos, Installed: set})
		if err != nil {
			b.Fatal(err)
		}
		laid = append(laid, time.Since(began).Seconds())
		got, err := q.Plan(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		ratios = append(ratios, (childTime(b)-before).Seconds()/theirs.Seconds())
		if !slices.Equal(got.Want, own.Want) || len(own.Want) < 1400 {
			b.Fatalf("it wants %d, planned elsewhere %d", len(own.Want), len(got.Want))
		}
	}
	slices.Sort(ratios)
	slices.Sort(laid)
	b.ReportMetric(ratios[len(ratios)/2], "elsewhere/own")
	b.ReportMetric(laid[len(laid)/2], "lay-out-s")
}

// childTime is the CPU that finished children have used.
func childTime(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var n, user, system int64
	f := strings.Fields(rest)
	if n, err := fmt.Sscan(f[13]+" "+f[14], &user, &system); err != nil || n != 2 {
		t.Fatal(err)
	}
	_ = n
	return time.Duration(user+system) * 10 * time.Millisecond
}
