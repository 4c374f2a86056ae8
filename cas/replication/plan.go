package replication

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
	"lukechampine.com/blake3"
)

const (
	// DefaultR is how many copies a blob should have when it does not say.
	DefaultR = 3
	// minLive is how many live copies every blob must have at any time.
	minLive = 2
	// steadyGrace and unsteadyGrace are how long the copies of a peer that left
	// still count.
	steadyGrace   = 15 * time.Minute
	unsteadyGrace = 24 * time.Hour
	// headroom is what a peer keeps free beside the blob that it takes.
	headroom = 64 << 20
)

// Class orders repairs of equal urgency.
type Class int

// Classes, the more important first.
const (
	Released Class = iota // of a kept release, or pinned
	Wanted                // of an open or the newest round
	Other
)

// Peer is what is known of a peer, this one included.
type Peer struct {
	ID     string
	Site   string // peers of one site are lost together; "" is a site of its own
	Steady bool
	Stores bool // takes copies; below its watermark, too
	// BuildOnly: it keeps what it made until others have it. Its copies can be
	// fetched, and count for nothing else.
	BuildOnly bool
	// Metered: its link costs. It takes only what would else be on one peer.
	Metered bool
	Live    bool
	Left    time.Time // when it stopped being live; for a live peer without meaning
	Free    int64     // bytes that it would still take
}

// Blob is one that should have copies.
type Blob struct {
	CID     cid.Cid
	Size    int64
	Holders []string // by receipts, in any order; unknown peers count for nothing
	R       int      // 0: DefaultR
	Class   Class
}

// Input is everything a plan depends on. Order within it does not matter.
type Input struct {
	Self  string
	Now   time.Time
	Peers []Peer
	Blobs []Blob
}

// Action is a copy for this peer to make.
type Action struct {
	cas.Info
	From   []string // live holders, sorted
	Urgent bool     // fewer than two live copies
	Live   int      // live copies now
	Class  Class
}

// Plan lists what Self should copy, the most urgent first: the fewest live
// copies, then the class, then small before large. It does not change in.
func Plan(in Input) []Action {
	v := newView(in)
	self, ok := v.peers[in.Self]
	if !ok || !self.Live || !self.Stores {
		return nil
	}
	var plan []Action
	free := self.Free
	for _, b := range v.blobs(in.Blobs) {
		a, ok := v.consider(b, self)
		if ok && a.Size <= free-headroom {
			plan = append(plan, a)
		}
	}
	slices.SortFunc(plan, func(a, b Action) int {
		return cmp.Or(cmp.Compare(a.Live, b.Live), cmp.Compare(a.Class, b.Class),
			cmp.Compare(a.Size, b.Size), cmp.Compare(a.CID.KeyString(), b.CID.KeyString()))
	})
	// What fits one by one may not fit together: stop taking at the limit.
	return slices.DeleteFunc(plan, func(a Action) bool {
		if a.Size > free-headroom {
			return true
		}
		free -= a.Size
		return false
	})
}

type view struct {
	now    time.Time
	peers  map[string]Peer
	live   []Peer // that store, by ID
	storeN int    // peers that store, live or away
	steady int    // of those, the steady ones
}

