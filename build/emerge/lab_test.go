package emerge

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/emergetest"
)

// labConfig is the sample configuration with the laboratory beside it, builds
// in a root of their own.
func labConfig(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	dir := cfg.EPrefix
	to := filepath.Join(dir, "repos/swarm-lab")
	if err := emergetest.WriteLab(to); err != nil {
		t.Fatal(err)
	}
	err := WriteConfig(dir, []Repository{
		{"swarm-demo", filepath.Join(dir, "repos/swarm-demo")}, {"swarm-test", filepath.Join(dir, "repos/swarm-test")}, {"swarm-lab", to},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// labMachine is a machine that has packages of the laboratory installed, as
// "CPV:SLOT [use,...] [KIND=deps;...]" lines say, and builds in place.
func labMachine(t *testing.T, world string, installed ...string) Config {
	t.Helper()
	cfg := labConfig(t)
	cfg.BuildPrefix = ""
	for n, line := range installed {
		install(t, cfg.EPrefix, n, line)
	}
	put(t, cfg, "../../var/lib/portage/world", strings.ReplaceAll(world, " ", "\n")+"\n")
	return cfg
}

// install writes an entry of the package database, as Portage leaves it.
func install(t testing.TB, eroot string, n int, line string) {
	t.Helper()
	words := strings.SplitN(line, " ", 3)
	cpv, slot, _ := strings.Cut(words[0], ":")
	cat, pf, _ := strings.Cut(cpv, "/")
	files := map[string]string{
		"SLOT": slot, "CATEGORY": cat, "PF": pf, "EAPI": "8", "repository": "swarm-lab", "KEYWORDS": "amd64 arm arm64 loong ppc64 riscv x86",
		"BUILD_TIME": "1700000000", "COUNTER": string(rune('1' + n)), "DEFINED_PHASES": "install", "INHERITED": "lab", "CONTENTS": "",
		"DESCRIPTION": "installed", "LICENSE": "Apache-2.0", "SIZE": "0", "FEATURES": "", "CHOST": "x86_64-pc-linux-gnu",
	}
	if len(words) > 1 {
		use := strings.Trim(words[1], "[]")
		var on, all []string
		for _, f := range strings.Split(use, ",") {
			if f == "" {
				continue
			}
			all = append(all, strings.TrimPrefix(f, "-"))
			if !strings.HasPrefix(f, "-") {
				on = append(on, f)
			}
		}
		files["USE"], files["IUSE"] = strings.Join(on, " "), strings.Join(all, " ")
	}
	if len(words) > 2 {
		for _, d := range strings.Split(words[2], ";") {
			kind, text, _ := strings.Cut(d, "=")
			files[kind] = text
		}
	}
	files[pf+".ebuild"] = "EAPI=8\n"
	dir := filepath.Join(eroot, "var/db/pkg", cat, pf)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if text == "" && name != "CONTENTS" {
			continue
		}
		if name != "CONTENTS" {
			text += "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// emptyBase is a base that holds nothing.
var emptyBase = build.BaseRef{Name: "empty", Digest: strings.Repeat("0", 64)}

// keepName keeps a package by its name.
func keepName(_ context.Context, path string) (string, error) {
	return "kept-" + filepath.Base(path), nil
}
