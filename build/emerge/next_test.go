package emerge

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/worker"
)

func TestTheToolchainOfABaseInTheOrderToUpdateIt(t *testing.T) {
	var b build.Base
	for _, cpv := range []string{"app-shells/bash-5", "dev-lang/python-3.13", "sys-devel/gcc-14.2", "sys-devel/gcc-15.1", "sys-libs/glibc-2.41", "sys-devel/binutils-2.45"} {
		c, err := build.ParseCPV(cpv)
		if err != nil {
			t.Fatal(err)
		}
		b.Packages = append(b.Packages, build.Installed{CPV: c})
	}
	if got := ToolchainOf(&b); !slices.Equal(got, []string{"sys-libs/glibc", "sys-devel/binutils", "sys-devel/gcc"}) {
		t.Errorf("got %v", got)
	}
}

func TestABaseIsNotCleanedToDeath(t *testing.T) {
	had := []build.Installed{}
	for _, cpv := range []string{"app-misc/leaf-1", "sys-apps/portage-3", "sys-devel/gcc-14", "sys-devel/gcc-15"} {
		c, err := build.ParseCPV(cpv)
		if err != nil {
			t.Fatal(err)
		}
		had = append(had, build.Installed{CPV: c})
	}
	left := func(cpvs ...string) map[build.CPV]base.Package {
		out := map[build.CPV]base.Package{}
		for _, s := range cpvs {
			c, err := build.ParseCPV(s)
			if err != nil {
				t.Fatal(err)
			}
			out[c] = base.Package{CPV: c}
		}
		return out
	}
	gone, err := cleaned(had, left("sys-apps/portage-3", "sys-devel/gcc-15"))
	if err != nil || len(gone) != 2 || gone[0].Name != "leaf" || gone[1].Version != "14" {
		t.Errorf("gone are %v, %v", gone, err)
	}
	for _, rest := range [][]string{{"sys-devel/gcc-15"}, {"sys-apps/portage-3"}, {"sys-apps/portage-3", "sys-devel/gcc-15", "app-misc/new-1"}, {}} {
		if gone, err := cleaned(had, left(rest...)); err == nil {
			t.Errorf("of %v %v are gone", rest, gone)
		}
	}
}

// smallRoot copies what Portage needs to run (programs and the libraries that they
// want, Python, a checkout of Portage) into dir, so that there is a base with a
// Portage of its own where there is no Gentoo.
func smallRoot(t *testing.T, p *Portage, dir string) {
	t.Helper()
	from := filepath.Dir(filepath.Dir(p.who.script)) // of bin/emerge
	if _, err := os.Stat(filepath.Join(from, ".portage_not_installed")); err != nil {
		t.Skipf("SKIPPED: Portage is no checkout that could be copied: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", smallRootScript, "bash", dir, from, p.Python)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, lastLine(string(out)))
	}
}

