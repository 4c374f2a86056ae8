package emerge

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

var recordFlag = flag.Bool("record", false, "record the contract from the real emerge on PATH")

func TestMain(m *testing.M) {
	if code, hidden := sandbox.Main(os.Args, base.Ops()); hidden {
		os.Exit(code)
	}
	if emergetest.IsEmerge() {
		emergetest.Exit(emergetest.Main())
	}
	flag.Parse()
	os.Exit(m.Run())
}

// repoKind says which repositories a scenario's configuration has.
type repoKind int

const (
	sampleRepo repoKind = iota
	testRepo
	labRepo
	labHome     // a machine with packages of the laboratory installed
	labDressed  // with what a configuration may have
	labBadWorld // one whose world file has a bad atom of each kind
	labAlone    // beside the samples alone, with a world of everything that plans stumble over
)

// A scenario drives Portage and says, in lines, what came of it. The lines
// hold nothing that depends on the machine.
type scenario struct {
	name string
	repo repoKind
	run  func(t *testing.T, p *Portage) []string
}

func scenarios() []scenario {
	plan := func(req PlanRequest) func(*testing.T, *Portage) []string {
		return func(t *testing.T, p *Portage) []string {
			req.Target = "test"
			got, err := p.Plan(t.Context(), req)
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			return planLines(got)
		}
	}
	builds := func(atoms ...string) func(*testing.T, *Portage) []string {
		return func(t *testing.T, p *Portage) []string { return buildLines(t, p, atoms) }
	}
	return []scenario{
		{"sample", sampleRepo, plan(PlanRequest{Atoms: DemoAtoms()})},
		{"sample-update", sampleRepo, plan(PlanRequest{Atoms: DemoAtoms(), Update: true})},
		{"sample-build", sampleRepo, builds(DemoAtoms()...)},
		{"dropped", testRepo, plan(PlanRequest{Atoms: []string{
			"sw-bad/requse", "sw-bad/nodep", "sw-bad/cycle-a", "sw-bad/live", "app-misc/wordwrap",
		}})},
		{"missing", testRepo, plan(PlanRequest{Atoms: []string{"no-such/package", "app-misc/wordwrap"}})},
		{"masked", testRepo, plan(PlanRequest{Atoms: []string{"sw-bad/masked"}})},
		{"no-set", testRepo, plan(PlanRequest{Atoms: []string{"@nosuch"}})},
		{"sample-target", sampleRepo, func(t *testing.T, p *Portage) []string {
			b, err := p.Evaluate(t.Context())
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			return bundleLines(b)
		}},
		{"sample-world", sampleRepo, plan(PlanRequest{Atoms: []string{"@world"}, Update: true})},
		{"sample-world-bdeps", sampleRepo, plan(PlanRequest{Atoms: []string{"@world"}, Update: true, Options: []string{"--with-bdeps=y"}})},
		{"elsewhere", sampleRepo, func(t *testing.T, p *Portage) []string {
			// What a peer plans for this machine, of what is published of it.
			atoms := PlanRequest{Target: "test", Atoms: DemoAtoms(), Update: true}
			own, err := p.Plan(t.Context(), atoms)
			if err != nil {
				t.Fatal(err)
			}
			there := elsewhere(t, p, p, p.cfg.EPrefix)
			got, err := there.Plan(t.Context(), atoms)
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			same := "its keys are those of the machine itself"
			for i := range got.Jobs {
				if got.Jobs[i].Key != own.Jobs[i].Key {
					same = fmt.Sprintf("%s has another key than on the machine itself: %s", got.Jobs[i].CPV, differ(own.Jobs[i].Preimage, got.Jobs[i].Preimage))
				}
			}
			return append(planLines(got), same)
		}},
		{"lab-target", labDressed, func(t *testing.T, p *Portage) []string {
			b, err := p.Evaluate(t.Context())
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			return bundleLines(b)
		}},
		{"lab-bootstrap", labRepo, plan(PlanRequest{Atoms: []string{"sw-lab/ring"}})},
		{"lab-cycle", labRepo, plan(PlanRequest{Atoms: []string{"sw-lab/hard-a", "sw-lab/gen"}})},
		{"lab-pdepend", labRepo, plan(PlanRequest{Atoms: []string{"sw-lab/python:3.13"}})},
		{"lab-bad-world", labBadWorld, plan(PlanRequest{Update: true, Atoms: []string{"@world"}})},
		{"lab-seed", labHome, func(t *testing.T, p *Portage) []string {
			req := PlanRequest{Target: "test", Atoms: []string{"sw-lab/loop-b", "sw-lab/ring", "sw-lab/user"}, Update: true, Base: emptyBase, Keep: keepName}
			got, err := p.Plan(t.Context(), req)
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			return planLines(got)
		}},
		{"lab-lent", labHome, func(t *testing.T, p *Portage) []string {
			// Another machine's plan: what it has lent before, it is taken to lend again.
			req := PlanRequest{Target: "test", Atoms: []string{"sw-lab/loop-b", "sw-lab/ring", "sw-lab/user"}, Update: true, Base: emptyBase}
			req.Lent = func(c build.CPV) string { return "lent-" + c.PF() }
			got, err := p.Plan(t.Context(), req)
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			req.Lent = func(build.CPV) string { return "" }
			none, err := p.Plan(t.Context(), req)
			if err != nil {
				return []string{"error: " + err.Error()}
			}
			out := planLines(got)
			for _, line := range planLines(none) {
				if strings.Contains(line, "LENT") {
					out = append(out, "lent by nobody: "+line)
				}
			}
			return out
		}},
		{"lab-chain", labAlone, chainLines},
		{"own-older-slot", testRepo, builds("sw-good/slotted:2")},
		{"choice", testRepo, builds("sw-good/choice")},
		{"fails", testRepo, builds("sw-bad/fails")},
		{"nospace", testRepo, builds("sw-bad/nospace")},
		{"sigill", testRepo, builds("sw-bad/sigill")},
		{"nofetch", testRepo, builds("sw-bad/nofetch")},
		{"checkreqs", testRepo, builds("sw-bad/checkreqs")},
	}
}

