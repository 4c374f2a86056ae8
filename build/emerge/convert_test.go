package emerge

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

// noFiles answers for a machine whose files do not matter: the digest of a
// path is the path, and only what has a name exists.
type noFiles struct{}

func (noFiles) Ebuild(path string) (string, error) { return "ebuild " + path, nil }
func (noFiles) Tree(path string) (string, error)   { return path, nil }

func (noFiles) Patches(path string) (string, error) { return path, nil }

// doc makes a document of lines "NAME-VERSION[:SLOT/SUB] [installed] [live]:
// build A B, run C, post D" in merge order, and a list of wanted names.
func doc(t *testing.T, text string, want ...string) *document {
	t.Helper()
	d := &document{Env: environment{
		Vars: stringMap{"CFLAGS": "-O2"}, CHOST: "x86_64-pc-linux-gnu", Arch: "amd64", Libc: "glibc", Features: []string{"strict"},
	}}
	at := make(map[string]int)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		head, _, _ := strings.Cut(strings.TrimSpace(l), ": ")
		words := strings.Fields(head)
		n := node{
			CPV: "cat/" + words[0] + "-1", Slot: "0", SubSlot: "0", Repo: "r", EAPI: "8", Ebuild: words[0],
			Installed: slices.Contains(words, "installed"),
		}
		if slices.Contains(words, "live") {
			n.Properties = []string{"live"}
		}
		at[words[0]] = i
		d.Nodes = append(d.Nodes, n)
		d.Need = append(d.Need, i)
	}
	for i, l := range lines {
		_, deps, _ := strings.Cut(strings.TrimSpace(l), ": ")
		for _, part := range strings.Split(deps, ", ") {
			words := strings.Fields(part)
			if len(words) < 2 {
				continue
			}
			kind := map[string][]string{
				"build": {"buildtime"}, "run": {"runtime"}, "post": {"runtime_post"},
				"link": {"buildtime_slot_op", "runtime_slot_op"},
			}[words[0]]
			for _, w := range words[1:] {
				to, ok := at[w]
				if !ok || kind == nil {
					t.Fatalf("bad line %q", l)
				}
				d.NeedEdges = append(d.NeedEdges, edge{From: i, To: to, Kinds: kind})
				if words[0] == "link" {
					d.Nodes[i].Deps.SlotOps = append(d.Nodes[i].Deps.SlotOps, slotOp{
						Kind: "DEPEND", Atom: "cat/" + w + ":=", Bound: "cat/" + w + ":0/0=", To: &to,
					})
				}
			}
		}
	}
	for _, w := range want {
		i, ok := at[w]
		if !ok {
			t.Fatalf("no %q", w)
		}
		d.Want = append(d.Want, i)
	}
	return d
}

