package emerge

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

func TestCommentsAndKeywordsDoNotCount(t *testing.T) {
	base := "EAPI=8\nKEYWORDS=\"~amd64\"\nSRC_URI=\"https://x/${P#v}.tar\"\nsrc_compile() {\n\temake CC=\"$(tc-getCC)\"\n}\n"
	same := func(a, b string) bool { return bytes.Equal(normalEbuild([]byte(a)), normalEbuild([]byte(b))) }
	for name, c := range map[string]struct {
		edited string
		same   bool
	}{
		"a stabilisation":           {strings.Replace(base, "~amd64", "amd64 ~arm64", 1), true},
		"a comment":                 {"# Copyright 2027\n\n" + base, true},
		"a comment behind code":     {strings.Replace(base, "EAPI=8", "EAPI=8 # latest", 1), true},
		"a comment in a function":   {strings.Replace(base, "\temake", "\t# \"quoted\n\temake", 1), true},
		"trailing blanks":           {strings.Replace(base, "EAPI=8", "EAPI=8  ", 1), true},
		"code":                      {strings.Replace(base, "emake", "emake -k", 1), false},
		"keywords that compute":     {strings.Replace(base, "~amd64", "$(touch /x)", 1), false},
		"a hash that is no comment": {strings.Replace(base, "#v", "#w", 1), false},
	} {
		if got := same(base, c.edited); got != c.same {
			t.Errorf("%s: same %t, want %t", name, got, c.same)
		}
	}
}

// TestContentThatLooksLikeComments: each pair differs in what bash runs or
// writes, so that no pair may be equal.
func TestContentThatLooksLikeComments(t *testing.T) {
	for name, c := range map[string][2]string{
		"here-document":         {"cat > x.c <<EOF\n#include <a.h>\nEOF\n", "cat > x.c <<EOF\n#include <b.h>\nEOF\n"},
		"quoted here-document":  {"cat <<-'EOF'\n\t# a\n\tEOF\n", "cat <<-'EOF'\n\t# b\n\tEOF\n"},
		"double quotes":         {"sed -e \"\n# a\n\"\n", "sed -e \"\n# b\n\"\n"},
		"single quotes":         {"sed -e '\n# a\n'\n", "sed -e '\n# b\n'\n"},
		"in a substitution":     {"X=\"$(echo \"# a\")\"\n", "X=\"$(echo \"# b\")\"\n"},
		"backquotes":            {"X=`echo \\`\n# a\n`\n", "X=`echo \\`\n# b\n`\n"},
		"pattern":               {"X=${Y/ # a/}\n", "X=${Y/ # b/}\n"},
		"number":                {"X=$(( 16#a ))\n", "X=$(( 16#b ))\n"},
		"two here-documents":    {"cat <<A <<B\n# 1\nA\n# 2\nB\n", "cat <<A <<B\n# 1\nA\n# 3\nB\n"},
		"array":                 {"X=( a '#' )\nY=1\n", "X=( a '#' )\nY=2\n"},
		"ansi quotes":           {"X=$'\\'# a'\n", "X=$'\\'# b'\n"},
		"keywords in a text":    {"X='\nKEYWORDS=\"a\"\n'\n", "X='\nKEYWORDS=\"b\"\n'\n"},
		"blank lines of a text": {"cat <<E\na\n\nb\nE\n", "cat <<E\na\nb\nE\n"},
	} {
		if bytes.Equal(normalEbuild([]byte(c[0])), normalEbuild([]byte(c[1]))) {
			t.Errorf("%s: two texts became one: %q", name, normalEbuild([]byte(c[0])))
		}
	}
}

