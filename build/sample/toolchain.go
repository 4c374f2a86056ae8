package sample

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Toolchain is what a machine compiles with. The zero value compiles nothing;
// Detect finds a real one.
type Toolchain struct {
	CC      string // path of the C compiler; "" = none
	AR      string
	Class   string // kind and major version, "gcc-12": part of the build key
	Version string // first line of --version: provenance
	CHOST   string // as Gentoo writes it, "x86_64-pc-linux-gnu"
	Arch    string // Gentoo's keyword, "amd64"
	LibDir  string // "lib64" or "lib"
	// Why says, in one line, why CC is empty.
	Why string
}

// Detect looks for a C compiler that can make programs: cc, or the first of
// cc, gcc and clang on PATH where cc is "". It never fails: without a compiler
// the result says why, and only shell packages can be built.
func Detect(ctx context.Context, cc string) Toolchain {
	t := bare(runtime.GOARCH, "gnu")
	if runtime.GOOS != "linux" {
		t.Why = "the compiled samples are for Linux, this is " + runtime.GOOS
		return t
	}
	names := []string{"cc", "gcc", "clang"}
	if cc != "" {
		names = []string{cc}
	}
	path := ""
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Why = "no C compiler (" + strings.Join(names, ", ") + ") on PATH"
		return t
	}
	ar, err := exec.LookPath("ar")
	if err != nil {
		t.Why = "no ar on PATH"
		return t
	}
	version, err := output(ctx, path, "--version")
	if err != nil {
		t.Why = fmt.Sprintf("%s --version: %v", path, err)
		return t
	}
	if err := tryCompile(ctx, path); err != nil {
		t.Why = fmt.Sprintf("%s cannot make a program: %v", path, err)
		return t
	}
	machine, err := output(ctx, path, "-dumpmachine")
	if err == nil && strings.HasSuffix(machine, "musl") {
		t = bare(runtime.GOARCH, "musl")
	}
	number, err := output(ctx, path, "-dumpversion")
	if err != nil {
		number = "0"
	}
	major, _, _ := strings.Cut(number, ".")
	t.CC, t.AR = path, ar
	t.Version, _, _ = strings.Cut(version, "\n")
	t.Class = "cc-" + major
	switch v := strings.ToLower(version); {
	case strings.Contains(v, "clang"):
		t.Class = "clang-" + major
	case strings.Contains(v, "gcc"), strings.Contains(v, "free software foundation"):
		t.Class = "gcc-" + major
	}
	return t
}

// bare is a toolchain without a compiler for a Go architecture.
func bare(goarch, libc string) Toolchain {
	t := Toolchain{LibDir: "lib", Arch: goarch}
	cpu, vendor := goarch, "unknown"
	switch goarch {
	case "amd64":
		cpu, vendor, t.LibDir = "x86_64", "pc", "lib64"
	case "386":
		cpu, vendor, t.Arch = "i686", "pc", "x86"
	case "arm64":
		cpu, t.LibDir = "aarch64", "lib64"
	case "riscv64":
		cpu, t.Arch, t.LibDir = "riscv64", "riscv", "lib64"
	case "ppc64le":
		cpu, t.Arch, t.LibDir = "powerpc64le", "ppc64", "lib64"
	case "loong64":
		cpu, t.Arch, t.LibDir = "loongarch64", "loong", "lib64"
	case "s390x":
		cpu, vendor, t.Arch, t.LibDir = "s390x", "ibm", "s390", "lib64"
	}
	t.CHOST = cpu + "-" + vendor + "-linux-" + libc
	return t
}

// output runs a compiler and returns what it says, trimmed.
func output(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = baseEnv(os.TempDir())
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// tryCompile makes a program that uses the C library: a compiler without
// headers or linker is none.
func tryCompile(ctx context.Context, cc string) error {
	dir, err := os.MkdirTemp("", "swarm-cc-")
	if err != nil {
		return fmt.Errorf("try the compiler: %w", err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, cc, "-x", "c", "-o", filepath.Join(dir, "a.out"), "-", "-lm")
	cmd.Dir, cmd.Env = dir, baseEnv(dir)
	cmd.Stdin = strings.NewReader("#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%f\", cos(c)); return 0; }\n")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, build.OneLine(said.String(), 200))
	}
	return nil
}

// baseEnv is the whole environment of every program that this package starts,
// before a build's own variables: nothing of the daemon's environment may end
// up in a package.
func baseEnv(dir string) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C", "TZ=UTC0",
	}
}
