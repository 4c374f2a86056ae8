package emerge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// published is what a machine tells the swarm of itself: its package database and
// world below an EROOT, as `swarm portage setup` reads them, encoded and decoded.
func published(t testing.TB, eroot string, options []string) *release.Installed {
	t.Helper()
	set := &release.Installed{Target: "test", World: []string{}, Options: options}
	entries, err := filepath.Glob(filepath.Join(eroot, "var/db/pkg/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range entries {
		cpv, err := build.ParseCPV(filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		p := release.InstalledPackage{CPV: cpv, Slot: "0"}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			value := strings.Join(strings.Fields(string(b)), " ")
			if !release.InstalledMeta(f.Name()) || value == "" {
				continue
			}
			if f.Name() == "SLOT" {
				p.Slot = value
			}
			p.Meta = append(p.Meta, build.Pair{Name: f.Name(), Value: value})
		}
		set.Packages = append(set.Packages, p)
	}
	if b, err := os.ReadFile(filepath.Join(eroot, "var/lib/portage/world")); err == nil {
		set.World = strings.Fields(string(b))
	}
	set.Sort()
	b, err := set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if set, err = release.DecodeInstalled(b); err != nil {
		t.Fatal(err)
	}
	return set
}

// elsewhere is the Portage of one machine, planning for another of what that has
// published, with the repositories that lie below dir.
func elsewhere(t *testing.T, here, there *Portage, dir string) *Portage {
	t.Helper()
	b, err := there.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	options, err := there.WantOptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := Machine{Bundle: b, Repos: map[string]string{}, Installed: published(t, there.cfg.EPrefix, options)}
	for _, r := range b.Repos {
		m.Repos[r.Name] = filepath.Join(dir, "repos", r.Name)
	}
	q, err := here.StandIn(t.Context(), t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestRealAnotherMachineIsPlannedForAsItWouldItself compares a plan that a machine
// makes with the one that another makes for it, and both with emerge -p.
func TestRealAnotherMachineIsPlannedForAsItWouldItself(t *testing.T) {
	home := []string{
		"sw-lab/lib-1.0:0/1", "sw-lab/gen-1.0:0", "sw-lab/app-1.0:0 [-extra] DEPEND=sw-lab/lib:0/1=;RDEPEND=sw-lab/lib:0/1=;BDEPEND=sw-lab/gen",
		"sw-lab/user-1.0:0 [] DEPEND=sw-lab/app sw-lab/lib:0/1=;RDEPEND=sw-lab/app sw-lab/lib:0/1=", "sw-lab/doc-1.0:0 [html] BDEPEND=sw-lab/gen",
		"sw-lab/python-3.12:3.12", "sw-lab/libc-2.40:2.2",
	}
	for name, c := range map[string]struct {
		installed []string
		options   string
		change    func(*testing.T, Config)
	}{
		"with what it has installed": {home, "", func(*testing.T, Config) {}},
		"with nothing installed":     {nil, "", func(*testing.T, Config) {}},
		"with its default options":   {home, `--exclude "sw-lab/lib sw-lab/libc" --jobs=3 --ask --with-bdeps=y`, func(*testing.T, Config) {}},
		"with flags of its own": {home, "", func(t *testing.T, cfg Config) {
			put(t, cfg, "package.use/30-third", "sw-lab/lib far\n")
			put(t, cfg, "bashrc", "post_src_install() { true; }\n") // it counts, and is not run
			put(t, cfg, "env/sw-lab/doc", "pre_src_compile() { true; }\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := dressed(t, labConfig(t))
			for n, line := range c.installed {
				install(t, cfg.EPrefix, n, line)
			}
			put(t, cfg, "../../var/lib/portage/world", "sw-lab/user\nsw-lab/doc\nsw-lab/libc\nsw-lab/pymod\nsw-lab/owned\nsw-lab/picky\n")
			write(t, cfg, "make.conf", "EMERGE_DEFAULT_OPTS='"+c.options+"'\n", os.O_APPEND)
			c.change(t, cfg)
			there := real(t, cfg)
			req := PlanRequest{Target: "test", Atoms: []string{"@world"}, Update: true}
			want, err := there.Plan(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}

			other := labConfig(t)
			put(t, other, "package.use", "sw-lab/app extra\n")
			here := real(t, other)
			q := elsewhere(t, here, there, other.EPrefix)
			options, err := there.WantOptions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.options != "" && !slices.Equal(options, []string{"--exclude=sw-lab/lib sw-lab/libc", "--with-bdeps=y"}) {
				t.Errorf("its options are published as %q", options)
			}
			req.Options = options
			got, err := q.Plan(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if x, y := wanted(want), wanted(got); !slices.Equal(x, y) || len(x) == 0 {
				t.Errorf("it wants\n%s\nplanned for it:\n%s", strings.Join(x, "\n"), strings.Join(y, "\n"))
			}
			if x, y := planLines(want), planLines(got); !slices.Equal(x, y) {
				t.Errorf("the plans differ:\n%s", lineDiff(strings.Join(x, "\n"), strings.Join(y, "\n")))
			}
			for i := range min(len(want.Jobs), len(got.Jobs)) {
				if want.Jobs[i].Key != got.Jobs[i].Key {
					t.Errorf("%s has another key: %s", want.Jobs[i].CPV, differ(want.Jobs[i].Preimage, got.Jobs[i].Preimage))
				}
			}
			t.Logf("%d wanted of %d jobs, %d left out", len(want.Want), len(want.Jobs), len(want.Dropped)+len(want.Missing))
		})
	}
}

// TestRealAMachineWhoseRootIsNoPrefixIsPlannedFor: the stand-in is a Prefix, and a
// Gentoo machine is none; plans and keys are the same.
func TestRealAMachineWhoseRootIsNoPrefixIsPlannedFor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: it plans for this machine's own root")
	}
	config := func(change func(Config)) (*Portage, string) {
		cfg := labConfig(t)
		dir := cfg.EPrefix
		change(cfg)
		cfg.EPrefix, cfg.BuildPrefix = "", ""
		return real(t, cfg), dir
	}
	there, _ := config(func(cfg Config) { dressed(t, cfg) })
	here, dir := config(func(cfg Config) { put(t, cfg, "package.use", "sw-lab/app extra\n") })
	b, err := there.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := Machine{Bundle: b, Repos: map[string]string{}, Installed: published(t, "/", nil)}
	for _, r := range b.Repos {
		m.Repos[r.Name] = filepath.Join(dir, "repos", r.Name)
	}
	q, err := here.StandIn(t.Context(), t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	req := PlanRequest{Target: "test", Atoms: []string{"sw-lab/user", "sw-lab/doc", "sw-lab/patched", "sw-lab/self:2"}, Update: true}
	want, err := there.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := q.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if x, y := planLines(want), planLines(got); !slices.Equal(x, y) || len(want.Jobs) < 6 {
		t.Errorf("the plans differ:\n%s", lineDiff(strings.Join(x, "\n"), strings.Join(y, "\n")))
	}
	for i := range min(len(want.Jobs), len(got.Jobs)) {
		if want.Jobs[i].Key != got.Jobs[i].Key {
			t.Errorf("%s has another key: %s", want.Jobs[i].CPV, differ(want.Jobs[i].Preimage, got.Jobs[i].Preimage))
		}
	}
}

// TestRealAHostileBundleRunsNothing plans for a machine whose configuration tries to
// run programs on the machine that plans.
func TestRealAHostileBundleRunsNothing(t *testing.T) {
	cfg := labConfig(t)
	here := real(t, cfg)
	b, err := here.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trap := filepath.Join(t.TempDir(), "sprung")
	touch := "touch " + trap
	b.Files = append(b.Files, build.BundleFile{Path: "bashrc", Data: []byte("/usr/bin/" + touch + "\n")},
		build.BundleFile{Path: "env/sw-lab/app", Data: []byte(touch + "\n")},
		build.BundleFile{Path: "sets.conf", Data: []byte("[trap]\nclass = portage.sets.shell.CommandOutputSet\ncommand = " + touch + "\n")})
	slices.SortFunc(b.Files, func(x, y build.BundleFile) int { return strings.Compare(x.Path, y.Path) })
	b.MakeConf = append(b.MakeConf, build.Pair{Name: "BASH_ENV", Value: "$(" + touch + ")"}, build.Pair{Name: "PORTAGE_BASHRC", Value: trap},
		build.Pair{Name: "FETCHCOMMAND", Value: touch}, build.Pair{Name: "PORTAGE_CONFIGROOT", Value: "/nowhere"},
		build.Pair{Name: "CC", Value: touch}, build.Pair{Name: "LD_PRELOAD", Value: trap})
	slices.SortFunc(b.MakeConf, func(x, y build.Pair) int { return strings.Compare(x.Name, y.Name) })
	b.MakeConf = slices.CompactFunc(b.MakeConf, func(x, y build.Pair) bool { return x.Name == y.Name })
	m := Machine{Bundle: b, Repos: map[string]string{}, Installed: &release.Installed{Target: "t", World: []string{"@trap", "sw-lab/app"}}}
	for _, r := range b.Repos {
		m.Repos[r.Name] = filepath.Join(cfg.EPrefix, "repos", r.Name)
	}
	q, err := here.StandIn(t.Context(), t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, atoms := range [][]string{{"@world"}, {"@trap"}, {"sw-lab/app"}} {
		plan, err := q.Plan(t.Context(), PlanRequest{Target: "test", Atoms: atoms, Update: true})
		t.Logf("%v: %v", atoms, err)
		if atoms[0] == "sw-lab/app" && (err != nil || len(plan.Jobs) != 3) {
			t.Errorf("%v: %v", plan, err)
		}
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("the configuration of a peer ran a program here")
	}
}
