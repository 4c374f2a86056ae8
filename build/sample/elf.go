package sample

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build/gpkg"
)

// elfInfo is what Portage records of a package's ELF files. Without PROVIDES,
// Portage calls a package with libraries inconsistent when it installs it.
type elfInfo struct {
	needed, needed2, provides, requires string
}

// scanELF reads the dynamic sections of an image's files.
func scanELF(files []gpkg.SourceFile) (elfInfo, error) {
	var info elfInfo
	provides, requires := map[string]bool{}, map[string]bool{}
	category := ""
	for _, f := range files {
		if f.Kind != gpkg.Regular {
			continue
		}
		e, err := openELF(f)
		if err != nil {
			return elfInfo{}, fmt.Errorf("read %s: %w", f.Name, err)
		}
		if e == nil || e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
			continue
		}
		libs, err := e.ImportedLibraries()
		if err != nil {
			return elfInfo{}, fmt.Errorf("read %s: %w", f.Name, err)
		}
		soname := ""
		if names, err := e.DynString(elf.DT_SONAME); err == nil && len(names) == 1 {
			soname = names[0]
			provides[soname] = true
		}
		for _, l := range libs {
			requires[l] = true
		}
		arch := strings.TrimPrefix(e.Machine.String(), "EM_")
		category = multilib(e)
		info.needed += fmt.Sprintf("/%s %s\n", f.Name, strings.Join(libs, ","))
		info.needed2 += fmt.Sprintf("%s;/%s;%s;;%s;%s\n", arch, f.Name, soname, strings.Join(libs, ","), category)
	}
	for so := range provides {
		delete(requires, so)
	}
	list := func(m map[string]bool) string {
		if len(m) == 0 || category == "" {
			return ""
		}
		return category + ": " + strings.Join(slices.Sorted(maps.Keys(m)), " ")
	}
	info.provides, info.requires = list(provides), list(requires)
	info.needed = strings.TrimSuffix(info.needed, "\n")
	return info, nil
}

// openELF returns nil for a file that is none.
func openELF(f gpkg.SourceFile) (*elf.File, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil, nil
	}
	return elf.NewFile(bytes.NewReader(b))
}

// multilib is Portage's name for an ABI (portage.dep.soname.multilib_category),
// "" where it is not one of these.
func multilib(e *elf.File) string {
	bits := "_32"
	if e.Class == elf.ELFCLASS64 {
		bits = "_64"
	}
	switch e.Machine {
	case elf.EM_X86_64, elf.EM_386:
		return "x86" + bits
	case elf.EM_AARCH64, elf.EM_ARM:
		return "arm" + bits
	case elf.EM_PPC64, elf.EM_PPC:
		return "ppc" + bits
	case elf.EM_S390:
		return "s390" + bits
	case elf.EM_RISCV:
		return "riscv_lp64d"
	case elf.EM_LOONGARCH:
		return "loong_lp64d"
	}
	return ""
}
