package claims

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Ordered is a directive with who gave it and when.
type Ordered struct {
	Directive
	Author string
	Stamp  hlc.Time
}

// Directives lists what people ordered, newest first; what was lifted again has
// Off set.
func (r *Replica) Directives() []Ordered {
	out := make([]Ordered, 0, len(r.idx.orders))
	for _, d := range r.idx.orders {
		out = append(out, Ordered{d.Directive, d.author, d.stamp})
	}
	slices.SortFunc(out, func(a, b Ordered) int {
		return cmp.Or(cmp.Compare(b.Stamp, a.Stamp), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Scope, b.Scope))
	})
	return out
}

// History lists the outcomes of every version of a package (category/name),
// oldest first. It looks at all outcomes: for a page that a person opens, not
// for a loop.
func (r *Replica) History(cp string) []Result {
	var out []Result
	for _, rs := range r.idx.results {
		if len(rs) > 0 && rs[0].CPV.CP() == cp {
			out = append(out, rs...)
		}
	}
	slices.SortFunc(out, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// JobsOf lists the jobs of a package (category/name) in any round that is
// known, sorted by key.
func (r *Replica) JobsOf(cp string) []*build.Job {
	var out []*build.Job
	for _, ks := range r.idx.keys {
		if ks.job != nil && ks.job.CPV.CP() == cp {
			out = append(out, ks.job)
		}
	}
	slices.SortFunc(out, func(a, b *build.Job) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