const smallRootScript = `set -eu
root=$1 portage=$2 python=$3
mkdir -p "$root"/usr/{bin,lib,lib64,sbin} "$root"/{etc,var/db/pkg,var/lib/portage,proc,sys,dev,tmp,run}
for d in bin lib lib64 sbin; do ln -s usr/$d "$root/$d"; done
put() { local to=$root$1; [ -e "$to" ] && return 0; mkdir -p "${to%/*}"; cp -L "$1" "$to"; }
libs() { ldd "$@" 2>/dev/null | grep -o '/[^ ]*' | grep -v ':$' | sort -u | while read -r l; do put "$(realpath -s "${l/#\/lib/\/usr\/lib}")"; done; }
for c in bash sh env cat cp mv rm ln ls mkdir mktemp rmdir touch chmod chown chgrp install sed grep egrep gawk awk find xargs sort uniq cut tr head tail wc \
	tar zstd gzip bzip2 xz patch file rsync wget id stat date sleep dirname basename readlink realpath uname tee od cmp diff scanelf ldconfig true false \
	nproc expr getent sync tty comm join paste seq test printf echo mkfifo mknod split nice nohup timeout df du head b2sum sha512sum md5sum flock setsid unshare; do
	f=$(PATH=/usr/bin:/usr/sbin command -v "$c" 2>/dev/null || true)
	case $f in /*) ;; *) f=/usr/bin/$c; [ -e "$f" ] || f=/usr/sbin/$c; [ -e "$f" ] || continue;; esac
	f=$(realpath -s "${f/#\/bin/\/usr\/bin}"); [ -e "$f" ] || continue
	put "$f"; libs "$f"
done
py=$(realpath "$python"); put "$py"; libs "$py"
lib=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); zst=$("$python" -c 'import zstandard, os; print(os.path.dirname(zstandard.__file__))')
mkdir -p "$root$lib" "$root${zst%/*}"; cp -a "$lib/." "$root$lib/"; cp -a "$zst" "$root${zst%/*}/"
find "$root$lib" "$root$zst" -name '*.so' -print0 | xargs -0 ldd 2>/dev/null | grep -o '/[^ ]*' | grep '^/lib' | sort -u | while read -r l; do put "/usr$l"; done
rm -rf "$root$lib"/{test,idlelib,tkinter,ensurepip,lib2to3,pydoc_data,turtledemo,config-*} "$root$lib"/*/test
[ "$py" = "$python" ] || { mkdir -p "$root${python%/*}"; ln -sf "$py" "$root$python"; }
mkdir -p "$root/opt/portage"; cp -a "$portage"/{bin,lib,cnf,meson.build,.portage_not_installed} "$root/opt/portage/"
rm -rf "$root"/opt/portage/lib/*/tests
[ ! -d /usr/lib/locale/C.utf8 ] || { mkdir -p "$root/usr/lib/locale"; cp -a /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"; }
printf '#!/bin/sh\nexec %s -b /opt/portage/bin/emerge "$@"\n' "$python" >"$root/usr/bin/emerge"; chmod 755 "$root/usr/bin/emerge"
mkdir -p "$root/usr/share/portage"; ln -s /opt/portage/cnf "$root/usr/share/portage/config"
grep -E '^(root|portage|nobody):' /etc/passwd >"$root/etc/passwd"; grep -E '^(root|portage|nobody|nogroup|tty):' /etc/group >"$root/etc/group"
ldconfig -r "$root" 2>/dev/null || true
`