func planOf(t *testing.T, d *document) *build.Plan {
	t.Helper()
	p, err := convert(d, noFiles{}, conversion{target: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shape describes a plan: its jobs in order, each with its root.
func shape(p *build.Plan) string {
	var out []string
	for _, j := range p.Jobs {
		s := j.CPV.Name
		for _, r := range j.Root.All() {
			s += " " + r.CPV.Name
			switch {
			case r.Seed != "":
				s += "(lent)"
			case r.Key == "":
				s += "(base)"
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestWhatTheBaseHasIsNotBuilt(t *testing.T) {
	has := func(name, slot, repo string, use ...string) build.Installed {
		return build.Installed{CPV: build.CPV{Category: "cat", Name: name, Version: "1"}, Slot: slot, Repo: repo, USE: use}
	}
	for name, c := range map[string]struct {
		has   build.Installed
		shape string
	}{
		"as a manifest writes its slot": {has("lib", "0/0", "r"), "app lib(base)"},
		"another subslot":               {has("lib", "0/1", "r"), "lib; app lib"},
		"another repository":            {has("lib", "0/0", "other"), "lib; app lib"},
		"another flag":                  {has("lib", "0/0", "r", "ssl"), "lib; app lib"},
	} {
		p, err := convert(doc(t, "lib\napp: build lib", "app"), noFiles{}, conversion{target: "t", base: map[string]build.Installed{"cat/lib-1": c.has}})
		if err != nil {
			t.Fatal(err)
		}
		if got := shape(p); got != c.shape {
			t.Errorf("%s: %q, want %q", name, got, c.shape)
		}
	}
}

func TestJobsAreWhatIsWantedAndWhatItsBuildsNeed(t *testing.T) {
	for name, c := range map[string]struct {
		graph, want, shape, dropped string
	}{
		"a library and its user":           {"lib\napp: build lib, run lib", "app", "lib; app lib", ""},
		"run-time needs alone are no jobs": {"lib\napp: run lib", "app", "app", ""},
		"what a build dependency needs to run is in the root": {
			"deep\nlib: run deep\napp: build lib", "app", "deep; lib; app deep lib", "",
		},
		"and what that needs after its merge":                {"lib: post plug\nplug: run lib\napp: build lib", "app", "lib; plug; app lib plug", ""},
		"a generator that is installed is the base's":        {"gen installed\napp: build gen", "app", "app gen(base)", ""},
		"its run-time needs are too":                         {"lib installed\ngen installed: run lib\napp: build gen", "app", "app lib(base) gen(base)", ""},
		"something wanted is built although it is installed": {"gen installed\napp: build gen", "gen app", "gen; app gen", ""},
		"a cycle that the base breaks":                       {"a installed: build b\nb: build a", "b", "b a(base)", ""},
		"a cycle that nothing breaks":                        {"a: build b\nb: build a\nc", "a b c", "c", "=cat/a-1 =cat/b-1"},
		"a cycle through PDEPEND is not waited for":          {"py: post pip\npip: build py, run py", "py", "py", ""},
		"a tool that needs its user to run":                  {"tool: run app\napp: build tool", "app", "tool; app tool", ""},
		"tools that need their users to run":                 {"t: run a c\na: build t\nc: build t", "a c", "t; a t; c t", ""},
		"a cycle of one":                                     {"a: run b\nb: build a", "b", "a; b a", ""},
		"what waits for a cycle":                             {"a: build b\nb: build a\nc: build a", "c", "", "=cat/a-1 =cat/b-1 =cat/c-1"},
		"live":                                               {"lib live\napp: build lib\nother", "app other", "other", "=cat/lib-1 =cat/app-1"},
		"a run-time cycle is none":                           {"a: run b\nb: run a\nc: build a", "c", "a; b; c a b", ""},
		"builds come first":                                  {"app: build lib\nlib", "app lib", "lib; app lib", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, doc(t, c.graph, strings.Fields(c.want)...))
			if got := shape(p); got != c.shape {
				t.Errorf("got %q, want %q", got, c.shape)
			}
			var dropped []string
			for _, n := range p.Dropped {
				dropped = append(dropped, n.Atom)
			}
			if got := strings.Join(dropped, " "); got != c.dropped {
				t.Errorf("dropped %q, want %q", got, c.dropped)
			}
		})
	}
}

// lending answers for a machine that has packages installed, and lends them.
func lending(have map[string]installedSeed) conversion {
	return conversion{
		target: "t",
		base:   map[string]build.Installed{},
		installed: func(qs []seedQuestion) (out []installedSeed, err error) {
			for _, q := range qs {
				out = append(out, have[q.CPV])
			}
			return out, nil
		},
		lend: func(c build.CPV) (string, error) { return "cid of " + c.String(), nil },
	}
}

func TestWhatIsInstalledBreaksACycle(t *testing.T) {
	seed := func(cpv string) installedSeed { return installedSeed{CPV: cpv, Slot: "0/0"} }
	for name, c := range map[string]struct {
		graph, want string
		have        map[string]installedSeed
		shape       string
	}{
		"what nobody asked for is lent and not built": {"a: build b\nb: build a", "a", map[string]installedSeed{"cat/b-1": seed("cat/b-1")}, "a b(lent)"},
		"an older version will do":                    {"a: build b\nb: build a", "a b", map[string]installedSeed{"cat/a-1": seed("cat/a-0")}, "b a(lent); a b"},
		"others get the package itself":               {"a: build b\nb: build a\nc: build a", "a b c", map[string]installedSeed{"cat/a-1": seed("cat/a-1")}, "b a(lent); a b; c a"},
		"another subslot will not do":                 {"a: build b\nb: build a", "a", map[string]installedSeed{"cat/b-1": {CPV: "cat/b-1", Slot: "0/1"}}, ""},
		"nor one that does not satisfy":               {"a: build b\nb: build a", "a", map[string]installedSeed{"cat/b-1": {CPV: "cat/b-1", Slot: "0", Satisfies: []bool{false}}}, ""},
		"nor one bound to what the plan replaces":     {"lib\na: build b\nb: build a, link lib", "a", map[string]installedSeed{"cat/b-1": {CPV: "cat/b-1", Slot: "0", Bound: []string{"cat/lib:0/9="}}}, ""},
		"one bound to what the plan has will":         {"lib\na: build b\nb: build a, link lib", "a", map[string]installedSeed{"cat/b-1": {CPV: "cat/b-1", Slot: "0", Bound: []string{"cat/lib:0/0="}}}, "lib; a lib b(lent)"},
		"two cycles that touch":                       {"a: build b\nb: build a c\nc: build b", "a b c", map[string]installedSeed{"cat/b-1": seed("cat/b-1")}, "a b(lent); c b(lent); b a c"},
		"two cycles that do not":                      {"a: build b\nb: build a\nc: build d a\nd: build c", "c", map[string]installedSeed{"cat/b-1": seed("cat/b-1"), "cat/d-1": seed("cat/d-1")}, "a b(lent); c a d(lent)"},
		"what runs with what is lent is there too":    {"r\na: build b\nb: build a, run r", "a", map[string]installedSeed{"cat/b-1": seed("cat/b-1")}, "r; a r b(lent)"},
		"a tool that needs its user to run":           {"tool: run app\napp: build tool", "app", map[string]installedSeed{"cat/app-1": seed("cat/app-0")}, "tool; app tool app(lent)"},
	} {
		t.Run(name, func(t *testing.T) {
			d := doc(t, c.graph, strings.Fields(c.want)...)
			p, err := convert(d, noFiles{}, lending(c.have))
			if err != nil {
				t.Fatal(err)
			}
			if got := shape(p); got != c.shape {
				t.Errorf("got %q, want %q; dropped %v", got, c.shape, p.Dropped)
			}
		})
	}
}

func TestABootstrapBuildBreaksACycle(t *testing.T) {
	d := doc(t, "a: build b\nb: build a\na2\nc: build a", "b", "c")
	d.Need = []int{0, 1, 3}
	d.Nodes[2].CPV, d.Nodes[2].Ebuild, d.Nodes[2].UseEffective = d.Nodes[0].CPV, d.Nodes[0].Ebuild, []string{"small"}
	d.Bootstraps = append(d.Bootstraps, struct {
		Node int `json:"node"`
		For  int `json:"for"`
	}{2, 0})
	p := planOf(t, d)
	if got := shape(p); got != "a; b a; a b; c a" {
		t.Errorf("got %q; dropped %v", got, p.Dropped)
	}
	if !p.Jobs[0].Seed || p.Jobs[1].Seed || p.Jobs[2].Seed {
		t.Error("the first build of a is a bootstrap, and no other")
	}
	if last := p.Jobs[3]; last.Root.At(0).Key != p.Jobs[2].Key {
		t.Error("who is not on the cycle is built with the bootstrap build")
	}
	// The cycle's own need of a is met by the package itself where it runs.
	if n := p.Jobs[1].Needs; len(n) != 0 {
		t.Errorf("b still needs %v", n)
	}
}

func TestBoundAtomsAreThoseTheRootCanBind(t *testing.T) {
	d := doc(t, "lib\nother\napp: link lib", "app")
	other := 1
	app := &d.Nodes[2]
	app.Deps.Text = stringMap{"DEPEND": "cat/lib:=", "RDEPEND": "cat/lib:= cat/other:="}
	app.Deps.SlotOps = append(app.Deps.SlotOps,
		slotOp{Kind: "RDEPEND", Atom: "cat/lib:=", Bound: "cat/lib:0/0=", To: new(int)},
		slotOp{Kind: "RDEPEND", Atom: "cat/other:=", Bound: "cat/other:0/0=", To: &other})
	p := planOf(t, d)
	j := p.Jobs[len(p.Jobs)-1]
	if !slices.Equal(j.Bound, []string{"cat/lib:0/0="}) {
		t.Errorf("bound %v; what is not in the root cannot be bound by the build", j.Bound)
	}
	// The library's edge is of all kinds at once.
	if len(j.Needs) != 1 || j.Needs[0].Kind != build.Buildtime|build.Runtime|build.SlotOp {
		t.Errorf("needs %v", j.Needs)
	}
}

func TestKeyCountsWhatDecidesTheContent(t *testing.T) {
	base := func() *document { return doc(t, "lib\napp: link lib", "app") }
	key := func(d *document) build.Key {
		d.Nodes[1].Deps.Text = stringMap{"DEPEND": "cat/lib:="}
		p := planOf(t, d)
		return p.Jobs[len(p.Jobs)-1].Key
	}
	plain := key(base())
	app := func(change func(*node)) func(*document) { return func(d *document) { change(&d.Nodes[1]) } }
	env := func(change func(*environment)) func(*document) { return func(d *document) { change(&d.Env) } }
	for name, c := range map[string]struct {
		change func(*document)
		counts bool
	}{
		"nothing":         {func(*document) {}, false},
		"USE":             {app(func(n *node) { n.UseEffective = []string{"x"} }), true},
		"IUSE":            {app(func(n *node) { n.IUSEEffective = []string{"x"} }), true},
		"ebuild":          {app(func(n *node) { n.Ebuild = "edited" }), true},
		"files":           {app(func(n *node) { n.Files = "patched" }), true},
		"user patch":      {app(func(n *node) { n.Patches = []string{"p"} }), true},
		"bashrc":          {app(func(n *node) { n.Bashrcs = []string{"p"} }), true},
		"keywords":        {app(func(n *node) { n.Keywords = "amd64" }), false},
		"eclass":          {app(func(n *node) { n.Eclasses = []eclass{{"e", "/e"}} }), false},
		"repository":      {app(func(n *node) { n.Repo = "other" }), true},
		"slot":            {app(func(n *node) { n.SubSlot = "1" }), true},
		"EAPI":            {app(func(n *node) { n.EAPI = "9" }), true},
		"package.env":     {app(func(n *node) { n.Vars = stringMap{"CFLAGS": "-O3"} }), true},
		"CFLAGS":          {env(func(e *environment) { e.Vars["CFLAGS"] = "-O3" }), true},
		"blanks":          {env(func(e *environment) { e.Vars["CFLAGS"] = " -O2 " }), false},
		"GOAMD64":         {env(func(e *environment) { e.Vars["GOAMD64"] = "v3" }), true},
		"unknown":         {env(func(e *environment) { e.Vars["EXTRA_ECONF_X"] = "1" }), true},
		"MAKEOPTS":        {env(func(e *environment) { e.Vars["MAKEOPTS"] = "-j9" }), false},
		"DISTDIR":         {env(func(e *environment) { e.Vars["DISTDIR"] = "/d" }), false},
		"compression":     {env(func(e *environment) { e.Vars["PORTAGE_COMPRESS"] = "xz" }), true},
		"default options": {env(func(e *environment) { e.Vars["EMERGE_DEFAULT_OPTS"] = "-a" }), false},
		"expanded USE": {env(func(e *environment) {
			e.UseExpand, e.Vars["L10N"] = []string{"L10N"}, "de"
		}), false},
		"splitdebug":      {env(func(e *environment) { e.Features = []string{"strict", "splitdebug"} }), true},
		"ccache":          {env(func(e *environment) { e.Features = []string{"strict", "ccache"} }), false},
		"FEATURES of one": {app(func(n *node) { n.Features = []string{"nostrip"} }), true},
		"CHOST":           {env(func(e *environment) { e.CHOST = "i686-pc-linux-gnu" }), true},
		"compiler's slot": {env(func(e *environment) { e.Toolchain = stringMap{"sys-devel/gcc": "14"} }), true},
		"bound slot":      {app(func(n *node) { n.Deps.SlotOps[0].Bound = "cat/lib:0/9=" }), true},
		"a distfile's hash": {app(func(n *node) {
			n.Distfiles = append(n.Distfiles, distfile{"a.tar", 1, "SHA512:00", false})
		}), true},
	} {
		d := base()
		c.change(d)
		if changed := key(d) != plain; changed != c.counts {
			t.Errorf("%s: key changed %t, want %t", name, changed, c.counts)
		}
	}
}

func TestHeaderNamesNoPlaces(t *testing.T) {
	got := header(map[string]string{
		"ARCH": "amd64", "GENTOO_MIRRORS": "http://x", "FEATURES": "a", "URI": "http://x", "TIMESTAMP": "1",
		"PACKAGES": "0", "USE_EXPAND_VALUES_ARCH": "amd64 arm", "PROFILE": "", "VERSION": "0", "repository": "",
	})
	want := []build.Pair{{Name: "ARCH", Value: "amd64"}, {Name: "USE_EXPAND_VALUES_ARCH", Value: "amd64 arm"}, {Name: "VERSION", Value: "0"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestMalformedAnswersAreRefused(t *testing.T) {
	for name, change := range map[string]func(*document){
		"task beyond the end":  func(d *document) { d.Want = []int{9} },
		"negative task":        func(d *document) { d.Need = []int{-1} },
		"task twice":           func(d *document) { d.Want = []int{0, 0} },
		"edge beyond the end":  func(d *document) { d.NeedEdges = []edge{{From: 0, To: 7}} },
		"name that is a path":  func(d *document) { d.Nodes[0].CPV = "../../etc-1" },
		"slot with a newline":  func(d *document) { d.Nodes[0].Slot = "0\n" },
		"flag that is options": func(d *document) { d.Nodes[0].IUSE = []string{"--root=/"} },
		"bound beyond the end": func(d *document) {
			to := 99
			d.Nodes[0].Deps.SlotOps = []slotOp{{To: &to}}
		},
	} {
		d := doc(t, "lib\napp: build lib", "app")
		change(d)
		if _, err := convert(d, noFiles{}, conversion{target: "t"}); !errors.Is(err, errAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestLargePlanConverts holds the conversion to sizes of real plans.
func TestLargePlanConverts(t *testing.T) {
	var b strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&b, "p%d: build", i)
		for k := 1; k <= 3 && k <= i; k++ {
			fmt.Fprintf(&b, " p%d", i-k*k*7%i-1)
		}
		b.WriteByte('\n')
	}
	text := strings.ReplaceAll(strings.ReplaceAll(b.String(), ": build\n", "\n"), "p-1", "p0")
	d := doc(t, text, "p1499")
	p, err := convert(d, noFiles{}, conversion{target: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Jobs) == 0 {
		t.Error("no jobs")
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"nodes":[{"cpv":"a/b-1","slot":"0","sub_slot":"0","repo":"r"}],"want":[0],"need":[0]}`))
	f.Add([]byte(`{"nodes":[{"cpv":"a/b-1","slot":"0","sub_slot":"1"},{"cpv":"a/c-1","slot":"0","sub_slot":"0"}],` +
		`"want":[0],"need":[1,0],"need_edges":[{"from":0,"to":1,"kinds":["buildtime"]},{"from":1,"to":0,"kinds":["buildtime","x"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d document
		if json.Unmarshal(b, &d) != nil {
			return
		}
		p, err := convert(&d, noFiles{}, conversion{target: "t"})
		if err != nil {
			return
		}
		if err := p.Validate(); err != nil {
			t.Errorf("converted to an invalid plan: %v", err)
		}
	})
}
