package claims

import "slices"

// CopiesWanted is R: so many copies make a blob safe, or as many as the peers that
// are here can take.
const CopiesWanted = 3

// StoreHeadroom is what a peer keeps free beside a blob that it takes, in bytes.
const StoreHeadroom = 64 << 20

// Takes reports whether a peer takes a copy of a blob of so many bytes, of which
// there are copies already: it stores and has room, and if its link costs, only what
// would else be on one peer.
func (b *Beat) Takes(size int64, copies int) bool {
	return b.Stores && size <= b.StoreFree-StoreHeadroom && (!b.Metered || copies < 2)
}

// taker is a live peer that takes copies for others.
type taker struct {
	id   string
	beat *Beat
}

// takers lists those that may take copies, whose link costs last.
func (r *Replica) takers(now Now) []taker {
	var out, metered []taker
	for id, p := range r.peers {
		switch {
		case !p.beat.Takes(0, 0) || !r.live(id, now):
		case p.beat.Metered:
			metered = append(metered, taker{id, &p.beat})
		default:
			out = append(out, taker{id, &p.beat})
		}
	}
	return append(out, metered...)
}

// wanted is how many copies make an artifact safe that has so many: those it has
// and one on each peer that takes one yet, CopiesWanted at the most. A peer whose
// disk is full, or whose link costs, must not keep a release from being made.
func (s *survey) wanted(o *Result, copies int) int {
	for _, t := range s.takers {
		if copies >= CopiesWanted {
			break
		}
		if t.beat.Takes(o.Artifact.Size, copies) && !slices.Contains(s.r.idx.holders[o.digest], t.id) {
			copies++
		}
	}
	return max(1, min(copies, CopiesWanted))
}
