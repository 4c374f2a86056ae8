package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
)

// Package is one installed package, as a package database has it.
type Package struct {
	CPV       build.CPV
	Slot      build.Slot
	Repo      string
	USE       string // IUSE flags that are on, sorted
	BuildTime string
}

// Packages reads the package database of a root, which may be given as the
// layers of an overlay, the topmost first. What is not a package's entry (a
// merge under way, a lock) is passed over.
func Packages(layers ...string) (map[build.CPV]Package, error) {
	// Where each entry's files are looked for: the topmost layer that has it,
	// and those below it, down to one that hides the rest.
	found := make(map[build.CPV][]string)
	for _, root := range slices.Backward(layers) {
		db := filepath.Join(root, "var/db/pkg")
		cats, err := os.ReadDir(db)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read installed packages: %w", err)
		}
		for _, cat := range cats {
			dir := filepath.Join(db, cat.Name())
			gone := whiteout(dir) || opaque(dir)
			for cpv := range found {
				if gone && cpv.Category == cat.Name() {
					delete(found, cpv)
				}
			}
			if !cat.IsDir() {
				continue
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				return nil, fmt.Errorf("read installed packages: %w", err)
			}
			for _, e := range entries {
				cpv, err := build.ParseCPV(cat.Name() + "/" + e.Name())
				if err != nil {
					continue
				}
				at := filepath.Join(dir, e.Name())
				switch {
				case whiteout(at):
					delete(found, cpv)
				case opaque(at):
					found[cpv] = []string{at}
				case e.IsDir():
					found[cpv] = append([]string{at}, found[cpv]...)
				}
			}
		}
	}
	out := make(map[build.CPV]Package, len(found))
	for cpv, dirs := range found {
		read := func(name string) string {
			for _, d := range dirs {
				if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
					return strings.Join(strings.Fields(string(b)), " ")
				}
			}
			return "" // the keys Portage does not write when they are empty
		}
		slot, err := build.ParseSlot(read("SLOT"))
		if err != nil {
			continue
		}
		out[cpv] = Package{
			CPV: cpv, Slot: slot, Repo: read("repository"),
			USE: OnFlags(read("USE"), read("IUSE")), BuildTime: read("BUILD_TIME"),
		}
	}
	return out, nil
}

// List is packages as manifests have them.
func List(packages map[build.CPV]Package) []build.Installed {
	out := make([]build.Installed, 0, len(packages))
	for _, p := range packages {
		out = append(out, build.Installed{CPV: p.CPV, Slot: p.Slot.Slot + "/" + p.Slot.Sub, Repo: p.Repo, USE: strings.Fields(p.USE)})
	}
	build.SortInstalled(out)
	return out
}

// OnFlags is the flags of iuse that stand in use, sorted.
func OnFlags(use, iuse string) string {
	on := strings.Fields(use)
	var out []string
	for _, f := range strings.Fields(iuse) {
		if f = strings.TrimLeft(f, "+-"); slices.Contains(on, f) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// whiteout reports overlayfs's mark that a name is gone: a character device 0:0.
func whiteout(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// opaqueNames are the attributes by which overlayfs says that nothing shows
// through a directory; the second is an ordinary user's.
var opaqueNames = []string{"trusted.overlay.opaque", "user.overlay.opaque"}

func opaque(path string) bool {
	var b [1]byte
	for _, name := range opaqueNames {
		if n, err := unix.Lgetxattr(path, name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}
