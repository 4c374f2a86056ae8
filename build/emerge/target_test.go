package emerge

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

// dressed puts on a machine what a configuration may have.
func dressed(t *testing.T, cfg Config) Config {
	t.Helper()
	write(t, cfg, "make.conf", `
# a comment
COMMON="-O2 -pipe"
CFLAGS="${COMMON} -fno-plt"
USE="X -doc"
INSTALL_MASK="/usr/include"
EMERGE_DEFAULT_OPTS="--ask --jobs=4"
PORTAGE_BINHOST="http://user:pass@binhost.example/packages"
FEATURES="${FEATURES} splitdebug parallel-fetch"
MAKEOPTS="-j7"
ROUTER_PASSWORD="hunter2"
HTTP_SOURCE="https://me:secret@example.org/"
LAB_WORD="it's \"quoted\" and costs \$5"
source make.extra
`, os.O_APPEND)
	put(t, cfg, "make.extra", "LDFLAGS=\"-Wl,-O1\"\n")
	put(t, cfg, "package.use/10-first", "# why\nsw-lab/app   extra # because\n\n")
	put(t, cfg, "package.use/20-second", "sw-lab/doc -html\n")
	put(t, cfg, "package.use/.hidden", "sw-lab/doc html\n")
	put(t, cfg, "package.mask", "=sw-lab/libc-2.41\n")
	put(t, cfg, "package.env", "sw-lab/app small\n")
	put(t, cfg, "env/small", "CFLAGS=\"-Os\"\n")
	put(t, cfg, "patches/sw-lab/patched/one.patch", "--- a/text\n+++ b/text\n@@ -1 +1 @@\n-plain\n+patched\n")
	put(t, cfg, "patches/sw-lab/patched/README", "not a patch\n")
	put(t, cfg, "sets/own", "sw-lab/app\n")
	put(t, cfg, "binrepos.conf/x.conf", "[x]\nsync-uri = http://x.example\n")
	return cfg
}

func bundleLines(b *build.Bundle) []string {
	out := []string{"profile " + b.Profile, "main " + b.MainRepo}
	for _, r := range b.Repos {
		out = append(out, fmt.Sprintf("repository %s %v", r.Name, r.Masters))
	}
	for _, p := range b.MakeConf {
		if p.Name != "ARCH" && p.Name != "ACCEPT_KEYWORDS" && p.Name != "CHOST" {
			out = append(out, "make.conf "+p.Name+"="+p.Value)
		}
	}
	for _, f := range b.Files {
		out = append(out, fmt.Sprintf("file %s %q", f.Path, f.Data))
	}
	for _, l := range b.Left {
		out = append(out, "left "+l.Atom+": "+l.Reason)
	}
	return out
}

