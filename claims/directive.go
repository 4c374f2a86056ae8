package claims

import (
	"cmp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Verb is what a directive asks for.
type Verb string

const (
	VerbUnblock Verb = "unblock" // a build key or "all": forget failures of builds that began before
	VerbBump    Verb = "bump"    // a build key or a round: first in the schedule
	VerbCancel  Verb = "cancel"  // a round: nobody asks for it any more
	VerbPause   Verb = "pause"   // a peer or "all": no new claims
	VerbDrain   Verb = "drain"   // as pause, said of one that is about to go
	VerbReset   Verb = "reset"   // a target: claims, failures and rounds from before do not count
	VerbBalance Verb = "balance" // "all": what is claimed and not begun goes back
	VerbBan     Verb = "ban"     // a peer: what it writes from now on is ignored
	VerbAck     Verb = "ack"     // a peer: a person has seen that it is here
	VerbPin     Verb = "pin"     // a CID: it is kept
)

// ScopeAll is the scope of a directive to everything.
const ScopeAll = "all"

// Directive is a person's order to the swarm. Scope is a build key, a round, a
// peer, a target, a CID or ScopeAll, by verb. Off lifts it again.
type Directive struct {
	Verb   Verb   `cbor:"verb" json:"verb"`
	Scope  string `cbor:"scope" json:"scope"`
	Off    bool   `cbor:"off,omitempty" json:"off,omitempty"`
	Reason string `cbor:"reason,omitempty" json:"reason,omitempty"`
}

func (Directive) recordType() string                      { return TypeDirective }
func (Directive) recordOrder(a string, s hlc.Time) []byte { return lww(a, s) }

// recordKey: the last order of a kind about a thing is the one that counts,
// whoever gave it. Not so acknowledgements, of which each stands by itself: they
// count by whom they are (see Strangers).
func (d Directive) recordKey(author string, _ hlc.Time) string {
	key := TypeDirective + "/" + string(d.Verb) + "/" + d.Scope
	if d.Verb == VerbAck {
		key += "/" + author
	}
	return key
}

func (d Directive) check(author string) error {
	switch d.Verb {
	case VerbUnblock, VerbBump, VerbCancel, VerbPause, VerbDrain, VerbReset, VerbBalance, VerbPin:
	case VerbBan, VerbAck:
		if d.Scope == author {
			return ErrAuthor // nobody lifts his own ban or vouches for himself
		}
	default:
		return invalid("directive %q", d.Verb)
	}
	if d.Scope == "" || len(d.Scope) > 128 || strings.ContainsAny(d.Scope, "/ ") {
		return invalid("scope %q", d.Scope)
	}
	return nil
}

// Orders lists the directives in force, newest first, without acknowledgements.
func (r *Replica) Orders() []Ordered {
	return slices.DeleteFunc(r.Directives(), func(d Ordered) bool { return d.Off || d.Verb == VerbAck })
}

// obey carries out what a directive asks of this peer.
func (r *Replica) obey(now Now, d Directive) {
	if d.Verb == VerbBan {
		r.enforceBan(now, d.Scope)
		return
	}
	if d.Off {
		return
	}
	for _, k := range r.ownKeys() {
		o := r.own[k]
		switch {
		case d.Verb == VerbBalance && !o.job.Compiling:
			r.giveBack(now, k, "balance")
			r.emit(Stop{k, "the queue is balanced anew"})
		case d.Verb == VerbReset && o.claim.Stamp < r.idx.resetAt(r.idx.keys[k]):
			delete(r.own, k)
			r.nextBeat = min(r.nextBeat, now.Boot+200)
			r.emit(Stop{k, "the target was reset"})
		}
	}
	if d.Verb == VerbCancel {
		r.stopUnwanted(now)
	}
}

// stopUnwanted ends builds of this peer that no open round asks for any more:
// somebody cancelled the last one that did.
func (r *Replica) stopUnwanted(now Now) {
	for _, k := range r.ownKeys() {
		ks := r.idx.keys[k]
		if ks == nil || len(ks.rounds) == 0 || slices.ContainsFunc(ks.rounds, func(id string) bool { _, open := r.open(id); return open }) {
			continue
		}
		r.giveBack(now, k, "the round was cancelled")
		r.emit(Stop{k, "the round was cancelled"})
	}
}

// bans reports whether a ban of a peer is in force.
func (x *index) bans(peer string) bool {
	if len(x.orders) == 0 {
		return false
	}
	_, on := x.order(VerbBan, peer)
	return on
}

// Banned says by whom a peer is banned, and since when.
func (r *Replica) Banned(peer string) (o Ordered, ok bool) {
	d, ok := r.idx.order(VerbBan, peer)
	return Ordered{d.Directive, d.author, d.stamp}, ok
}

// enforceBan follows a ban, or its end: the peer counts as gone at once, and
// what it wrote after the ban leaves the board, as it never came onto the boards
// of those who heard of the ban first.
func (r *Replica) enforceBan(now Now, peer string) {
	d, on := r.idx.order(VerbBan, peer)
	if p := r.peers[peer]; p != nil {
		p.banned = on
	}
	r.judgeAt = now.Boot
	r.emit(Changed{})
	if !on {
		return
	}
	var late []string
	for _, e := range r.board.all() {
		if e.rec.Author() == peer && hlc.Time(e.rec.Stamp()) > d.stamp {
			late = append(late, e.rec.Key())
		}
	}
	if len(late) == 0 {
		return
	}
	for _, key := range late {
		r.board.remove(key)
	}
	r.reindex()
	r.idx.dropped = append(r.idx.dropped, late...)
}

// reindex derives the index anew. Plans that stood in blobs are kept.
func (r *Replica) reindex() {
	old := r.idx
	r.idx = newIndex()
	r.idx.dropped = old.dropped
	clear(r.endings)
	for _, e := range r.board.all() {
		r.idx.add(e)
		if out, ok := e.body.(outcomeBody); ok {
			r.noteEnded(e.rec.Author(), out.Outcome, hlc.Time(e.rec.Stamp()))
		}
	}
	for id, rs := range old.rounds {
		r.idx.loadPlan(id, rs.plan)
	}
}

// BuiltBy lists the good outcomes of a peer, in the order in which they came.
func (r *Replica) BuiltBy(peer string) []Result {
	var out []Result
	seen := map[build.Key]bool{}
	for _, k := range r.idx.authored[peer] {
		if seen[k] {
			continue
		}
		seen[k] = true
		for _, o := range r.idx.results[k] {
			if o.Peer == peer && o.Class == build.Good {
				out = append(out, o)
			}
		}
	}
	slices.SortFunc(out, func(a, b Result) int { return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.Key, b.Key)) })
	return out
}

// Strangers lists the peers that were heard of and that nobody has acknowledged
// yet, sorted. An acknowledgement counts when it was given at this peer, or at
// one that is itself acknowledged: two strangers do not vouch for each other.
func (r *Replica) Strangers() []string {
	by := map[string][]string{} // who acknowledges whom
	for _, d := range r.idx.orders {
		if d.Verb == VerbAck && !d.Off {
			by[d.author] = append(by[d.author], d.Scope)
		}
	}
	known := map[string]bool{r.self: true}
	for next := []string{r.self}; len(next) > 0; next = next[1:] {
		for _, p := range by[next[0]] {
			if !known[p] {
				known[p] = true
				next = append(next, p)
			}
		}
	}
	var out []string
	for _, p := range r.byID {
		if !known[p.id] && !p.banned && !p.rec.IsZero() {
			out = append(out, p.id)
		}
	}
	return out
}
