package gpkg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// indexKeys are the metadata that Portage copies into a Packages index, by
// their names in the package. (The rest of an entry, CPV, PATH, SIZE, MTIME
// and the hashes, is not the package's to say; BUILD_ID neither, since a
// swarm's index derives it from the CID.)
var indexKeys = [...]string{
	"BDEPEND", "BUILD_TIME", "CHOST", "DEFINED_PHASES", "DEPEND", "DESCRIPTION", "EAPI", "IDEPEND", "IUSE", "KEYWORDS",
	"LICENSE", "PDEPEND", "PROPERTIES", "PROVIDES", "RDEPEND", "REQUIRES", "RESTRICT", "SLOT", "USE", "repository",
}

// IndexMeta is what a Packages index copies from the package: sorted by name,
// white space normalised, empty values left out, DESCRIPTION as DESC and
// repository as REPO.
func IndexMeta(p *Package) []build.Pair {
	var out []build.Pair
	for _, k := range indexKeys {
		v := strings.Join(strings.Fields(p.Metadata[k]), " ")
		if v == "" {
			continue
		}
		switch k {
		case "DESCRIPTION":
			k = "DESC"
		case "repository":
			k = "REPO"
		}
		out = append(out, build.Pair{Name: k, Value: v})
	}
	slices.SortFunc(out, func(a, b build.Pair) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// depKeys may hold bound := atoms.
var depKeys = [...]string{"BDEPEND", "DEPEND", "IDEPEND", "PDEPEND", "RDEPEND"}

// Check compares a package with what job asks for: name and version,
// repository, slot and subslot, every USE flag, and the bound := atoms, in both
// directions. A difference wraps ErrMismatch and says which.
func Check(p *Package, job *build.Job) error {
	bad := func(what, got, want string) error {
		return fmt.Errorf("check %s: %w: %s is %s, wanted %s", job.CPV, ErrMismatch, what,
			quote(got), quote(want))
	}
	if p.CPV != job.CPV {
		return bad("CPV", p.CPV.String(), job.CPV.String())
	}
	if got := strings.TrimSpace(p.Metadata["repository"]); got != job.Repo {
		return bad("repository", got, job.Repo)
	}
	want, err := build.ParseSlot(job.Slot)
	if err != nil {
		return fmt.Errorf("check %s: job: %w", job.CPV, err)
	}
	got, err := build.ParseSlot(p.Metadata["SLOT"])
	if err != nil {
		return fmt.Errorf("check %s: %w: %w", job.CPV, ErrMismatch, err)
	}
	if got != want {
		return bad("SLOT", got.String(), want.String())
	}
	if err := checkUSE(p, job); err != nil {
		return err
	}
	gotBound, err := boundOf(p)
	if err != nil {
		return fmt.Errorf("check %s: %w: %w", job.CPV, ErrMismatch, err)
	}
	wantBound := make([]string, 0, len(job.Bound))
	for _, b := range job.Bound {
		n, ok := boundAtom(b)
		if !ok {
			return fmt.Errorf("check %s: job: bound dependency %s: %w", job.CPV, quote(b), build.ErrName)
		}
		wantBound = append(wantBound, n)
	}
	slices.Sort(wantBound)
	wantBound = slices.Compact(wantBound)
	if !slices.Equal(gotBound, wantBound) {
		return bad("bound dependencies", strings.Join(gotBound, " "), strings.Join(wantBound, " "))
	}
	return nil
}

// checkUSE compares the flags that the package has with the job's. USE in a
// package holds implicit flags too (amd64, elibc_glibc): they count only where
// the job names them.
func checkUSE(p *Package, job *build.Job) error {
	on := set(strings.Fields(p.Metadata["USE"]))
	known := set(strings.Fields(p.Metadata["IUSE_EFFECTIVE"]))
	want := set(job.USE)
	asked := set(job.IUSE)
	for _, f := range strings.Fields(p.Metadata["IUSE"]) {
		f = strings.TrimLeft(f, "+-")
		known[f] = true
		if !asked[f] {
			return fmt.Errorf("check %s: %w: USE flag %s is not one of the job's", job.CPV, ErrMismatch, quote(f))
		}
	}
	for _, f := range job.IUSE {
		if !known[f] {
			return fmt.Errorf("check %s: %w: it has no USE flag %s", job.CPV, ErrMismatch, quote(f))
		}
		if on[f] != want[f] {
			return fmt.Errorf("check %s: %w: USE flag %s is %s, wanted %s", job.CPV, ErrMismatch, quote(f),
				onOff(on[f]), onOff(want[f]))
		}
	}
	for _, f := range job.USE {
		if !on[f] {
			return fmt.Errorf("check %s: %w: USE flag %s is off, wanted on", job.CPV, ErrMismatch, quote(f))
		}
	}
	return nil
}

// boundOf lists the bound := atoms of a package's dependencies as
// "cat/name:slot/subslot=", sorted.
func boundOf(p *Package) ([]string, error) {
	out := []string{}
	for _, k := range depKeys {
		for _, tok := range strings.Fields(p.Metadata[k]) {
			if b, ok := boundAtom(tok); ok {
				out = append(out, b)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// boundAtom reduces an atom with a bound := to what was bound: version
// operators and USE dependencies stand in the ebuild and are in the key.
func boundAtom(tok string) (string, bool) {
	if strings.HasPrefix(tok, "!") || !strings.Contains(tok, "=") {
		return "", false
	}
	a, err := build.ParseAtom(tok)
	if err != nil || a.Category == "" {
		return "", false
	}
	slot, ok := strings.CutSuffix(a.Slot, "=")
	if !ok || !strings.Contains(slot, "/") {
		return "", false
	}
	return a.Category + "/" + a.Name + ":" + slot + "=", true
}

func set(ss []string) map[string]bool {
	m := make(map[string]bool, len(ss))
	for _, s := range ss {
		m[s] = true
	}
	return m
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
