package release

import (
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// Wanted lists the entries of a release that a machine with this installed set
// will ask for: of what it has, the newest version of the slot, with its own
// USE flags where the release has them (else every variant), and all that
// these need. Indices into m.Entries, sorted.
func Wanted(m *Manifest, set *Installed) []int {
	have := map[place]string{} // to the enabled flags
	for i := range set.Packages {
		p := &set.Packages[i]
		if slot, err := build.ParseSlot(p.Slot); err == nil {
			have[place{p.CPV.CP(), slot.Slot}] = ownUSE(p.Value("USE"), p.Value("IUSE"))
		}
	}
	byKey := make(map[build.Key]int, len(m.Entries))
	newest := map[place][]int{}
	for i := range m.Entries {
		e := &m.Entries[i]
		byKey[e.Key] = i
		name, _, _ := strings.Cut(e.Slot, "/")
		at := place{e.CPV.CP(), name}
		if _, ok := have[at]; !ok {
			continue
		}
		was := newest[at]
		order := 1
		if len(was) > 0 {
			order = CompareVersions(e.CPV.Version, m.Entries[was[0]].CPV.Version)
		}
		switch {
		case order > 0:
			newest[at] = []int{i}
		case order == 0:
			newest[at] = append(was, i)
		}
	}
	seen := map[int]bool{}
	var out, todo []int
	for at, list := range newest {
		same := slices.DeleteFunc(slices.Clone(list), func(i int) bool {
			return ownUSE(m.Entries[i].Meta("USE"), m.Entries[i].Meta("IUSE")) != have[at]
		})
		if len(same) > 0 {
			list = same
		}
		todo = append(todo, list...)
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[i] {
			continue
		}
		seen[i] = true
		out = append(out, i)
		for _, k := range m.Entries[i].Needs {
			if n, ok := byKey[k]; ok {
				todo = append(todo, n)
			}
		}
	}
	slices.Sort(out)
	return out
}