func newView(in Input) *view {
	v := &view{now: in.Now, peers: make(map[string]Peer, len(in.Peers))}
	for _, p := range in.Peers {
		v.peers[p.ID] = p
	}
	for _, p := range v.peers {
		if !p.Stores || !v.counts(p) {
			continue
		}
		if !p.Metered {
			v.storeN++
			if p.Steady {
				v.steady++
			}
		}
		if p.Live {
			v.live = append(v.live, p)
		}
	}
	slices.SortFunc(v.live, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	return v
}

// blobs joins entries of one CID, whose holders add up.
func (v *view) blobs(all []Blob) []Blob {
	at := make(map[cid.Cid]int, len(all))
	out := make([]Blob, 0, len(all))
	for _, b := range all {
		i, ok := at[b.CID]
		if !ok {
			at[b.CID] = len(out)
			out = append(out, b)
			continue
		}
		o := &out[i]
		o.Holders = append(slices.Clip(o.Holders), b.Holders...)
		o.R, o.Class = max(o.R, b.R), min(o.Class, b.Class)
	}
	return out
}

// counts reports whether the copies of p count: it is here, or was lately.
func (v *view) counts(p Peer) bool {
	if p.Live {
		return true
	}
	grace := unsteadyGrace
	if p.Steady {
		grace = steadyGrace
	}
	return v.now.Sub(p.Left) < grace
}

// Copies is how well a blob is kept.
type Copies struct {
	Live   int // on live peers
	Counts int // towards R: live and away, by the rule of the package comment
	R      int // what it should be, with these peers
}

// Count tells how well each blob of in is kept, by CID, for people to see.
func Count(in Input) map[cid.Cid]Copies {
	v := newView(in)
	out := make(map[cid.Cid]Copies, len(in.Blobs))
	for _, b := range v.blobs(in.Blobs) {
		out[b.CID] = v.count(b)
	}
	return out
}

func (v *view) count(b Blob) Copies {
	want := b.R
	if want <= 0 {
		want = DefaultR
	}
	n := Copies{R: min(want, max(v.storeN, 1))}
	unsteady := 0
	for _, h := range holders(b) {
		p, ok := v.peers[h]
		if !ok || !v.counts(p) {
			continue
		}
		if p.Live {
			n.Live++
		}
		switch {
		case p.BuildOnly:
		case p.Steady:
			n.Counts++
		default:
			unsteady++
		}
	}
	if v.steady < n.R {
		n.Counts += unsteady
	}
	return n
}

// consider says whether Self is to copy b.
func (v *view) consider(b Blob, self Peer) (Action, bool) {
	held := holders(b)
	if _, mine := slices.BinarySearch(held, self.ID); mine {
		return Action{}, false
	}
	n := v.count(b)
	if n.Live == 0 { // nobody to copy from
		return Action{}, false
	}
	missing := n.R - n.Counts
	if n.Live < minLive {
		missing = max(missing, minLive-n.Live)
	}
	if missing <= 0 || !v.chosen(b, held, missing, n.Live < minLive, self.ID) {
		return Action{}, false
	}
	a := Action{Info: cas.Info{CID: b.CID, Size: b.Size}, Urgent: n.Live < minLive, Live: n.Live, Class: b.Class}
	for _, h := range held {
		if v.peers[h].Live {
			a.From = append(a.From, h)
		}
	}
	return a, true
}

// holders are b's, sorted, each once.
func holders(b Blob) []string {
	h := slices.Clone(b.Holders)
	slices.Sort(h)
	return slices.Compact(h)
}

type candidate struct {
	Peer
	score uint64 // less is better
}

// chosen reports whether self is among the n peers that are to copy b: the best
// of those that do not hold it and have room; those whose link costs only when it
// is urgent.
func (v *view) chosen(b Blob, held []string, n int, urgent bool, self string) bool {
	sites := map[string]bool{}
	for _, h := range held {
		if p, ok := v.peers[h]; ok && v.counts(p) && !p.BuildOnly {
			sites[site(p)] = true
		}
	}
	var all []candidate
	for _, p := range v.live {
		if _, has := slices.BinarySearch(held, p.ID); !has && b.Size <= p.Free-headroom && (urgent || !p.Metered) {
			all = append(all, candidate{p, score(b.CID, p)})
		}
	}
	return slices.Contains(v.pick(all, n, sites), self)
}

// best names the n candidates that should hold a blob, if nobody did.
func (v *view) best(all []candidate, n int) []string {
	return v.pick(slices.Clone(all), n, map[string]bool{})
}

// pick takes n candidates one by one: steady before others, a site without a
// copy before others, then by score. It uses up its arguments.
func (v *view) pick(all []candidate, n int, sites map[string]bool) []string {
	rank := func(c candidate) int {
		r := 0
		if c.Metered {
			r += 4
		}
		if !c.Steady {
			r += 2
		}
		if sites[site(c.Peer)] {
			r++
		}
		return r
	}
	var out []string
	for ; n > 0 && len(all) > 0; n-- {
		best := 0
		for i := range all[1:] {
			a, b := all[i+1], all[best]
			if cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.score, b.score), cmp.Compare(a.ID, b.ID)) < 0 {
				best = i + 1
			}
		}
		out = append(out, all[best].ID)
		sites[site(all[best].Peer)] = true
		all = slices.Delete(all, best, best+1)
	}
	return out
}

// site is a name that peers without one do not share.
func site(p Peer) string {
	if p.Site == "" {
		return "\x00" + p.ID
	}
	return p.Site
}

// score ranks a peer for a blob by weighted rendezvous: the peer with the least
// -log2(u)/w wins, u being uniform by the hash of both names, and w the free
// space as a power of two.
func score(c cid.Cid, p Peer) uint64 {
	h := blake3.New(8, nil)
	_, _ = h.Write(c.Bytes()) // never fails
	_, _ = h.Write([]byte(p.ID))
	var u uint64
	for _, b := range h.Sum(nil) {
		u = u<<8 | uint64(b)
	}
	// 2^0 is up to 1 GiB, 2^20 a PiB and more.
	weight := min(max(bits.Len64(uint64(max(p.Free, 0))>>30), 0), 20)
	return negLog2(u) << (20 - weight)
}

// negLog2 is -log2(u / 2^64) with 32 binary digits after the point; 64 for 0.
func negLog2(u uint64) uint64 {
	if u == 0 {
		return 64 << 32
	}
	n := bits.Len64(u) - 1 // log2(u) = n + log2(m), 1 <= m < 2
	m := u << (63 - n)     // m as 1.63
	frac := uint64(0)
	for range 32 {
		hi, lo := bits.Mul64(m, m) // m*m as 2.126
		frac <<= 1
		if hi>>63 == 1 { // m*m >= 2: the digit is one, and m*m/2 goes on
			frac |= 1
			m = hi
		} else {
			m = hi<<1 | lo>>63
		}
	}
	return 64<<32 - (uint64(n)<<32 | frac)
}