// planLines describes a plan without keys, which name this machine's compiler.
func planLines(plan *build.Plan) []string {
	name := make(map[build.Key]string)
	for _, j := range plan.Jobs {
		name[j.Key] = j.CPV.String()
	}
	var out []string
	for _, j := range plan.Jobs {
		if j.Seed {
			out = append(out, "the next one is a bootstrap build")
		}
		line := fmt.Sprintf("job %s:%s::%s use %v of %v", j.CPV, j.Slot, j.Repo, j.USE, j.IUSE)
		for _, r := range j.Root.All() {
			line += fmt.Sprintf(" root %s:%s", r.CPV, r.Slot)
			if r.Key != "" && name[r.Key] != r.CPV.String() {
				line += " WITHOUT A JOB"
			}
			if r.Seed != "" {
				line += " LENT"
			}
		}
		needs := make([]string, 0, len(j.Needs))
		for _, e := range j.Needs {
			needs = append(needs, fmt.Sprintf(" needs %s(%d)", name[e.Key], e.Kind))
		}
		slices.Sort(needs)
		out = append(out, line+strings.Join(needs, "")+fmt.Sprintf(" bound %v", j.Bound))
	}
	for _, w := range plan.Want {
		out = append(out, "want "+name[w])
	}
	for _, n := range plan.Dropped {
		out = append(out, "dropped "+n.Atom+": "+n.Reason)
	}
	for _, n := range plan.Missing {
		out = append(out, "missing "+n.Atom+": "+n.Reason)
	}
	for _, h := range plan.Header {
		if h.Name != "ACCEPT_KEYWORDS" && h.Name != "ARCH" && h.Name != "CHOST" && h.Name != "CBUILD" && h.Name != "USE" {
			out = append(out, "header "+h.Name+": "+h.Value)
		}
	}
	return out
}

// buildLines plans and builds atoms, each job with the packages of the jobs
// before it.
func buildLines(t *testing.T, p *Portage, atoms []string) []string {
	plan, err := p.Plan(t.Context(), PlanRequest{Target: "test", Atoms: atoms})
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	return buildPlanned(t, p, plan)
}

// places are directories of one run.
var places = regexp.MustCompile(`/[^ ]*/tmp/`)

