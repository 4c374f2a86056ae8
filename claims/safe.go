package claims

import "slices"

// CopiesWanted is R: so many copies make a blob safe, or as many as the peers that
// are here can take.
const CopiesWanted = 3

// StoreHeadroom is what a peer keeps free beside a blob that it takes, in bytes.
const StoreHeadroom = 64 << 20

// Takes reports whether a peer takes a copy of a blob of so many bytes that others
// have: it stores, its link costs nothing, and it has room.
func (b *Beat) Takes(size int64) bool {
	return b.Stores && !b.Metered && size <= b.StoreFree-StoreHeadroom
}

// taker is a live peer that takes copies for others.
type taker struct {
	id   string
	beat *Beat
}

func (r *Replica) takers(now Now) []taker {
	var out []taker
	for id, p := range r.peers {
		if p.beat.Takes(0) && r.live(id, now) {
			out = append(out, taker{id, &p.beat})
		}
	}
	return out
}

// wanted is how many copies make an artifact safe that has so many: those it has
// and one on each peer that can take one yet, CopiesWanted at the most. A peer
// whose disk is full, or whose link costs, must not keep a release from being made.
func (s *survey) wanted(o *Result, copies int) int {
	for _, t := range s.takers {
		if copies >= CopiesWanted {
			break
		}
		if t.beat.Takes(o.Artifact.Size) && !slices.Contains(s.r.idx.holders[o.digest], t.id) {
			copies++
		}
	}
	return max(1, min(copies, CopiesWanted))
}
