package claims

import (
	"fmt"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// What Yields takes for equal and for earlier, in milliseconds.
const (
	YieldInvested = BeatMillis
	YieldEarlier  = 3 * BeatMillis
)

// Holder says who has a job, as this peer judges it.
type Holder struct {
	Peer      string
	Epoch     uint64
	State     ClaimState
	Job       BeatJob // what the holder's newest Beat says of it; zero if nothing
	ExpiresIn int64   // milliseconds until the lease is over, if nothing more is heard
}

// Holder returns the peer that has a job now. ok is false when the job is
// free: never claimed, given back, or the lease and its grace are over.
func (r *Replica) Holder(k build.Key, now Now) (h Holder, ok bool) {
	ks := r.idx.keys[k]
	if ks == nil {
		return r.compiler(k, now)
	}
	return r.holder(ks, now)
}

func (r *Replica) holder(ks *keyState, now Now) (h Holder, ok bool) {
	k := ks.key
	if e := ks.claim; e != nil {
		c := e.body.(Claim)
		if c.State != ClaimReturned && c.Stamp >= r.idx.resetAt(ks) {
			if left := r.leaseLeft(c.Peer, hlc.Time(e.rec.Stamp()), e.seen, k, now); left > 0 {
				return Holder{Peer: c.Peer, Epoch: c.Epoch, State: c.State, Job: r.jobOf(c.Peer, k), ExpiresIn: left}, true
			}
		}
	}
	return r.compiler(k, now)
}

// compiler returns who compiles a job by their own word. It counts even when
// another claim won, or when the winner gave back: work that is under way is
// not started twice.
func (r *Replica) compiler(k build.Key, now Now) (h Holder, ok bool) {
	if r.compiling[k] == 0 {
		return h, false
	}
	for id, p := range r.peers {
		for _, j := range p.beat.Jobs {
			if j.Key != k || !j.Compiling || ok && id > h.Peer {
				continue
			}
			left := r.lease(p) - (now.Boot - p.heard)
			if j.FrozenMS > 0 && !p.beat.Leaving && !p.refuse && !p.banned {
				left += r.grace(j) // its machine may be asleep
			}
			if r.live(id, now) || left > 0 && j.FrozenMS > 0 {
				h, ok = Holder{Peer: id, Epoch: j.Epoch, State: ClaimCompiling, Job: j, ExpiresIn: left}, true
			}
		}
	}
	return h, ok
}

// Claim is the claim of a job that stands on the board, whatever its lease.
func (r *Replica) Claim(k build.Key) (Claim, bool) {
	if e := r.board.get(ClaimKey(k)); e != nil {
		return e.body.(Claim), true
	}
	return Claim{}, false
}

// resetAt is the stamp before which claims of a job's target do not count.
func (x *index) resetAt(ks *keyState) hlc.Time {
	if len(x.orders) == 0 || ks == nil || ks.target == "" {
		return 0
	}
	d, on := x.order(VerbReset, ks.target)
	if !on {
		return 0
	}
	return d.stamp
}

// leaseLeft is how long the claim of a peer still holds, in milliseconds.
func (r *Replica) leaseLeft(peer string, written hlc.Time, seen int64, k build.Key, now Now) int64 {
	if peer == r.self {
		if _, held := r.own[k]; held {
			return LeasePeriods * BeatMillis
		}
		return 0
	}
	p := r.peers[peer]
	if p == nil || p.refuse {
		// Never heard of: it has one lease from when its claim was seen.
		return seen + LeasePeriods*BeatMillis - now.Boot
	}
	newer := hlc.Time(p.rec.Stamp()) > written
	if p.banned || newer && p.beat.Leaving {
		return 0
	}
	job, listed := p.job(k)
	if newer && !listed {
		return 0 // its own later Beat no longer holds the job
	}
	base := p.heard
	if !newer {
		base = max(base, seen)
	}
	return base + r.lease(p) + r.grace(job) - now.Boot
}

// grace is how long after its lease a build is still left alone: the more work
// is in it, the longer. When many peers fell silent together it is the network
// that broke rather than they, so that their builds probably go on at the other
// side: each is then left alone for as long as building it anew would take. That
// is the rule for renting skis: whether they are cut off or dead, it costs at
// most twice what who knew would have paid. See doc.go for what it costs.
//
// A build that its holder has frozen (the owner of the machine came back) is
// left alone for as long as the holder said it would keep it: its machine may be
// suspended meanwhile, and goes on or gives back when it wakes.
func (r *Replica) grace(job BeatJob) int64 {
	grace := min(job.InvestedMS/4, maxGrace)
	if job.FrozenMS > 0 {
		return max(job.FrozenMS, grace)
	}
	if r.cutOff && job.Compiling {
		return max(grace, min(job.InvestedMS+job.LeftMS, cutOffMillis))
	}
	return grace
}

func (p *peerState) job(k build.Key) (BeatJob, bool) {
	for _, j := range p.beat.Jobs {
		if j.Key == k {
			return j, true
		}
	}
	return BeatJob{}, false
}

func (r *Replica) jobOf(peer string, k build.Key) BeatJob {
	if o := r.own[k]; o != nil && peer == r.self {
		return o.job
	}
	if p := r.peers[peer]; p != nil {
		j, _ := p.job(k)
		return j
	}
	return BeatJob{}
}

// take opens a claim for this drone under the next epoch. It does nothing if
// the job is not free, not wanted, or this peer may not claim.
func (r *Replica) take(now Now, k build.Key) {
	if ok, _ := r.MayClaim(); !ok || r.own[k] != nil || !k.Valid() {
		return
	}
	if _, held := r.Holder(k, now); held {
		return
	}
	epoch := r.idx.goodEpoch(k)
	if e := r.board.get(ClaimKey(k)); e != nil {
		epoch = max(epoch, e.body.(Claim).Epoch)
	}
	stamp := r.clock.Now(now.Wall)
	c := Claim{Key: k, Peer: r.self, Epoch: epoch + 1, Stamp: stamp, State: ClaimHeld}
	r.own[k] = &own{claim: c, settleAt: now.Boot + r.cfg.Settle, job: BeatJob{Key: k, Epoch: c.Epoch, Phase: "fetch", LeftMS: r.buildTime(k)}}
	r.postAt(now, stamp, c)
}

// progress notes how a build stands; the step from fetching to compiling goes
// onto the board, the rest into the next Beat.
func (r *Replica) progress(now Now, j BeatJob) {
	o := r.own[j.Key]
	if o == nil {
		return
	}
	phase := o.job.Phase
	j.Epoch = o.claim.Epoch
	o.job = j
	if j.Compiling && o.claim.State == ClaimHeld && !o.lost {
		o.claim.State = ClaimCompiling
		o.claim.Update++
		r.post(now, o.claim)
	}
	if phase != j.Phase {
		r.nextBeat = min(r.nextBeat, now.Boot+1000)
	}
}

// giveBack returns a claim, so that the next epoch may open at once.
func (r *Replica) giveBack(now Now, k build.Key, reason string) {
	o := r.own[k]
	if o == nil {
		return
	}
	delete(r.own, k)
	r.nextBeat = min(r.nextBeat, now.Boot+200)
	if o.lost {
		return // the loser of an epoch writes nothing
	}
	o.claim.State = ClaimReturned
	o.claim.Update++
	o.claim.Reason = reason
	r.post(now, o.claim)
}

// abandon gives back this peer's claims that no build of this process holds.
func (r *Replica) abandon(now Now, reason string) {
	for _, e := range r.board.all() {
		c, ok := e.body.(Claim)
		if !ok || c.Peer != r.self || c.State == ClaimReturned || r.own[c.Key] != nil {
			continue
		}
		c.State, c.Reason = ClaimReturned, reason
		c.Update++
		r.post(now, c)
	}
}

// adopt holds on to claims whose builds outlived the process that made them. A
// job that another peer claimed meanwhile is held as any build that lost its
// claim while compiling: the Beats decide who goes on.
func (r *Replica) adopt(keys []build.Key) {
	for _, k := range keys {
		e := r.board.get(ClaimKey(k))
		if e == nil || r.own[k] != nil {
			continue
		}
		c := e.body.(Claim)
		lost := c.Peer != r.self || c.State == ClaimReturned
		r.own[k] = &own{claim: c, lost: lost, job: BeatJob{Key: k, Epoch: c.Epoch, Phase: "adopt", Compiling: true}}
	}
}

// finish ends a claim with what the build came to. A late result counts: the
// outcome is posted whether or not the claim is still ours.
func (r *Replica) finish(now Now, out build.Outcome) {
	o := r.own[out.Key]
	switch {
	case o != nil:
		out.Epoch = o.claim.Epoch
	default:
		// A result of an earlier process of this peer: its claim is on the
		// board, unless somebody took over.
		if e := r.board.get(ClaimKey(out.Key)); e != nil && e.body.(Claim).Peer == r.self {
			out.Epoch = e.body.(Claim).Epoch
		}
		out.Epoch = max(1, out.Epoch)
	}
	if o != nil && out.Class != build.Good {
		r.post(now, NewOutcome(out))
		r.giveBack(now, out.Key, string(out.Class))
		return
	}
	delete(r.own, out.Key)
	r.nextBeat = min(r.nextBeat, now.Boot+200)
	r.post(now, NewOutcome(out))
}

// contest follows a claim that just won its key: a build of ours that has not
// begun to compile stops; one that has goes on and lets the Beats decide.
func (r *Replica) contest(now Now, c Claim) {
	o := r.own[c.Key]
	if o == nil || c.Peer == r.self {
		return
	}
	if !o.job.Compiling {
		delete(r.own, c.Key)
		r.nextBeat = min(r.nextBeat, now.Boot+200)
		r.emit(Stop{c.Key, fmt.Sprintf("%s claimed it first", r.Name(c.Peer))})
		return
	}
	o.lost = true
	r.rival(now, c.Peer, r.jobOf(c.Peer, c.Key))
}

// rival decides between a build of ours and another peer's of the same job.
func (r *Replica) rival(now Now, peer string, theirs BeatJob) {
	o := r.own[theirs.Key]
	if o == nil || peer == r.self || theirs.Key == "" {
		return
	}
	if !Yields(o.job, r.self, theirs, peer) {
		return
	}
	r.giveBack(now, theirs.Key, "another drone finishes it earlier")
	r.emit(Stop{theirs.Key, r.Name(peer) + " finishes it earlier"})
}

// Yields reports whether mine stops for theirs when two drones compile one
// job: whoever will finish later gives back, but never is more work stopped
// for less. A drone that does not compile yet stops nobody. Both sides reach
// the same answer from the two Beats; equal figures keep the older epoch.
//
// Builds that began within YieldInvested of each other have the same work in
// them for this purpose, if one ends more than YieldEarlier before the other:
// else a slow drone that won the race by a second would build a giant to its
// end beside the fast one. A Beat is at most some seconds old when it is
// judged, so both sides cannot find the other earlier by that much.
func Yields(mine BeatJob, me string, theirs BeatJob, them string) bool {
	switch {
	case !theirs.Compiling || !mine.Compiling:
		return false
	case mine.InvestedMS <= theirs.InvestedMS+YieldInvested && mine.LeftMS > theirs.LeftMS+YieldEarlier:
		return true
	case mine.InvestedMS > theirs.InvestedMS:
		return false
	case mine.InvestedMS == theirs.InvestedMS && mine.LeftMS == theirs.LeftMS:
		if mine.Epoch != theirs.Epoch {
			return mine.Epoch > theirs.Epoch
		}
		return me > them
	}
	return mine.LeftMS >= theirs.LeftMS
}

// endedElsewhere stops a build whose result another peer just reported.
func (r *Replica) endedElsewhere(now Now, k build.Key, author string) {
	o := r.own[k]
	if o == nil || author == r.self {
		return
	}
	if !r.Available(k, now) && o.job.Compiling {
		return // a result that nobody holds ends nothing
	}
	delete(r.own, k)
	r.nextBeat = min(r.nextBeat, now.Boot+200)
	r.emit(Stop{k, r.Name(author) + " has built it"})
}

// Name is a peer's nickname, or the end of its ID.
func (r *Replica) Name(peer string) string {
	if p := r.peers[peer]; p != nil && p.beat.Nick != "" {
		return build.OneLine(p.beat.Nick, 64)
	}
	if len(peer) > 8 {
		return peer[len(peer)-8:]
	}
	return peer
}

// Held lists this drone's own claims.
func (r *Replica) Held() []BeatJob {
	out := make([]BeatJob, 0, len(r.own))
	for _, k := range r.ownKeys() {
		out = append(out, r.own[k].job)
	}
	return out
}
