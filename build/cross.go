package build

import (
	"fmt"
	"slices"
)

// An artifact crosses to another target when its key and the facets of its direct
// build dependencies agree. The key says the first. Job.Against says the second: a
// digest of what the build links, runs and includes directly, by the keys of these.
// Within one target only the key counts, as for emerge, which rebuilds nothing for
// a USE flag of a library.

// OwnFacet is the facet that tells a target's own build of a package from that of
// another target whose dependencies were built otherwise. It changes nothing about
// how the package is built.
const OwnFacet = "only for target"

// Made is a target that a key was built for, or is being built for, and what
// against: Job.Against, "" where that is not known.
type Made struct{ Target, Against string }

// Crossing is what a plan takes over from other targets.
type Crossing struct {
	Taken []CPV // built for another target, and good for this one
	Own   []CPV // the key was built for another target, against other dependencies
}

// Cross gives jobs that other targets have built against other dependencies keys
// of this plan's own target. made tells what the swarm has of a key.
func (p *Plan) Cross(made func(Key) []Made) (Crossing, error) {
	var c Crossing
	own := map[Key]Key{}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		mine, err := KeyOf(append(slices.Clone(j.Preimage), Facet{OwnFacet, p.Target}))
		if err != nil {
			return c, fmt.Errorf("key of %s for %s alone: %w", j.CPV, p.Target, err)
		}
		here := func(m Made) bool { return m.Target == p.Target }
		fits := func(m Made) bool { return m.Target == p.Target || m.Against == "" || m.Against == j.Against }
		there := made(j.Key)
		switch {
		case len(made(mine)) > 0 && !slices.ContainsFunc(there, here),
			len(there) > 0 && j.Against != "" && !slices.ContainsFunc(there, fits):
			own[j.Key] = mine
			c.Own = append(c.Own, j.CPV)
		case len(there) > 0 && !slices.ContainsFunc(there, here):
			c.Taken = append(c.Taken, j.CPV)
		}
	}
	if len(own) > 0 {
		p.rekey(own)
	}
	return c, nil
}

// rekey gives jobs other keys, wherever the plan names them.
func (p *Plan) rekey(to map[Key]Key) {
	swap := func(k *Key) {
		if n, ok := to[*k]; ok {
			*k = n
		}
	}
	var table, fresh []RootEntry
	for i := range p.Jobs {
		j := &p.Jobs[i]
		if _, ok := to[j.Key]; ok {
			j.Preimage = append(slices.Clone(j.Preimage), Facet{OwnFacet, p.Target})
		}
		swap(&j.Key)
		j.Needs = slices.Clone(j.Needs)
		for n := range j.Needs {
			swap(&j.Needs[n].Key)
		}
		slices.SortFunc(j.Needs, func(a, b Edge) int {
			switch {
			case a.Key < b.Key:
				return -1
			case a.Key > b.Key:
				return 1
			}
			return 0
		})
		if fresh == nil || !sameTable(j.Root.table, table) {
			table, fresh = j.Root.table, slices.Clone(j.Root.table)
			for n := range fresh {
				swap(&fresh[n].Key)
			}
		}
		j.Root = Root{table: fresh, at: j.Root.at}
	}
	for i := range p.Want {
		swap(&p.Want[i])
	}
}
