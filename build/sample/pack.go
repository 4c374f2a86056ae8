package sample

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build/gpkg"
)

// pack makes the gpkg of what src_install left in the image, and returns its
// path. It is written under another name first: a file called .gpkg.tar is
// whole.
func (r *run) pack() (string, error) {
	now := r.b.now().Unix()
	files, err := imageFiles(r.dir("image"), now)
	if err != nil {
		return "", err
	}
	meta, err := r.metadata(files, now)
	if err != nil {
		return "", err
	}
	// As from a fresh PKGDIR that holds the other USE variants: what tells two
	// builds of one variant apart is the CID.
	buildID := int64(1 + slices.IndexFunc(r.pkg.uses(), func(u []string) bool { return slices.Equal(u, r.use) }))
	path := r.dir(fmt.Sprintf("%s-%d.gpkg.tar", r.pkg.cpv().PF(), buildID))
	f, err := os.Create(path + ".partial")
	if err != nil {
		return "", err
	}
	err = gpkg.Write(f, gpkg.Spec{CPV: r.pkg.cpv(), BuildID: buildID, Metadata: meta, Image: files, MTime: now,
		TempDir: r.dir("tmp")})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return path, os.Rename(path+".partial", path)
}

// imageFiles lists an image directory, owned by root.
func imageFiles(dir string, mtime int64) ([]gpkg.SourceFile, error) {
	var out []gpkg.SourceFile
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := gpkg.SourceFile{File: gpkg.File{Name: filepath.ToSlash(rel), Mode: int64(info.Mode().Perm()), MTime: mtime,
			User: "root", Group: "root"}}
		switch {
		case d.IsDir():
			// Not as the builder's umask has it.
			f.Kind, f.Mode = gpkg.Dir, 0o755
		case info.Mode().IsRegular():
			f.Kind, f.Size = gpkg.Regular, info.Size()
			f.Open = func() (io.ReadCloser, error) { return os.Open(path) }
		case info.Mode()&fs.ModeSymlink != 0:
			f.Kind, f.Mode = gpkg.Symlink, 0o777
			if f.Link, err = os.Readlink(path); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither file, directory nor symlink", rel)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the image: %w", err)
	}
	return out, nil
}

// metadata is what Portage would have put beside the image. Empty values are
// left out.
func (r *run) metadata(files []gpkg.SourceFile, now int64) (map[string]string, error) {
	t := r.b.tools
	size := int64(0)
	for _, f := range files {
		size += f.Size
	}
	implicit := []string{t.Arch, "kernel_linux"}
	m := map[string]string{
		"EAPI": eapi, "SLOT": r.pkg.slot, "DESCRIPTION": r.pkg.desc, "LICENSE": "Apache-2.0", "KEYWORDS": t.Arch,
		"HOMEPAGE": "https://github.com/build-swarm/swarm", "repository": Repo, "DEFINED_PHASES": "compile install",
		"IUSE": strings.Join(r.pkg.iuse, " "), "IUSE_EFFECTIVE": strings.Join(append(implicit, r.pkg.iuse...), " "),
		"USE": strings.Join(append(implicit, r.use...), " "), "CHOST": t.CHOST, "CBUILD": t.CHOST,
		"BUILD_TIME": strconv.FormatInt(now, 10), "SIZE": strconv.FormatInt(size, 10), "FEATURES": "",
	}
	if r.pkg.compiled {
		m["CFLAGS"], m["LDFLAGS"] = cflags, ldflags
	}
	for k, v := range r.pkg.depAtoms(r.b.byCP) {
		m[k] = v
	}
	elf, err := scanELF(files)
	if err != nil {
		return nil, err
	}
	m["NEEDED"], m["NEEDED.ELF.2"], m["PROVIDES"], m["REQUIRES"] = elf.needed, elf.needed2, elf.provides, elf.requires
	m[r.pkg.cpv().PF()+".ebuild"] = r.ebuild()
	if m["environment.bz2"], err = r.environment(m); err != nil {
		return nil, err
	}
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	return m, nil
}

// ebuild is the package's ebuild as far as Portage reads it after the build.
func (r *run) ebuild() string {
	raw := r.pkg.rawDeps(r.b.byCP)
	var b strings.Builder
	fmt.Fprintf(&b, "# Built by swarm's built-in builder from the sources in its binary.\n\nEAPI=%s\n\n", eapi)
	for _, kv := range [][2]string{
		{"DESCRIPTION", r.pkg.desc}, {"HOMEPAGE", "https://github.com/build-swarm/swarm"}, {"LICENSE", "Apache-2.0"},
		{"SLOT", r.pkg.slot}, {"KEYWORDS", r.b.tools.Arch}, {"IUSE", strings.Join(r.pkg.iuse, " ")},
		{"BDEPEND", raw["BDEPEND"]}, {"DEPEND", raw["DEPEND"]}, {"RDEPEND", raw["RDEPEND"]},
	} {
		if kv[1] != "" {
			fmt.Fprintf(&b, "%s=\"%s\"\n", kv[0], kv[1])
		}
	}
	b.WriteString("\nS=\"${WORKDIR}\"\n\nsrc_compile() { :; }\nsrc_install() { :; }\n")
	return b.String()
}

// environment is the saved bash environment that Portage's Binpkg step
// unpacks and sources for the pkg_* phases; it cannot install without one.
func (r *run) environment(m map[string]string) (string, error) {
	c := r.pkg.cpv()
	pv, pr := c.Version, "r0"
	if i := strings.LastIndex(pv, "-r"); i >= 0 {
		pv, pr = pv[:i], pv[i+1:]
	}
	var b strings.Builder
	for _, kv := range [][2]string{
		{"BDEPEND", m["BDEPEND"]}, {"CATEGORY", c.Category}, {"CFLAGS", m["CFLAGS"]}, {"CHOST", m["CHOST"]},
		{"DEFINED_PHASES", m["DEFINED_PHASES"]}, {"DEPEND", m["DEPEND"]}, {"DESCRIPTION", m["DESCRIPTION"]}, {"EAPI", eapi},
		{"HOMEPAGE", m["HOMEPAGE"]}, {"INHERITED", ""}, {"IUSE", m["IUSE"]}, {"IUSE_EFFECTIVE", m["IUSE_EFFECTIVE"]},
		{"KEYWORDS", m["KEYWORDS"]}, {"LICENSE", m["LICENSE"]}, {"P", c.Name + "-" + pv}, {"PF", c.PF()}, {"PN", c.Name},
		{"PR", pr}, {"PV", pv}, {"PVR", c.Version}, {"RDEPEND", m["RDEPEND"]}, {"SLOT", m["SLOT"]}, {"USE", m["USE"]},
	} {
		fmt.Fprintf(&b, "declare -x %s=\"%s\"\n", kv[0], kv[1])
	}
	b.WriteString("src_compile () \n{ \n    :\n}\nsrc_install () \n{ \n    :\n}\n")
	z, err := bzip2Pack([]byte(b.String()))
	return string(z), err
}
