package update

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// maxMeta bounds one file of /var/db/pkg that is read.
const maxMeta = 256 << 10

// Installed reads what is installed below an EROOT ("/", or a Prefix with a
// slash at its end): /var/db/pkg and the world file; and what package.provided
// of the user's profile below the configuration's root names. Entries that are
// no packages (half-merged ones begin with "-MERGING-") are passed over.
func Installed(eroot, config, target string) (*release.Installed, error) {
	s := &release.Installed{Target: target, World: []string{}, Packages: []release.InstalledPackage{}}
	var err error
	if s.Provided, err = provided(filepath.Join(config, "etc/portage/profile/package.provided")); err != nil {
		return nil, fmt.Errorf("read what is provided: %w", err)
	}
	db := filepath.Join(eroot, "var/db/pkg")
	cats, err := os.ReadDir(db)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil // nothing is installed by Portage yet
	}
	if err != nil {
		return nil, fmt.Errorf("read what is installed: %w", err)
	}
	for _, cat := range cats {
		if !cat.IsDir() {
			continue
		}
		pfs, err := os.ReadDir(filepath.Join(db, cat.Name()))
		if err != nil {
			return nil, fmt.Errorf("read what is installed: %w", err)
		}
		for _, pf := range pfs {
			cpv, err := build.ParseCPV(cat.Name() + "/" + pf.Name())
			if err != nil {
				continue
			}
			p, err := installedPackage(filepath.Join(db, cat.Name(), pf.Name()), cpv)
			if err != nil {
				return nil, fmt.Errorf("read what is installed: %w", err)
			}
			s.Packages = append(s.Packages, p)
		}
	}
	for _, name := range []string{"world", "world_sets"} {
		b, err := os.ReadFile(filepath.Join(eroot, "var/lib/portage", name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the world file: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				s.World = append(s.World, line)
			}
		}
	}
	s.Sort()
	return s, nil
}

// provided reads package.provided, a file or a directory of files. Lines that
// Portage complains about are passed over. Profiles of repositories may not have
// the file since EAPI 7.
func provided(path string) ([]build.CPV, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		list, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		var out []build.CPV
		for _, f := range list {
			if strings.HasPrefix(f.Name(), ".") || strings.HasSuffix(f.Name(), "~") {
				continue // as Portage does
			}
			more, err := provided(filepath.Join(path, f.Name()))
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
		return out, nil
	}
	b, err := readAtMost(path, maxMeta)
	if err != nil {
		return nil, err
	}
	var out []build.CPV
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if c, err := build.ParseCPV(strings.TrimSpace(line)); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

func installedPackage(dir string, cpv build.CPV) (release.InstalledPackage, error) {
	p := release.InstalledPackage{CPV: cpv, Slot: "0"}
	files, err := os.ReadDir(dir)
	if err != nil {
		return p, err
	}
	for _, f := range files {
		if !release.InstalledMeta(f.Name()) {
			continue
		}
		b, err := readAtMost(filepath.Join(dir, f.Name()), maxMeta)
		if err != nil {
			return p, err
		}
		value := build.OneLine(string(b), maxMeta)
		if value == "" {
			continue
		}
		if f.Name() == "SLOT" {
			p.Slot = value
		}
		p.Meta = append(p.Meta, build.Pair{Name: f.Name(), Value: value})
	}
	return p, nil
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	return b, errors.Join(err, f.Close())
}
