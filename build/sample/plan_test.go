package sample

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
)

// gcc is a toolchain that is planned with and never run.
func gcc() Toolchain {
	t := bare("amd64", "gnu")
	t.CC, t.AR, t.Class, t.Version = "/usr/bin/cc", "/usr/bin/ar", "gcc-12", "cc 12.2"
	return t
}

func plan(t *testing.T, tc Toolchain, o Options) (build.Plan, []build.Note) {
	t.Helper()
	p, notes, err := Plan(tc, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, notes
}

func names(p build.Plan) []string {
	var out []string
	for _, j := range p.Jobs {
		out = append(out, strings.TrimSpace(j.CPV.Name+" "+strings.Join(j.USE, " ")))
	}
	return out
}

func TestThePlanHasEveryKindOfDependency(t *testing.T) {
	p, notes := plan(t, gcc(), Options{})
	if len(notes) > 0 {
		t.Errorf("notes %v", notes)
	}
	want := []string{"sample-gen", "sample-text", "sample-dft", "sample-spectrum", "sample-sums", "sample-hello", "sample-hello color",
		"sample-wrap", "sample-calc", "sample-doc", "sample-greet", "sample-menu", "sample-backup", "sample-all"}
	if d := cmp.Diff(want, names(p)); d != "" {
		t.Error(d)
	}
	if len(p.Want) != len(p.Jobs) {
		t.Errorf("%d of %d jobs wanted", len(p.Want), len(p.Jobs))
	}
	by := map[string]build.Job{}
	for _, j := range p.Jobs {
		by[strings.TrimSpace(j.CPV.Name+" "+strings.Join(j.USE, " "))] = j
	}
	if a, b := by["sample-hello"], by["sample-hello color"]; a.CPV != b.CPV || a.Key == b.Key {
		t.Error("the two USE variants are not two jobs of one CPV")
	}
	calc := by["sample-calc"]
	if d := cmp.Diff([]string{"dev-libs/sample-dft:0/1=", "dev-libs/sample-text:0/2="}, calc.Bound); d != "" {
		t.Error(d)
	}
	spectrum := by["sample-spectrum"]
	var root []string
	for _, r := range spectrum.Root.All() {
		root = append(root, r.CPV.Name+":"+r.Slot)
	}
	if d := cmp.Diff([]string{"sample-gen:0", "sample-dft:0/1"}, root); d != "" {
		t.Error(d)
	}
	if by["sample-all"].Root.Len() != 0 || len(by["sample-all"].Needs) != 7 {
		t.Errorf("sample-all has root %v, needs %v", by["sample-all"].Root, by["sample-all"].Needs)
	}
	if !slices.ContainsFunc(by["sample-all"].Needs, func(e build.Edge) bool { return e.Key == by["sample-hello color"].Key }) {
		t.Error("sample-all does not need the colored sample-hello")
	}
	again, _ := plan(t, gcc(), Options{})
	if d := cmp.Diff(p, again); d != "" {
		t.Errorf("the same plan twice differs: %s", d)
	}
}

func TestWithoutACompilerTheShellPackagesArePlanned(t *testing.T) {
	tc := bare("amd64", "gnu")
	tc.Why = "no C compiler (cc, gcc, clang) on PATH"
	p, notes := plan(t, tc, Options{Broken: true})
	want := []string{"sample-doc", "sample-greet", "sample-menu", "sample-backup", "sample-broken-script"}
	if d := cmp.Diff(want, names(p)); d != "" {
		t.Error(d)
	}
	reasons := map[string]string{}
	for _, n := range notes {
		reasons[n.Atom] = n.Reason
	}
	if len(notes) != 10 || reasons["=dev-libs/sample-text-1.2.0"] != tc.Why ||
		!strings.Contains(reasons["=app-misc/sample-all-1"], "needs app-misc/sample-hello") {
		t.Errorf("notes %v", notes)
	}
}

func TestAPlanOfOnePackageHoldsWhatItNeeds(t *testing.T) {
	p, notes := plan(t, gcc(), Options{Only: []string{"app-misc/sample-calc", "no-such"}, Target: "t1"})
	if d := cmp.Diff([]string{"sample-gen", "sample-text", "sample-dft", "sample-calc"}, names(p)); d != "" {
		t.Error(d)
	}
	if len(p.Want) != 1 || p.Target != "t1" || len(p.Missing) != 1 || len(notes) != 1 || notes[0].Atom != "no-such" {
		t.Errorf("want %v, missing %v, notes %v", p.Want, p.Missing, notes)
	}
	if _, _, err := Plan(gcc(), Options{Only: []string{"../../etc"}}); err == nil {
		t.Error("a path was taken for a package")
	}
}

func TestWhatDecidesTheContentDecidesTheKey(t *testing.T) {
	key := func(tc Toolchain, name string) build.Key {
		p, _ := plan(t, tc, Options{})
		for _, j := range p.Jobs {
			if j.CPV.Name == name {
				return j.Key
			}
		}
		t.Fatalf("no %s", name)
		return ""
	}
	newer := gcc()
	newer.Class = "gcc-13"
	if key(gcc(), "sample-text") == key(newer, "sample-text") {
		t.Error("another compiler, the same key")
	}
	if key(gcc(), "sample-doc") != key(newer, "sample-doc") {
		t.Error("a shell script's key depends on the compiler")
	}
	patch := gcc()
	patch.Version = "cc 12.2.1"
	if key(gcc(), "sample-text") != key(patch, "sample-text") {
		t.Error("the exact version of the compiler is in the key")
	}
	arm := bare("arm64", "gnu")
	arm.CC, arm.Class = "cc", "gcc-12"
	if key(gcc(), "sample-doc") == key(arm, "sample-doc") {
		t.Error("another CHOST, the same key")
	}
}

func TestABuilderSaysWhatItCannotBuild(t *testing.T) {
	p, _ := plan(t, gcc(), Options{})
	b := NewBuilder(gcc(), nil)
	for i := range p.Jobs {
		if err := b.CanBuild(&p.Jobs[i]); err != nil {
			t.Errorf("own plan: %v", err)
		}
	}
	newer := gcc()
	newer.Class = "gcc-13"
	none := bare("amd64", "gnu")
	none.Why = "no C compiler on PATH"
	text := p.Jobs[1]
	other := text
	other.CPV.Version = "9"
	portage := text
	portage.Builder = build.BuilderPortage
	for _, c := range []struct {
		tc   Toolchain
		job  build.Job
		says string
	}{
		{newer, text, `compiler is "gcc-13" here, the job has "gcc-12"`},
		{none, text, "no C compiler"},
		{gcc(), other, "not one of the built-in samples"},
		{gcc(), portage, "not a built-in sample"},
	} {
		err := NewBuilder(c.tc, nil).CanBuild(&c.job)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want %q", err, c.says)
		}
	}
}
