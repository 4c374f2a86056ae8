package claimstest

import (
	"encoding/hex"
	"math/bits"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// What setting up a root costs, in ms: something for every build, and for each
// package that no cached root brings along what installing it takes (measured
// with real Portage: 4.6-5.3 s), up to a bound.
const (
	rootFirst  = 20_000
	rootEach   = 5_000
	rootMost   = 600_000
	rootsCache = 16 // roots that a drone keeps, the last used
)

// packages is a set of a world's jobs, by their place in its order.
type packages []uint64

func (p packages) subsetOf(q packages) bool {
	for i, x := range p {
		if x&^q[i] != 0 {
			return false
		}
	}
	return true
}

func (p packages) size() (n int) {
	for _, x := range p {
		n += bits.OnesCount64(x)
	}
	return n
}

// closures returns the root of each job: all that it needs, directly or not.
func (w *World) closures() map[build.Key]packages {
	out := make(map[build.Key]packages, len(w.order))
	at := make(map[build.Key]int, len(w.order))
	for i, k := range w.order {
		at[k] = i
		root := make(packages, (len(w.order)+63)/64)
		for _, dep := range w.specs[k].Job.Before() {
			for n, x := range out[dep] {
				root[n] |= x
			}
			root[at[dep]/64] |= 1 << (at[dep] % 64)
		}
		out[k] = root
	}
	return out
}

// giveRoots writes the roots into the plan.
func (w *World) giveRoots() {
	table := make([]build.RootEntry, len(w.order))
	for i, k := range w.order {
		table[i] = build.RootEntry{CPV: w.specs[k].Job.CPV, Key: k}
	}
	for i, k := range w.order {
		var list []uint32
		for at := range table {
			if w.roots[k][at/64]>>(at%64)&1 != 0 {
				list = append(list, uint32(at))
			}
		}
		w.plan.Jobs[i].Root = build.RootOf(table, list)
	}
}

// kept is what a drone says of its roots in its Beat, the last used first.
func (d *drone) kept() (out [][]byte) {
	for _, k := range slices.Backward(d.cached) {
		b, err := hex.DecodeString(string(k))
		if err != nil {
			panic(err) // a build key
		}
		out = append(out, b)
	}
	return out
}

// setup is how long a drone takes to set up a job's root: it starts from the
// largest cached root that is a subset.
func (d *drone) setup(k build.Key) int64 {
	if d.n.w.roots == nil {
		return 0
	}
	if ms, ok := d.setups[k]; ok {
		return ms
	}
	root, best := d.n.w.roots[k], 0
	for _, c := range d.cached {
		if cached := d.n.w.roots[c]; cached.subsetOf(root) {
			best = max(best, cached.size())
		}
	}
	ms := min(rootMost, rootFirst+rootEach*int64(root.size()-best))
	d.setups[k] = ms
	return ms
}

// keep notes that a drone has a job's root.
func (d *drone) keep(k build.Key) {
	if d.n.w.roots == nil {
		return
	}
	for i, c := range d.cached {
		if c == k {
			d.cached = append(d.cached[:i], d.cached[i+1:]...)
			break
		}
	}
	d.cached = append(d.cached, k)
	if len(d.cached) > rootsCache {
		d.cached = d.cached[1:]
	}
	clear(d.setups)
	if d.n.w.Affinity {
		d.n.step(claims.Report{Beat: d.report()})
	}
}