// TestRealBaseIsUpdatedByTheSwarm takes a base through two generations: a fake libc
// and what links to it come in, then a newer libc, which has to be there before
// the rest is built.
func TestRealBaseIsUpdatedByTheSwarm(t *testing.T) {
	if os.Getenv("SWARM_BASE") == "" {
		t.Skip("SKIPPED: it makes a base of this machine's programs and takes minutes: SWARM_BASE=1")
	}
	l := newLab(t)
	first, err := l.bases.AddDirectory(t.Context(), "one", "a test", func(dir string) error { smallRoot(t, l.p, dir); return nil })
	if err != nil {
		t.Fatal(err)
	}
	repos := filepath.Join(l.p.cfg.ConfigRoot, "repos")
	libc := func(version string) {
		ebuildAt(t, filepath.Join(repos, "swarm-test/sys-libs/glibc"), "glibc-"+version, "src_install() { insinto /usr/share; echo "+version+" | newins - libc; }\n")
	}
	tool := func(version string) {
		ebuildAt(t, filepath.Join(repos, "swarm-test/sw-good/tool"), "tool-"+version, "BDEPEND=\"sys-libs/glibc\"\nsrc_install() { insinto /usr/share; newins \"${BROOT}/usr/share/libc\" tool; }\n")
	}
	libc("1")
	tool("1")
	ebuildAt(t, filepath.Join(repos, "swarm-test/sw-good/leaf"), "leaf-1", "src_install() { insinto /usr/share; echo leaf | newins - leaf; }\n")
	for path, text := range map[string]string{
		"swarm-test/profiles/categories":       "sw-bad\nsw-good\nsys-libs\n",
		"swarm-demo/profiles/default/packages": "*sys-libs/glibc\n*sw-good/tool\n",
	} {
		if err := os.WriteFile(filepath.Join(repos, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bundle, err := l.p.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.update(t, bundle, first, 1, "", "sys-libs/glibc-1 sw-good/tool-1")
	libc("2")
	tool("2")
	last := l.update(t, bundle, l.ref, 2, "sys-libs/glibc-2", "sw-good/tool-2")
	got, err := os.ReadFile(filepath.Join(last.Lower[0], "usr/share/tool"))
	if err != nil || string(got) != "2\n" {
		t.Errorf("the rest was built with libc %q, %v", got, err)
	}
	if last.Manifest.Generation != 2 || len(last.Manifest.Packages) != 2 || len(last.Manifest.Layers) != 4 {
		t.Errorf("generation %d holds %v in %d layers", last.Manifest.Generation, last.Manifest.Packages, len(last.Manifest.Layers))
	}
	// With what has no use in it any more, depclean takes that away and nothing else.
	upper := t.TempDir()
	install(t, upper, 0, "sw-good/leaf-1:0")
	ref, err := l.bases.AddLayer(t.Context(), last, upper, base.Next{Name: "one", Generation: 3, Source: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	store, blobs, _ := shelved(t)
	trees, err := l.p.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var snaps []build.Snapshot
	for _, tree := range trees {
		blobs[tree.Name] = packed(t, tree.Path)
		snaps = append(snaps, build.Snapshot{Name: tree.Name, Digest: tree.Digest, CID: tree.Name})
	}
	open, err := store.Open(t.Context(), snaps)
	if err != nil {
		t.Fatal(err)
	}
	var gone []build.CPV
	var log bytes.Buffer
	err = l.roots.Clean(t.Context(), ref, bundle, open, &log, func(on *base.Root, upper string, list []build.CPV) error {
		gone = list
		next, err := l.bases.AddLayer(t.Context(), on, upper, base.Next{Name: "one", Generation: 4, Source: "a test"})
		if err == nil {
			ref = next
		}
		return err
	})
	if err != nil || len(gone) != 1 || gone[0].Name != "leaf" {
		t.Fatalf("gone are %v, %v\n%s", gone, err, log.String())
	}
	man, err := l.bases.Manifest(t.Context(), ref)
	if err != nil || len(man.Packages) != 2 {
		t.Errorf("left are %v, %v", man, err)
	}
}

// update takes a base through both stages, and l.ref to what came of it.
func (l *lab) update(t *testing.T, bundle *build.Bundle, from build.BaseRef, gen int, toolchain, rest string) *base.Root {
	t.Helper()
	store, blobs, _ := shelved(t)
	trees, err := l.p.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := NextRequest{Target: "test", Base: from, Bundle: bundle}
	for _, tree := range trees {
		blobs[tree.Name] = packed(t, tree.Path)
		req.Trees = append(req.Trees, build.Snapshot{Name: tree.Name, Digest: tree.Digest, CID: tree.Name})
	}
	if req.Repos, err = store.Open(t.Context(), req.Trees); err != nil {
		t.Fatal(err)
	}
	man, err := l.bases.Manifest(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range []struct {
		atoms []string
		want  string
	}{{ToolchainOf(man), toolchain}, {[]string{"@system"}, rest}} {
		if len(stage.atoms) == 0 {
			continue
		}
		req.Atoms = stage.atoms
		plan, err := l.roots.PlanNext(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		now, err := l.bases.Manifest(t.Context(), req.Base)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v on %v: %d jobs, %d wanted", stage.atoms, now.Packages, len(plan.Jobs), len(plan.Want))
		var add []worker.RootFile
		var names []string
		for _, j := range plan.Jobs {
			r := request(t, j, l.files)
			r.Base, r.Bundle, r.Repos = req.Base, bundle, req.Repos
			res, err := l.roots.Build(t.Context(), r)
			if err != nil {
				t.Fatalf("build %s: %v", j.CPV, err)
			}
			l.files[j.Key] = filepath.Join(l.store, string(j.Key)+".gpkg.tar")
			if err := copyFile(res.Path, l.files[j.Key]); err != nil {
				t.Fatal(err)
			}
			if slices.Contains(plan.Want, j.Key) {
				names = append(names, j.CPV.String())
				add = append(add, worker.RootFile{Entry: build.RootEntry{CPV: j.CPV, Slot: j.Slot, Key: j.Key}, Path: l.files[j.Key]})
			}
		}
		if got := strings.Join(names, " "); got != stage.want {
			t.Fatalf("stage %v: built %q, want %q", stage.atoms, got, stage.want)
		}
		var log bytes.Buffer
		err = l.roots.Grow(t.Context(), req.Base, bundle, req.Repos, add, &log, func(on *base.Root, upper string) (err error) {
			req.Base, err = l.bases.AddLayer(context.WithoutCancel(t.Context()), on, upper, base.Next{Name: "one", Generation: gen, Source: "a test"})
			return err
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	l.ref = req.Base
	root, err := l.bases.Open(t.Context(), l.ref)
	if err := errors.Join(err, l.bases.Name(l.ref)); err != nil {
		t.Fatal(err)
	}
	return root
}

func ebuildAt(t *testing.T, dir, name, body string) {
	t.Helper()
	text := "EAPI=8\nDESCRIPTION=\"A test\"\nHOMEPAGE=\"https://example.org\"\nS=\"${WORKDIR}\"\nLICENSE=\"Apache-2.0\"\nSLOT=\"0\"\n" +
		"KEYWORDS=\"amd64 arm arm64 loong ppc64 riscv x86\"\n" + body
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".ebuild"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
