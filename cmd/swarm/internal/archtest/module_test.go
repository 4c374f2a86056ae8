package archtest

import (
	"testing"
)

// checks are all checks of source, by the name that a failing test shows.
var checks = map[string]func(*Tree) []Finding{
	"arrows": Arrows, "homes": Homes, "purity": Purity, "goroutines": Goroutines, "comments": Comments,
	"sizes": Sizes, "statements": Statements, "stale panics": StalePanics, "globals": Globals, "errors": Errors, "power": Power,
}

func TestTheModuleKeepsItsArchitecture(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 100 {
		t.Fatalf("only %d files below %s: this is not the module", len(tree.Files), root)
	}
	var all []Finding
	for name, check := range checks {
		found := check(tree)
		all = append(all, found...)
		stand, _, _ := Sort(found)
		for _, f := range stand {
			t.Errorf("%s: %s", name, f)
		}
	}
	_, known, ended := Sort(all)
	for d, list := range known {
		for _, f := range list {
			t.Logf("known deviation: %s (to mend: %s)", f, d.Mend)
		}
	}
	for _, d := range ended {
		t.Errorf("the deviation %q in %s has ended: take it out of the list", d.Says, d.At)
	}
	top, err := TopLevel(rootFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range top {
		t.Error(f)
	}
}

// A table that names what does not exist would check nothing.
func TestTablesNamePackagesThatExist(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, p := range tree.Packages() {
		have[p] = true
	}
	for _, p := range Pure {
		if !have[p] {
			t.Errorf("pure package %s does not exist", p)
		}
	}
	// What the design names and nobody has written yet.
	later := map[string]bool{"claims/agent/agenttest": true, "httpgateway/ui": true}
	for _, a := range arrows {
		if !have[a.from] && !later[a.from] {
			t.Errorf("the table of arrows has %s, which does not exist", a.from)
		}
		if a.why == "" {
			t.Errorf("the arrows of %s have no reason", a.from)
		}
	}
}
