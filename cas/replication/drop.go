package replication

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Times of a drop. Reference and withdrawal each need one round of anti-entropy
// (30 s) to reach everybody, so Settle is two of them.
const (
	// UnreferencedFor is how long nothing must have referred to a blob.
	UnreferencedFor = 24 * time.Hour
	// Settle is between the withdrawal of a copy and its deletion.
	Settle = time.Minute
	// PromiseFor is how long a holder keeps what it said it would keep; the
	// deletion follows the answers within half of that.
	PromiseFor = 10 * time.Minute
)

// Reason is why a copy may go.
type Reason byte

const (
	// Garbage: nothing refers to the blob. All copies go.
	Garbage Reason = 1
	// Surplus: R others hold it. R copies stay, whatever happens.
	Surplus Reason = 2
)

func (r Reason) String() string {
	if r == Garbage {
		return "nothing refers to it"
	}
	return "enough others hold it"
}

// Drop is a copy that this peer need not keep.
type Drop struct {
	cas.Info
	Reason Reason
	Others []string // live holders beside this peer, sorted
	R      int      // how many of them must promise to keep theirs (Surplus)
}

// Surpluses lists copies that Self may give up because R other live peers that
// store hold them and would be chosen before it, the largest first. Peers of
// which Self is one of the R best by the ranking of Plan keep theirs, so that
// not all of them want to drop at once.
func Surpluses(in Input) []Drop {
	v := newView(in)
	var out []Drop
	for _, b := range v.blobs(in.Blobs) {
		held := holders(b)
		if _, mine := slices.BinarySearch(held, in.Self); !mine {
			continue
		}
		r := v.count(b).R
		var keepers []candidate // this peer among them
		var others []string
		for _, h := range held {
			p, ok := v.peers[h]
			if !ok || h != in.Self && (!p.Live || p.BuildOnly) {
				continue
			}
			keepers = append(keepers, candidate{p, score(b.CID, p)})
			if h != in.Self {
				others = append(others, h)
			}
		}
		if len(others) < r || v.steadyOf(others) < min(r, v.steady) {
			continue
		}
		me := v.peers[in.Self]
		if !me.BuildOnly && slices.Index(v.best(keepers, r), in.Self) >= 0 {
			continue
		}
		out = append(out, Drop{cas.Info{CID: b.CID, Size: b.Size}, Surplus, others, r})
	}
	slices.SortFunc(out, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.CID.KeyString(), b.CID.KeyString()))
	})
	return out
}

func (v *view) steadyOf(ids []string) (n int) {
	for _, id := range ids {
		if v.peers[id].Steady {
			n++
		}
	}
	return n
}

// Answer is what a holder says when another wants to drop its copy.
type Answer byte

const (
	Silent     Answer = iota // it could not be asked
	NotHeld                  // it has no copy
	Kept                     // it has one, and keeps it for PromiseFor
	Dropping                 // it has one, and wants to drop it, too
	Agreed                   // nothing that it knows of refers to the blob
	Referenced               // something refers to the blob
)

// Ledger is one peer's part in drops: what it intends to drop and what it
// promised to keep. Dropping takes two phases:
//
//  1. Intend. The copy is withdrawn from the board, so that nobody counts on
//     it. A copy that is promised cannot be intended.
//  2. Settle later, the other live holders are asked. A surplus goes when R of
//     them promise to keep theirs, garbage when all of them agree; else the
//     copy is announced again.
//
// A holder that intends to drop promises nothing, so of any number that want to
// drop at once, none counts another. Promises die with the process, so a new
// Ledger lets nothing go for PromiseFor. Times are of one clock of this peer
// that never goes back; no two clocks are compared. Not for several goroutines.
type Ledger struct {
	started  time.Time
	intents  map[cid.Cid]intent
	promised map[cid.Cid]time.Time // until when
	swept    time.Time             // when promised lost what had run out
}

type intent struct {
	since  time.Time
	reason Reason
}

// NewLedger begins a ledger at now.
func NewLedger(now time.Time) *Ledger {
	return &Ledger{now, map[cid.Cid]intent{}, map[cid.Cid]time.Time{}, now}
}

// Intend begins a drop. False: it may not begin now.
func (l *Ledger) Intend(now time.Time, c cid.Cid, why Reason) bool {
	_, twice := l.intents[c]
	if twice || now.Before(l.promised[c]) || now.Sub(l.started) < PromiseFor {
		return false
	}
	l.intents[c] = intent{now, why}
	return true
}

// Settled reports whether an intended drop has waited for Settle.
func (l *Ledger) Settled(now time.Time, c cid.Cid) bool {
	i, ok := l.intents[c]
	return ok && now.Sub(i.since) >= Settle
}

// End ends an intent, whatever became of it.
func (l *Ledger) End(c cid.Cid) { delete(l.intents, c) }

// Answer answers another holder. holds and referenced are what this peer knows.
func (l *Ledger) Answer(now time.Time, c cid.Cid, why Reason, holds, referenced bool) Answer {
	_, dropping := l.intents[c]
	switch {
	case why == Garbage && referenced:
		return Referenced
	case !holds:
		return NotHeld
	case why == Garbage:
		return Agreed
	case dropping:
		return Dropping
	}
	if now.Sub(l.swept) > PromiseFor {
		maps.DeleteFunc(l.promised, func(_ cid.Cid, until time.Time) bool { return !now.Before(until) })
		l.swept = now
	}
	l.promised[c] = now.Add(PromiseFor)
	return Kept
}

// Decide reports whether a settled drop may be carried out at once. asked is
// when the first question went out, referenced what this peer knows now, answers
// holds one for each live holder.
func (l *Ledger) Decide(now, asked time.Time, d Drop, referenced bool, answers []Answer) bool {
	if !l.Settled(now, d.CID) || now.Sub(asked) > PromiseFor/2 {
		return false
	}
	kept := 0
	for _, a := range answers {
		switch a {
		case Kept:
			kept++
		case Silent, Referenced:
			if d.Reason == Garbage {
				return false
			}
		}
	}
	if d.Reason == Garbage {
		return !referenced
	}
	return kept >= max(d.R, 1)
}
