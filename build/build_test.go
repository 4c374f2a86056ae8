package build

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestCPVGrammar(t *testing.T) {
	for text, want := range map[string]CPV{
		"app-misc/jq-1.7.1":              {"app-misc", "jq", "1.7.1"},
		"dev-libs/libfoo-2.0_rc1-r3":     {"dev-libs", "libfoo", "2.0_rc1-r3"},
		"x11-libs/gtk+-3.24.41-r1":       {"x11-libs", "gtk+", "3.24.41-r1"},
		"media-fonts/font-adobe-75dpi-1": {"media-fonts", "font-adobe-75dpi", "1"},
		"sys-devel/gcc-15.1.1_p20250628": {"sys-devel", "gcc", "15.1.1_p20250628"},
		"virtual/jdk-21b":                {"virtual", "jdk", "21b"},
	} {
		got, err := ParseCPV(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseCPV(%q) = %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "jq-1", "a/b", "a/b-", "../b-1", "a/../b-1", "a/b-1/c-1", "a/b-1-2", "a\x00/b-1", "a/b -1", "-a/b-1", "a/b-1.", strings.Repeat("a", 300) + "/b-1"} {
		if c, err := ParseCPV(bad); !errors.Is(err, ErrName) {
			t.Errorf("ParseCPV(%q) = %+v, %v", bad, c, err)
		}
	}
}

func TestAtomGrammar(t *testing.T) {
	for _, good := range []string{"app-misc/jq", "jq", "=app-misc/jq-1.7.1", ">=dev-libs/x-2.0-r1:0/2::gentoo[static-libs,-debug]", "=dev-lang/python-3.12*", "dev-lang/python:3.12", "~dev-libs/x-1"} {
		a, err := ParseAtom(good)
		if err != nil || a.String() != good {
			t.Errorf("ParseAtom(%q) = %q, %v", good, a.String(), err)
		}
	}
	for _, bad := range []string{"", "--pretend", "-a/b", "../../etc/passwd", "a/b/c", "=a/b", "a/b-1", "a/b[;rm]", "a/b:../x", ">=a/b-1*", "a b", "!a/b"} {
		if a, err := ParseAtom(bad); !errors.Is(err, ErrName) {
			t.Errorf("ParseAtom(%q) = %+v, %v", bad, a, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"app-misc/jq-1.7.1", ">=a/b-1:0/1::r[x]", "@world", "../x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCPV(s); err == nil {
			if c.String() != s || strings.Contains(s, "..") && strings.Contains(c.Category, "..") || strings.Count(s, "/") != 1 {
				t.Fatalf("%q parsed as %+v", s, c)
			}
		}
		if a, err := ParseAtom(s); err == nil {
			if again, err := ParseAtom(a.String()); err != nil || again.String() != a.String() {
				t.Fatalf("%q is written as %q: %v", s, a.String(), err)
			}
			if strings.HasPrefix(a.String(), "-") {
				t.Fatalf("%q could be taken for an option", a.String())
			}
		}
	})
}

func TestTheKeyIsAFunctionOfTheFacetsNotOfTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringN(1, 8, -1), 1, 6, rapid.ID[string]).Draw(t, "names")
		var fs []Facet
		for _, n := range names {
			fs = append(fs, Facet{n, rapid.String().Draw(t, "value")})
		}
		k, err := KeyOf(fs)
		if err != nil || !k.Valid() {
			t.Fatalf("key %q, %v", k, err)
		}
		if again, _ := KeyOf(rapid.Permutation(fs).Draw(t, "order")); again != k {
			t.Fatal("the order of facets shows in the key")
		}
		i := rapid.IntRange(0, len(fs)-1).Draw(t, "i")
		fs[i].Value += "x"
		if other, _ := KeyOf(fs); other == k {
			t.Fatal("another value, the same key")
		}
	})
	// Moving bytes from a name to its value is another preimage.
	a, _ := KeyOf([]Facet{{"ab", "c"}})
	b, _ := KeyOf([]Facet{{"a", "bc"}})
	if a == b {
		t.Error("two preimages read the same")
	}
	if _, err := KeyOf([]Facet{{"a", "1"}, {"a", "2"}}); err == nil {
		t.Error("a name twice is accepted")
	}
}

func planOf(t testing.TB, change func(*Plan)) *Plan {
	t.Helper()
	p := &Plan{Target: "t"}
	for _, n := range []string{"a", "b"} {
		j := Job{Builder: BuilderSample, CPV: CPV{"app-misc", n, "1"}, Slot: "0", Preimage: []Facet{{"n", n}}}
		var err error
		if j.Key, err = KeyOf(j.Preimage); err != nil {
			t.Fatal(err)
		}
		p.Jobs = append(p.Jobs, j)
	}
	p.Jobs[1].Needs = []Edge{{p.Jobs[0].Key, Buildtime}}
	if change != nil {
		change(p)
	}
	return p
}

func TestAPlanThatCouldDoHarmIsInvalid(t *testing.T) {
	if err := planOf(t, nil).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Plan){
		"target is a path":    func(p *Plan) { p.Target = "../x" },
		"wrong key":           func(p *Plan) { p.Jobs[0].Preimage[0].Value = "other" },
		"unknown edge":        func(p *Plan) { p.Jobs[1].Needs[0].Key = Key(strings.Repeat("a", 64)) },
		"cycle":               func(p *Plan) { p.Jobs[0].Needs = []Edge{{p.Jobs[1].Key, Buildtime}} },
		"cycle through roots": func(p *Plan) { p.Jobs[0].Root = NewRoot(RootEntry{CPV: p.Jobs[1].CPV, Slot: "0", Key: p.Jobs[1].Key}) },
		"the same job twice":  func(p *Plan) { p.Jobs[1] = p.Jobs[0] },
		"bad name":            func(p *Plan) { p.Jobs[0].CPV.Name = "../x" },
		"bad slot":            func(p *Plan) { p.Jobs[0].Slot = "0 ;" },
		"bad flag":            func(p *Plan) { p.Jobs[0].USE = []string{"a b"} },
		"wants what is not":   func(p *Plan) { p.Want = []Key{"x"} },
	} {
		if err := planOf(t, change).Validate(); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A runtime cycle orders nothing and is real: PDEPEND.
	ok := planOf(t, func(p *Plan) { p.Jobs[0].Needs = []Edge{{p.Jobs[1].Key, Runtime | RuntimePost}} })
	if err := ok.Validate(); err != nil {
		t.Errorf("a cycle through PDEPEND: %v", err)
	}
}

func TestEncodingIsCanonicalAndReturnsTheValue(t *testing.T) {
	p := planOf(t, nil)
	b, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got Plan
	if err := Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, &got); diff != "" {
		t.Error(diff)
	}
	again, err := Marshal(got)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("encoded again, it differs: %v", err)
	}
}

func FuzzPlan(f *testing.F) {
	b, err := Marshal(planOf(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Plan
		if Unmarshal(b, &p) == nil {
			_ = p.Validate() // must end, and not fall over
		}
	})
}

func TestOneLineIsSafeForATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\tc": "a b c", "\x1b[31mred\x1b[0m": "[31mred[0m", "  x  ": "x", "a\u202eb": "ab", "bad\xff": "bad", "": "",
	} {
		if got := OneLine(in, 100); got != want {
			t.Errorf("OneLine(%q) = %q, want %q", in, got, want)
		}
	}
	if got := OneLine(strings.Repeat("ä", 100), 11); len(got) > 11 || strings.ContainsRune(got, '\ufffd') {
		t.Errorf("cut to %q", got)
	}
}