// TestATargetIsTheConfigurationItself lays a bundle out elsewhere and finds the
// same bundle, and the same keys, there.
func TestATargetIsTheConfigurationItself(t *testing.T) {
	cfg := dressed(t, labConfig(t))
	p := real(t, cfg)
	b, err := p.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := PlanRequest{Target: "t", Atoms: []string{"sw-lab/app", "sw-lab/doc", "sw-lab/libc", "sw-lab/patched"}}
	want, err := p.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}

	other := labConfig(t)
	etc := filepath.Join(other.EPrefix, "etc/portage")
	own, err := os.ReadFile(filepath.Join(etc, "make.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(etc); err != nil {
		t.Fatal(err)
	}
	repos := map[string]string{}
	for _, r := range b.Repos {
		repos[r.Name] = filepath.Join(other.EPrefix, "repos", r.Name)
	}
	files, err := b.Configuration(repos)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(etc, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if f.Link != "" {
			err = os.Symlink(f.Link, path)
		} else {
			err = os.WriteFile(path, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a drone adds is its own: places, and how Portage may work there.
	var local []string
	for line := range strings.Lines(string(own)) {
		if strings.HasPrefix(line, "FEATURES=") || strings.Contains(line, "DIR=") {
			local = append(local, strings.Replace(line, `FEATURES="`, `FEATURES="${FEATURES} `, 1))
		}
	}
	write(t, other, "make.conf", strings.Join(local, ""), os.O_APPEND)
	q := real(t, other)
	again, err := q.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Left, again.Left = nil, nil
	x, err := build.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	y, err := build.Marshal(again)
	if err != nil || !bytes.Equal(x, y) {
		t.Errorf("laid out elsewhere it is another: %+v, %v", again.Diff(b), err)
	}
	got, err := q.Plan(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	there := map[build.CPV]build.Job{}
	for _, j := range got.Jobs {
		there[j.CPV] = j
	}
	for _, j := range want.Jobs {
		if g := there[j.CPV]; g.Key != j.Key {
			t.Errorf("%s has another key there: %s", j.CPV, differ(j.Preimage, g.Preimage))
		}
	}
	if len(got.Jobs) != len(want.Jobs) {
		t.Errorf("%d jobs there, %d here", len(got.Jobs), len(want.Jobs))
	}
}

func TestNativeIsWrittenOut(t *testing.T) {
	for _, name := range []string{"gcc", "clang"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("SKIPPED: no %s here", name)
			}
			cc := []string{path}
			out, err := resolveNative(t.Context(), cc, "-O2 -march=native -pipe")
			if err != nil {
				t.Skipf("SKIPPED: this %s knows no native: %v", name, err)
			}
			t.Log(out)
			if hasNative(out) || !strings.Contains(out, "-march=") || !strings.HasSuffix(out, "-O2 -pipe") {
				t.Errorf("resolved to %q", out)
			}
			// What it says in words is what native means, instruction by instruction.
			native, err := askCompiler(t.Context(), cc, []string{"-march=native"})
			if err != nil {
				t.Fatal(err)
			}
			words, err := askCompiler(t.Context(), cc, machineFlags(out))
			if err != nil {
				t.Fatal(err)
			}
			for name := range instructions {
				if native.on[name] != words.on[name] {
					t.Errorf("-m%s is %t with native, %t with %s", name, native.on[name], words.on[name], out)
				}
			}
			needs, err := needsOf(t.Context(), cc, "-O2 -march=x86-64-v3")
			if err == nil && (!slices.Contains(needs, "avx2") || !slices.Contains(needs, "sse2") || slices.Contains(needs, "avx512f")) {
				t.Errorf("x86-64-v3 needs %v", needs)
			}
			// A drone that cannot run it is excluded by what its processor lacks.
			needs, err = needsOf(t.Context(), cc, out)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(needs)
			target := build.Target{Arch: "amd64", CPU: needs}
			if runtime.GOARCH == "amd64" && (!target.Runs("amd64", needs) || target.Excludes("amd64", []string{"sse2"}) == "" && len(needs) > 5) {
				t.Errorf("needs %v", needs)
			}
		})
	}
}

// TestClangSaysWhatNativeMeans reads what clang 14 printed on a processor that it
// knows by name.
func TestClangSaysWhatNativeMeans(t *testing.T) {
	h := readClang([]byte("#define __AVX2__ 1\n#define __SSE4_1__ 1\n#define __LAHF_SAHF__ 1\n#define __GCC_HAVE_SYNC_COMPARE_AND_SWAP_16 1\n#define __x86_64 1\n"), []byte(
		"Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu\n (in-process)\n \"/usr/lib/llvm-14/bin/clang\" \"-cc1\" \"-triple\" \"x86_64-pc-linux-gnu\" \"-target-cpu\" \"haswell\" \"-target-feature\" \"+avx2\" \"-tune-cpu\" \"generic\"\n"))
	if h.value["arch"] != "haswell" || h.value["tune"] != "generic" || !h.on["avx2"] || !h.on["sse4.1"] || !h.on["sahf"] || !h.on["cx16"] || h.on["avx512f"] {
		t.Errorf("%+v", h)
	}
	if h = readClang(nil, []byte(`"-target-cpu"`)); h.value["arch"] != "" {
		t.Errorf("of a command that is cut short: %+v", h)
	}
}

// TestNativeInFilesIsWrittenOut: package.env and its like say native, too.
func TestNativeInFilesIsWrittenOut(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("SKIPPED: no gcc here")
	}
	want, err := resolveNative(t.Context(), []string{gcc}, "-march=native")
	if err != nil {
		t.Skipf("SKIPPED: this gcc knows no native: %v", err)
	}
	e := evaluator{doc: &evaluation{CC: gcc}, b: &build.Bundle{Files: []build.BundleFile{
		{Path: "env/fast", Data: []byte("CFLAGS=\"-O3 -march=native\"\nCXXFLAGS=\"${CFLAGS} -mtune=native\"\n")},
		{Path: "package.env", Data: []byte("cat/a fast\n")}, {Path: "patches/cat/a/x.patch", Data: []byte("+CFLAGS=-march=native\n")},
	}}}
	if err := e.nativeFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := string(e.b.Files[0].Data)
	if !strings.Contains(got, "-O3 "+want+"\"") || strings.Contains(got, "native") || !strings.Contains(string(e.b.Files[2].Data), "native") || len(e.b.Left) != 2 {
		t.Errorf("%q, left %v", got, e.b.Left)
	}
	if runtime.GOARCH == "amd64" && !slices.Contains(e.b.CPU, "sse2") {
		t.Errorf("a processor needs %v", e.b.CPU)
	}
}

func TestCPUFlagsNameWhatTheKernelKnows(t *testing.T) {
	for flag, want := range map[[2]string]string{
		{"x86", "avx2"}: "avx2", {"x86", "sse3"}: "pni", {"x86", "fma3"}: "fma", {"x86", "padlock"}: "",
		{"arm", "neon"}: "asimd", {"arm", "v8"}: "", {"arm", "sha1"}: "sha1", {"ppc", "altivec"}: "",
	} {
		if got := cpuFlag(flag[0], flag[1]); got != want {
			t.Errorf("%v: %q, want %q", flag, got, want)
		}
	}
}

func TestABrokenConfigurationIsSaid(t *testing.T) {
	for name, breakIt := range map[string]func(*testing.T, Config){
		"make.conf":  func(t *testing.T, cfg Config) { put(t, cfg, "make.conf", "CFLAGS=\"-O2\n") },
		"no profile": func(t *testing.T, cfg Config) { removeAll(t, filepath.Join(cfg.EPrefix, "etc/portage/make.profile")) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := labConfig(t)
			breakIt(t, cfg)
			p := real(t, cfg)
			_, err := p.Evaluate(t.Context())
			if err == nil {
				t.Fatal("it was evaluated all the same")
			}
			t.Log(err)
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1200 {
				t.Errorf("the error is no line: %v", err)
			}
		})
	}
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