// FuzzNormalEbuild holds that a text without comments loses nothing but blanks,
// and that nothing is ever added or moved.
func FuzzNormalEbuild(f *testing.F) {
	f.Add([]byte("a # b\nc <<E\n# d\nE\n"))
	f.Add([]byte("x=\"$(y '#')\"\n`\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, ok := stripComments(b)
		if !ok {
			return
		}
		rest := b
		for _, c := range out {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				t.Fatalf("%q has bytes that %q lacks", out, b)
			}
			rest = rest[i+1:]
		}
		if !bytes.ContainsRune(b, '#') && !bytes.Contains(b, []byte("KEYWORDS")) &&
			!slices.EqualFunc(bytes.Fields(out), bytes.Fields(b), bytes.Equal) {
			t.Fatalf("%q became %q", b, out)
		}
		if again := normalEbuild(normalEbuild(b)); !bytes.Equal(again, normalEbuild(again)) {
			t.Fatalf("not stable: %q", b)
		}
	})
}

func TestTreeDigestIsOfContent(t *testing.T) {
	write := func(dir string, files map[string]string) string {
		for name, text := range files {
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d, err := TreeDigest(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a := map[string]string{"profiles/repo_name": "x", "a/b/b-1.ebuild": "EAPI=8", "eclass/e.eclass": "e"}
	one, two := t.TempDir(), t.TempDir()
	d := write(one, a)
	if d != write(two, a) {
		t.Error("equal trees differ")
	}
	if d != write(two, map[string]string{
		".git/HEAD": "x", "metadata/md5-cache/a/b-1": "x", "metadata/timestamp.chk": "now", "metadata/news/1": "n",
	}) {
		t.Error("what a sync writes counts")
	}
	for name, files := range map[string]map[string]string{
		"an edited ebuild": {"a/b/b-1.ebuild": "EAPI=7"}, "an edited eclass": {"eclass/e.eclass": "f"},
		"a new file": {"a/b/files/p.patch": ""}, "the layout": {"metadata/layout.conf": "masters ="},
	} {
		if write(two, files) == d {
			t.Errorf("%s does not count", name)
		}
		d = write(two, nil)
	}
	c := newTreeCache()
	first, err := c.digest(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	write(one, map[string]string{"a/b/b-1.ebuild": "EAPI=8\nlonger"})
	if second, err := c.digest(t.Context(), one); err != nil || second == first {
		t.Errorf("the cache did not see an edit: %v", err)
	}
}

func TestOutputIsStrippedKeptAndBounded(t *testing.T) {
	var log bytes.Buffer
	var phases []string
	o := &output{log: &log, phase: func(p string) { phases = append(phases, p) }}
	for _, s := range []string{"\x1b[32;01m>>>\x1b[0m Unpacking so", "urce...\nplain\n>>> Compiling source in /x\n>>> Install a/b-1 into /y\n", "no newline"} {
		if _, err := o.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	o.flush()
	want := ">>> Unpacking source...\nplain\n>>> Compiling source in /x\n>>> Install a/b-1 into /y\nno newline"
	if log.String() != want {
		t.Errorf("log %q", log.String())
	}
	if got := strings.Join(phases, " "); got != "unpack compile install" {
		t.Errorf("phases %q", got)
	}
	line := bytes.Repeat([]byte("x"), 1<<20)
	line[len(line)-1] = '\n'
	for range 100 {
		if _, err := o.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if log.Len() > maxLog+1<<20 || o.tail.Len() > 3*maxTail+1<<20 {
		t.Errorf("log of %d, tail of %d bytes", log.Len(), o.tail.Len())
	}
}

func TestFailuresAreClassifiedByOutput(t *testing.T) {
	for name, c := range map[string]struct {
		out    string
		class  build.Class
		reason string
	}{
		"compiler": {"a.c:3:1: error: expected ';'\nmake: *** [a.o] Error 1\n * ERROR: x/y-1::r failed (compile phase):\n *   emake failed\n",
			build.BadPackage, "compile phase: a.c:3:1: error: expected ';'"},
		"die alone": {" * ERROR: x/y-1::r failed (install phase):\n *   doins failed\n", build.BadPackage, "install phase: doins failed"},
		"bare die": {"!!! CONFIG_PROTECT is empty\nln: failed to create symbolic link '/bin/bzip2': File exists\n * ERROR: x/y-1::r failed (postinst phase):\n *   (no error message)\n",
			build.BadPackage, "postinst phase: ln: failed to create symbolic link '/bin/bzip2': File exists"},
		"disk":       {"a.c:3: error: x\n/tmp/a.s: No space left on device\n", build.BadMachine, "no space left on the device"},
		"signal":     {"./conftest: line 1:  7 Illegal instruction (core dumped)\n", build.BadMachine, "illegal instruction: this processor lacks one that the build runs"},
		"memory":     {"cc1plus: fatal error: Killed signal terminated program cc1plus\n", build.BadMachine, "out of memory"},
		"dev":        {"Failed to validate a sane '/dev'.\nbash process substitution doesn't work; this may be an indication of a broken '/dev/fd'.\n", build.BadMachine, "Failed to validate a sane '/dev'."},
		"check-reqs": {" * There is NOT at least 8 GiB disk space at \"/x\"\n", build.BadMachine, "There is NOT at least 8 GiB disk space at \"/x\""},
		"network":    {"!!! Couldn't download 'a.tar.gz'. Aborting.\n", build.BadNetwork, "Couldn't download 'a.tar.gz'. Aborting."},
		"no deps":    {"--buildpkgonly requires all dependencies to be merged.\n", build.BadMachine, "--buildpkgonly requires all dependencies to be merged."},
		"silence":    {"", build.BadMachine, "emerge failed without a word"},
		"only words": {"something\nwent wrong\n", build.BadPackage, "went wrong"},
		"escapes":    {"\x1b[31mfatal error: a.h: gone\x1b[0m\x07\n", build.BadPackage, "fatal error: a.h: gone"},
	} {
		f := classify([]byte(c.out))
		if f.Class != c.class || f.Reason != c.reason {
			t.Errorf("%s: got %s %q", name, f.Class, f.Reason)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte(" * ERROR: x failed (compile phase):\n *   y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := classify(b)
		if got.Reason == "" && len(bytes.TrimSpace(stripANSI(b))) > 0 && build.OneLine(string(b), 10) == string(b) {
			t.Errorf("no reason from %q", b)
		}
		if strings.ContainsAny(got.Reason, "\n\x1b") || len(got.Reason) > 300 {
			t.Errorf("reason %q", got.Reason)
		}
	})
}

func TestUseLineNamesEveryFlag(t *testing.T) {
	cpv, err := build.ParseCPV("dev-libs/lib-1.0-r2")
	if err != nil {
		t.Fatal(err)
	}
	j := &build.Job{CPV: cpv, Repo: "r", USE: []string{"b"}, IUSE: []string{"a", "b", "c"}}
	if got := useLine(j); got != "=dev-libs/lib-1.0-r2::r -a b -c\n" {
		t.Errorf("got %q", got)
	}
}

func TestConfigurationIsReferredToNotChanged(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, c := range []struct{ name, text string }{
		{"make.conf", "A=1\n"}, {"package.use", "a/b c\n"}, {"binrepos.conf", "x"}, {"repos.conf/r.conf", "y"},
	} {
		p := filepath.Join(from, "etc/portage", c.name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cpv, err := build.ParseCPV("a/b-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := configFor(from, to, &build.Job{CPV: cpv, Repo: "r", IUSE: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"make.conf": "A=1\n", "package.use/00-own": "a/b c\n", "package.use/zzzz-swarm-job": "=a/b-1::r -c\n", "repos.conf/r.conf": "y",
	} {
		got, err := os.ReadFile(filepath.Join(to, "etc/portage", name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(to, "etc/portage/binrepos.conf")); err == nil {
		t.Error("builds see binary hosts")
	}
	if got, err := os.ReadFile(filepath.Join(from, "etc/portage/package.use")); err != nil || string(got) != "a/b c\n" {
		t.Errorf("the machine's own package.use: %q %v", got, err)
	}
}