func buildPlanned(t *testing.T, p *Portage, plan *build.Plan) []string {
	p.Version = "" // what the stream of phases adds to the log depends on the clock
	b := NewBuilder(p, slog.New(slog.DiscardHandler))
	files := make(map[build.Key]string)
	store := t.TempDir()
	var out []string
	for _, j := range plan.Jobs {
		req := request(t, j, files)
		var phases []string
		req.Phase = func(s string) {
			if !slices.Contains(phases, s) {
				phases = append(phases, s)
			}
		}
		res, err := b.Build(t.Context(), req)
		var f *build.Failure
		switch {
		case errors.As(err, &f):
			out = append(out, fmt.Sprintf("build %s phases %v: %v", j.CPV, phases, places.ReplaceAllString(f.Error(), "/")))
			continue
		case err != nil:
			t.Fatalf("build %s: %v", j.CPV, err)
		}
		out = append(out, fmt.Sprintf("build %s phases %v: good", j.CPV, phases))
		files[j.Key] = filepath.Join(store, string(j.Key)+".gpkg.tar")
		if err := copyFile(res.Path, files[j.Key]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// chainLines plans the world of an empty machine and builds all of it, as the swarm
// of TestScripts/chain does with the same recordings.
func chainLines(t *testing.T, p *Portage) []string {
	req := PlanRequest{Target: "test", Atoms: []string{"@world"}, Update: true, Keep: keepName}
	plan, err := p.Plan(t.Context(), req)
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	req.Options = []string{"--with-bdeps=y"} // doctor asks that, too
	more, err := p.Plan(t.Context(), req)
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	if _, err := p.Evaluate(t.Context()); err != nil {
		return []string{"error: " + err.Error()}
	}
	return slices.Concat(planLines(plan), buildPlanned(t, p, plan), []string{fmt.Sprintf("with build-time needs %d are wanted", len(more.Want))})
}

// emulated puts a program "emerge" into a directory: this test binary, which
// emergetest.IsEmerge then recognises. With a Recorder it records.
func emulated(t *testing.T, rec *emergetest.Recorder) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"emerge", "quickpkg"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if rec != nil {
		b, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "record.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "emerge")
}

func (s scenario) config(t *testing.T) Config {
	switch s.repo {
	case testRepo:
		return testConfig(t)
	case labRepo:
		return labConfig(t)
	case labDressed:
		return dressed(t, labConfig(t))
	case labBadWorld:
		return labMachine(t, "sw-lab/user sw-lab/picky sw-lab/orphan sw-lab/masked sw-lab/live sw-lab/module sw-lab/hard-b sw-lab/self:2 sw-lab/nowhere no-such/package not-an-atom")
	case labAlone:
		cfg, err := DemoConfig(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		repos := filepath.Join(cfg.EPrefix, "repos")
		if err := errors.Join(emergetest.WriteLab(filepath.Join(repos, "swarm-lab")), WriteConfig(cfg.EPrefix, []Repository{
			{"swarm-demo", filepath.Join(repos, "swarm-demo")}, {"swarm-lab", filepath.Join(repos, "swarm-lab")},
		})); err != nil {
			t.Fatal(err)
		}
		put(t, cfg, "../../var/lib/portage/world", emergetest.ChainWorld)
		return cfg
	case labHome:
		return labMachine(t, "sw-lab/loop-b sw-lab/ring sw-lab/user", "sw-lab/loop-a-1.0:0 [loop] DEPEND=sw-lab/loop-b", "sw-lab/loop-b-1.0:0 [] DEPEND=sw-lab/loop-a",
			"sw-lab/lib-1.0:0/1", "sw-lab/app-1.0:0 [-extra] DEPEND=sw-lab/lib:0/1=;RDEPEND=sw-lab/lib:0/1=;BDEPEND=sw-lab/gen", "sw-lab/gen-1.0:0")
	}
	cfg, err := DemoConfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestContract runs every scenario under the emulated emerge, which replays
// what the real one did, and, where emerge is on PATH, under the real one: all
// come to the same lines. With -record the real one is recorded first.
func TestContract(t *testing.T) {
	realEmerge, err := exec.LookPath("emerge")
	if err != nil {
		t.Log("REAL PORTAGE NOT TESTED HERE: no emerge on PATH; the emulated one stands in")
		if *recordFlag {
			t.Fatal("-record wants emerge on PATH")
		}
	}
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			golden := filepath.Join("testdata/contract", s.name+".golden")
			if *recordFlag {
				s.record(t, realEmerge, golden)
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			check := func(name, emerge string) {
				t.Run(name, func(t *testing.T) {
					cfg := s.config(t)
					cfg.Emerge = emerge
					got := s.run(t, real(t, cfg))
					if diff := lineDiff(string(want), strings.Join(got, "\n")+"\n"); diff != "" {
						t.Errorf("%s emerge breaks the contract:\n%s", name, diff)
					}
				})
			}
			check("emulated", emulated(t, nil))
			// Seventeen builds take minutes: the chain is held to the contract when it is
			// recorded, and by the test of the whole chain.
			if realEmerge != "" && !testing.Short() && s.name != "lab-chain" {
				check("real", realEmerge)
			}
		})
	}
}

func (s scenario) record(t *testing.T, realEmerge, golden string) {
	dir, err := filepath.Abs(filepath.Join("emergetest/recorded", s.name))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cfg := s.config(t)
	cfg.Emerge = emulated(t, &emergetest.Recorder{Emerge: realEmerge, Dir: dir})
	lines := s.run(t, real(t, cfg))
	if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(golden, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lineDiff lists the lines that only one of two texts has.
func lineDiff(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintln(&b, "- "+l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintln(&b, "+ "+l)
		}
	}
	if b.Len() == 0 && want != got {
		return "the same lines in another order"
	}
	return b.String()
}
