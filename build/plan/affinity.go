package plan

import (
	"encoding/hex"
	"math/bits"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Affinity tells what a job's root costs on each drone. A drone says in its Beat
// of which jobs it keeps the roots; a root is made from the largest kept one
// that is a subset of it, by installing what is missing. Everybody has the
// plans, so the names of jobs say which packages those are.
//
// The zero Affinity is ready; it is for one goroutine. It keeps what it worked
// out: sets of packages for as long as it is asked about their jobs, and what a
// root takes on a drone until the drone says something else.
type Affinity struct {
	place map[string]int // of a package in the sets, by its key or seed
	sets  map[build.Key]packageSet
	peers map[string]*keptRoots
}

// mostSets bounds the sets that are remembered: beyond it, all are forgotten.
const mostSets = 8192

// keptRoots is what one drone said.
type keptRoots struct {
	said      [][]byte
	sets      []packageSet // the known ones
	installMS int64
	setup     map[build.Key]int64
	unknown   []build.Key // jobs of said that no plan here listed yet
}

// packageSet is a set of packages of which the places are known.
type packageSet struct {
	bits []uint64
	size int64
}

func (p *packageSet) subsetOf(q *packageSet) bool {
	if p.size > q.size {
		return false
	}
	for i, x := range p.bits {
		if i >= len(q.bits) {
			if x != 0 {
				return false
			}
		} else if x&^q.bits[i] != 0 {
			return false
		}
	}
	return true
}

// Setup returns the View.Setup of a look at these peers; nil while no drone keeps
// roots. job finds the jobs of the plans that are known; what is kept for one
// that is not among them counts for nothing.
func (a *Affinity) Setup(peers []claims.Peer, job func(build.Key) *build.Job) func(k build.Key, peer string) int64 {
	if a.sets == nil || len(a.sets) > mostSets {
		a.place, a.sets, a.peers = map[string]int{}, map[build.Key]packageSet{}, map[string]*keptRoots{}
	}
	some := false
	for i := range peers {
		p := &peers[i]
		if p.Beat.InstallMS <= 0 {
			delete(a.peers, p.ID)
			continue
		}
		some = true
		kept := a.peers[p.ID]
		if kept != nil && kept.installMS == p.Beat.InstallMS && slices.EqualFunc(kept.said, p.Beat.Roots, slices.Equal[[]byte]) &&
			!slices.ContainsFunc(kept.unknown, func(k build.Key) bool { return job(k) != nil }) {
			continue
		}
		kept = &keptRoots{said: p.Beat.Roots, installMS: p.Beat.InstallMS, setup: map[build.Key]int64{}}
		for _, b := range p.Beat.Roots {
			k := build.Key(hex.EncodeToString(b))
			if s := a.set(k, job); s.size > 0 {
				kept.sets = append(kept.sets, s)
			} else if job(k) == nil {
				kept.unknown = append(kept.unknown, k)
			}
		}
		a.peers[p.ID] = kept
	}
	if !some {
		return nil
	}
	return func(k build.Key, peer string) int64 {
		kept := a.peers[peer]
		if kept == nil {
			return 0
		}
		ms, ok := kept.setup[k]
		if !ok {
			ms = kept.missing(a.set(k, job)) * kept.installMS
			kept.setup[k] = ms
		}
		return ms
	}
}

// missing is how many packages are to be installed on top of what is kept.
func (r *keptRoots) missing(want packageSet) int64 {
	most := int64(0)
	for i := range r.sets {
		if s := &r.sets[i]; s.size > most && s.subsetOf(&want) {
			most = s.size
		}
	}
	return want.size - most
}

// set is the packages of a job's root; empty if the job is not known.
func (a *Affinity) set(k build.Key, job func(build.Key) *build.Job) packageSet {
	if s, ok := a.sets[k]; ok {
		return s
	}
	j := job(k)
	if j == nil {
		return packageSet{}
	}
	var s packageSet
	for _, e := range j.Root.All() {
		name := string(e.Key)
		if name == "" {
			name = e.Seed
		}
		if name == "" {
			continue // the base has it
		}
		at, ok := a.place[name]
		if !ok {
			at = len(a.place)
			a.place[name] = at
		}
		for len(s.bits) <= at/64 {
			s.bits = append(s.bits, 0)
		}
		s.bits[at/64] |= 1 << (at % 64)
	}
	for _, x := range s.bits {
		s.size += int64(bits.OnesCount64(x))
	}
	a.sets[k] = s
	return s
}
