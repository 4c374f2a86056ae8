package build

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func sampleBundle() Bundle {
	return Bundle{
		Format: BundleFormat, Arch: "amd64", CHOST: "x86_64-pc-linux-gnu", Libc: "glibc", Profile: "gentoo:default/linux/amd64/23.0", MainRepo: "gentoo",
		Repos:      []BundleRepo{{Name: "gentoo", Priority: -1000}, {Name: "own", Masters: []string{"gentoo"}}},
		MakeConf:   []Pair{{"CFLAGS", `-O2 -DX=\"a\"`}, {"USE", "-X wayland"}},
		Files:      []BundleFile{{"bashrc", []byte(":\n")}, {"env/no-lto", []byte("CFLAGS=\"-O2\"\n")}, {"package.use", []byte("app-misc/a b\n")}, {"patches/app-misc/a-1:0/x.patch", []byte("--- a\n")}},
		Selections: []Pair{{"gcc", "x86_64-pc-linux-gnu-14"}},
		Header:     []Pair{{"ARCH", "amd64"}, {"VERSION", "0"}},
		CPU:        []string{"avx", "avx2"},
	}
}

func TestABundleLaysOutAConfiguration(t *testing.T) {
	b := sampleBundle()
	files, err := b.Configuration(map[string]string{"gentoo": "/r/gentoo", "own": "/r/own"})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]ConfigFile{}
	for _, f := range files {
		by[f.Path] = f
	}
	if l := by["make.profile"].Link; l != "/r/gentoo/profiles/default/linux/amd64/23.0" {
		t.Errorf("make.profile leads to %q", l)
	}
	if s := string(by["make.conf"].Data); s != "CFLAGS=\"-O2 -DX=\\\\\\\\\\\"a\\\\\\\\\\\"\"\nUSE=\"-X wayland\"\n" {
		t.Errorf("make.conf is %q", s)
	}
	if s := string(by["repos.conf/swarm.conf"].Data); !strings.Contains(s, "main-repo = gentoo") || !strings.Contains(s, "[own]\nlocation = /r/own\npriority = 0\nauto-sync = no\nmasters = gentoo\n") {
		t.Errorf("repos.conf is %q", s)
	}
	if !bytes.Equal(by["env/no-lto"].Data, b.Files[1].Data) {
		t.Error("a file is not there, or another")
	}
	if _, err := b.Configuration(map[string]string{"gentoo": "/r/gentoo"}); !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "own") {
		t.Errorf("a repository without a place: %v", err)
	}
}

func TestABundleFromAPeerKeepsItsPlace(t *testing.T) {
	bad := map[string]func(*Bundle){
		"a path outside":          func(b *Bundle) { b.Files[0].Path = "../../etc/shadow" },
		"a place of its own":      func(b *Bundle) { b.Files[0].Path = "binrepos.conf" },
		"an absolute path":        func(b *Bundle) { b.Files[0].Path = "/bashrc" },
		"a file below a file":     func(b *Bundle) { b.Files[1].Path = "bashrc/x" },
		"files not sorted":        func(b *Bundle) { slices.Reverse(b.Files) },
		"a profile outside":       func(b *Bundle) { b.Profile = "gentoo:../../../root" },
		"a variable with a line":  func(b *Bundle) { b.MakeConf[0].Name = "X\nY" },
		"a variable twice":        func(b *Bundle) { b.MakeConf[1].Name = "CFLAGS" },
		"a repository name":       func(b *Bundle) { b.Repos[1].Name = "x]\n[y" },
		"a master that is absent": func(b *Bundle) { b.Repos[1].Masters = []string{"z"} },
		"no main repository":      func(b *Bundle) { b.MainRepo = "z" },
		"another format":          func(b *Bundle) { b.Format = 2 },
		"a CPU feature":           func(b *Bundle) { b.CPU[0] = "a b" },
	}
	good := sampleBundle()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for what, change := range bad {
		b := sampleBundle()
		change(&b)
		if err := b.Validate(); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestEqualBundlesHaveEqualBytesAndDiffSaysWhatDiffers(t *testing.T) {
	a, b := sampleBundle(), sampleBundle()
	x, err := Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := Marshal(&b)
	if err != nil || !bytes.Equal(x, y) {
		t.Errorf("two encodings differ, %v", err)
	}
	var back Bundle
	if err := Unmarshal(x, &back); err != nil || len(back.Diff(&a)) != 0 {
		t.Errorf("it came back as %+v, %v", back, err)
	}
	b.MakeConf[1].Value = "X wayland"
	b.Files = b.Files[1:]
	b.Selections[0].Value = "x86_64-pc-linux-gnu-15"
	var what []string
	for _, c := range b.Diff(&a) {
		what = append(what, c.What)
	}
	if got := strings.Join(what, ", "); got != "make.conf USE, file bashrc, selection gcc" {
		t.Errorf("differences: %s", got)
	}
}

func TestATargetExcludesMachinesThatCannotRunIt(t *testing.T) {
	tg := Target{Name: "t", Arch: "amd64", CPU: []string{"avx2", "bmi2"}}
	for _, c := range []struct {
		arch string
		has  []string
		want string
	}{
		{"amd64", []string{"avx2", "bmi2", "sse2"}, ""},
		{"amd64", []string{"sse2", "bmi2", "avx2"}, ""},
		{"amd64", nil, ""},
		{"", nil, ""},
		{"amd64", []string{"sse2", "avx2"}, "its processor lacks bmi2"},
		{"arm64", nil, "it is arm64, the target amd64"},
	} {
		if got := tg.Excludes(c.arch, c.has); got != c.want {
			t.Errorf("%s with %v: %q, want %q", c.arch, c.has, got, c.want)
		}
	}
	tg = Target{Name: "t", Arch: "x86"}
	if why := tg.Excludes("amd64", nil); why != "" {
		t.Errorf("amd64 for x86: %s", why)
	}
}
