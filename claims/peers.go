package claims

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// peerState is what this peer heard of another.
type peerState struct {
	id     string
	hash   uint64
	beat   Beat
	rec    wire.Opened
	heard  int64    // boot at which the newest Beat arrived
	taken  hlc.Time // stamp of the newest Beat that was believed
	ahead  int64    // its clock against ours at its newest Beat, ms
	refuse bool     // its stamps are refused as future
	banned bool     // what it says is ignored
	// wasLive is what the index was last told.
	wasLive bool
}

// Peer is one peer as this replica sees it.
type Peer struct {
	ID      string
	Beat    Beat
	Stamp   hlc.Time
	AgeMS   int64 // since the newest Beat arrived
	Live    bool  // its lease runs
	Self    bool
	AheadMS int64 // its wall clock against ours
}

// onBeat takes in a Beat: only one newer than the last restarts a lease, so a
// replayed one does nothing.
func (r *Replica) onBeat(now Now, from string, o wire.Opened, body Body, err error) {
	stamp := hlc.Time(o.Stamp())
	beat, ok := body.(Beat)
	if err != nil || !ok {
		r.Refused.Invalid++
		return
	}
	if o.Author() == r.self {
		r.ownBeat(now, stamp, beat)
		return
	}
	if r.idx.banned(o.Author(), stamp) {
		r.Refused.Banned++
		return
	}
	p := r.peers[o.Author()]
	if p == nil {
		p = r.meet(o.Author())
	}
	ahead, newest := stamp.Millis()-now.Wall, hlc.Time(p.rec.Stamp())
	if p.refuse && ahead <= hlc.MaxAheadMillis {
		newest = p.taken // its clock was ahead and has been set right: it speaks again under stamps before those
	}
	if newest >= stamp {
		return
	}
	refused := p.refuse
	p.ahead, p.refuse = ahead, ahead > hlc.MaxAheadMillis
	if refused || p.refuse || r.clockBehind != 0 {
		r.judgeClock()
	}
	if p.refuse {
		// Kept for the count of clocks, not for its word.
		r.setBeat(p, Beat{Nick: beat.Nick, PeriodMS: beat.PeriodMS, Instance: beat.Instance}, o, now)
		r.Refused.Future++
		return
	}
	p.taken = stamp
	_ = r.clock.Observe(stamp, now.Wall) // within the bound, checked above
	r.unwind(now)
	if p.beat.Instance == 0 || beatChanged(p.beat, beat) || len(p.beat.Jobs) != len(beat.Jobs) {
		r.emit(Changed{})
	}
	if p.beat.Instance == 0 {
		r.nextBeat = min(r.nextBeat, now.Boot+200) // let a newcomer see us soon
	}
	if p.beat.Slots != beat.Slots || !slices.Equal(p.beat.Builders, beat.Builders) {
		r.fitChanged = true
	}
	r.setBeat(p, beat, o, now)
	for _, j := range beat.Jobs {
		r.rival(now, o.Author(), j)
	}
	if beat.Quiet && from == o.Author() {
		r.emit(Publish{o}) // it is not on the gossip: whom it tells passes it on
	}
	if beat.Digest != r.board.digest() && !beat.Quiet { // a quiet peer compares when it wakes up anyway
		r.differs(now, o.Author())
	}
}

// setBeat replaces a peer's newest Beat.
func (r *Replica) setBeat(p *peerState, b Beat, o wire.Opened, now Now) {
	for _, j := range p.beat.Jobs {
		if j.Compiling {
			if r.compiling[j.Key]--; r.compiling[j.Key] == 0 {
				delete(r.compiling, j.Key)
			}
		}
	}
	for _, j := range b.Jobs {
		if j.Compiling {
			r.compiling[j.Key]++
		}
	}
	p.beat, p.rec, p.heard = b, o, now.Boot
	if !p.wasLive || p.refuse || b.Leaving {
		r.judgeAt = now.Boot
	}
	r.judgeAt = min(r.judgeAt, p.heard+r.lease(p)+1)
}

// ownBeat notices a second process with this identity: its Beats are newer
// than the start of this one. An echo of an earlier life is not, since a peer
// starts above every stamp that it ever made (Mark).
func (r *Replica) ownBeat(now Now, stamp hlc.Time, beat Beat) {
	if beat.Instance == r.cfg.Instance || stamp <= max(r.startHLC, r.twinStamp) {
		return
	}
	r.twinStamp = stamp
	_ = r.clock.Observe(stamp, now.Wall) // its records and ours have one author: ours must stay the newer ones
	if beat.Leaving {
		r.twinUntil = now.Boot
		return
	}
	r.noteTwin(now, LeasePeriods*beat.PeriodMS, fmt.Sprintf("as %q ", build.OneLine(beat.Nick, 64)))
}

// noteTwin stops this peer from claiming for a while: another process has its
// identity. It is called again for as long as the other is there.
func (r *Replica) noteTwin(now Now, holds int64, as string) {
	r.twinUntil = max(r.twinUntil, now.Boot+holds)
	if r.cloned {
		return
	}
	r.cloned = true
	r.emit(Alarm{"cloned", "this identity also runs " + as + "on another machine; on one of them run: swarm init --new-identity"})
	r.emit(Changed{})
	for _, k := range r.ownKeys() {
		if !r.own[k].job.Compiling {
			r.giveBack(now, k, "this identity also runs elsewhere")
			r.emit(Stop{k, "this identity also runs elsewhere"})
		}
	}
}

// judgeClock: when most peers look too far ahead, the fault is this clock's.
func (r *Replica) judgeClock() {
	var ahead []int64
	n := 0
	for _, p := range r.peers {
		n++
		if p.refuse {
			ahead = append(ahead, p.ahead)
		}
	}
	behind := int64(0)
	if len(ahead)*2 > n {
		slices.Sort(ahead)
		behind = ahead[len(ahead)/2]
	}
	if behind != 0 && r.clockBehind == 0 {
		r.emit(Alarm{"clock", fmt.Sprintf("this machine's clock is %d s behind most peers; it claims and publishes nothing until it is set", behind/1000)})
	}
	r.clockBehind = behind
}

// unwind follows a wall clock that was ahead and was set right: until now the
// stamps of this peer were ahead, too, and everybody refused them. That the
// clock is right now is the word of most peers, whose Beats it agrees with. What
// this peer said meanwhile is said anew, under stamps that others take.
func (r *Replica) unwind(now Now) {
	limit := hlc.New(now.Wall + hlc.MaxAheadMillis)
	if r.clock.Last() <= limit {
		return
	}
	agree, others := 0, 0
	for _, p := range r.peers {
		if p.id == r.self || !r.alive(p, now) && !p.refuse {
			continue
		}
		others++
		if p.ahead <= hlc.MaxAheadMillis && p.ahead >= -hlc.MaxAheadMillis {
			agree++
		}
	}
	if agree*2 <= others {
		return
	}
	r.clock.Unwind(hlc.New(now.Wall))
	r.mark = 0
	var again []Body
	for _, e := range r.board.all() {
		if stamp := hlc.Time(e.rec.Stamp()); e.rec.Author() != r.self || stamp <= limit {
			r.clock.Restore(min(stamp, limit))
			continue
		}
		r.board.remove(e.rec.Key())
		r.idx.dropped = append(r.idx.dropped, e.rec.Key())
		if e.body != nil {
			again = append(again, e.body)
		}
	}
	r.reindex()
	for _, b := range again {
		if c, ok := b.(Claim); ok {
			c.Stamp = r.clock.Now(now.Wall)
			if o := r.own[c.Key]; o != nil {
				o.claim.Stamp = c.Stamp
			}
			b = c
		}
		r.post(now, b)
	}
	r.persist(nil)
	r.emit(Alarm{"clock", "this machine's clock was ahead of the other peers' and is right again; what it said meanwhile is said anew"})
	r.nextBeat = now.Boot
}

// beat publishes a new Beat of this peer.
func (r *Replica) beat(now Now) {
	r.noteWork(now)
	b := r.report
	b.Instance = r.cfg.Instance
	b.PeriodMS = r.period()
	b.Leaving = r.leaving
	b.Digest = r.board.digest()
	b.Jobs = nil
	for _, k := range r.ownKeys() {
		b.Jobs = append(b.Jobs, r.own[k].job)
	}
	ok, why := r.MayClaim()
	if !ok && b.Accepting {
		b.Accepting, b.Why = false, why
	}
	r.toldMay = ok
	r.nextBeat = now.Boot + b.PeriodMS
	if b.Quiet { // at a whole minute, as all that a quiet peer does: it wakes its machine once
		r.nextBeat -= now.Wall % QuietMillis
	}
	o, err := r.seal(now, b)
	if err != nil {
		r.emit(Alarm{"beat", "a Beat could not be written: " + err.Error()})
		return
	}
	me := r.peers[r.self]
	if me == nil {
		me = r.meet(r.self)
	}
	if beatChanged(me.beat, b) {
		// Gossip may lose it, and an idle peer would be misread for a minute: so
		// neighbours are told straight, and all others a second time.
		r.nextBeat = now.Boot + min(b.PeriodMS, WorkPeriod(len(r.peers)))
		for _, id := range slices.Sorted(maps.Keys(r.connected)) {
			r.sendRecords(id, [][]byte{o.Raw()}, false)
		}
	}
	r.setBeat(me, b, o, now)
	r.emit(Publish{o})
	if b.Quiet {
		r.sync.next = now.Boot // nobody hears it otherwise
	}
}

// period of this peer's Beats: max(5 s, N x 50 ms) while building, or willing
// and there is something to build.
func (r *Replica) period() int64 {
	if r.cloned {
		return WorkPeriod(len(r.peers)) // so that the other hears soon whether both are still there
	}
	if len(r.own) == 0 && !(r.report.Accepting && r.report.Slots > 0 && r.working) {
		return IdleBeatMillis
	}
	return WorkPeriod(len(r.peers))
}

// WorkPeriod is how often the drones of a swarm of so many peers speak while
// there is work, in milliseconds.
func WorkPeriod(peers int) int64 { return max(BeatMillis, int64(peers)*beatPerPeer) }

// noteWork follows whether there is anything to build. When work appears, every
// willing peer speaks within one working period and then at that period. So one
// that died while all were idle is missed as soon as any other: its lease counts
// from here as if it had spoken now at the shorter period. Were all to speak at
// once, the claim of that work would wait behind their Beats: with fifty peers
// they are most of what a link then carries.
func (r *Replica) noteWork(now Now) {
	was := r.working
	r.working = r.idx.undone > 0
	if was || !r.working {
		return
	}
	short := WorkPeriod(len(r.peers))
	r.nextBeat = min(r.nextBeat, now.Boot+r.cfg.Rand.Int64N(short))
	for id, p := range r.peers {
		if id == r.self || !r.alive(p, now) || !p.beat.Accepting || p.beat.Slots == 0 || p.beat.PeriodMS <= short {
			continue
		}
		p.heard, p.beat.PeriodMS = now.Boot, short
		r.judgeAt = min(r.judgeAt, p.heard+r.lease(p)+1)
	}
}

// beatChanged reports whether others should hear of a report before the next
// Beat is due: coarse figures only, or every sample would be a Beat.
func beatChanged(a, b Beat) bool {
	return a.Accepting != b.Accepting || a.Slots != b.Slots || a.Nick != b.Nick ||
		a.Stores != b.Stores || a.Quiet != b.Quiet || a.Why != b.Why || !slices.Equal(a.Builders, b.Builders) || !slices.Equal(a.Heads, b.Heads)
}

// lease is how long a Beat of p holds after it was heard.
func (p *peerState) lease() int64 {
	if p.beat.PeriodMS == 0 {
		return LeasePeriods * BeatMillis
	}
	return LeasePeriods * p.beat.PeriodMS
}

// lease is how long a Beat holds here. A peer that is quiet hears Beats by the
// exchange alone, some of them a while after the others heard them.
func (r *Replica) lease(p *peerState) int64 {
	if r.report.Quiet {
		return p.lease() + quietHears*QuietMillis
	}
	return p.lease()
}

// live reports whether a peer's lease runs.
func (r *Replica) live(peer string, now Now) bool {
	if peer == r.self {
		return !r.leaving
	}
	p := r.peers[peer]
	return p != nil && r.alive(p, now)
}

func (r *Replica) alive(p *peerState, now Now) bool {
	if p.id == r.self {
		return !r.leaving
	}
	return !p.refuse && !p.banned && !p.beat.Leaving && now.Boot-p.heard <= r.lease(p)
}

// meet makes the state of a peer that was never heard of.
func (r *Replica) meet(id string) *peerState {
	_, banned := r.idx.order(VerbBan, id)
	p := &peerState{id: id, hash: Rendezvous("", id), banned: banned}
	r.peers[id] = p
	at, _ := slices.BinarySearchFunc(r.byID, id, func(p *peerState, id string) int { return cmp.Compare(p.id, id) })
	r.byID = slices.Insert(r.byID, at, p)
	return p
}

// expected reports whether a peer that is not live is expected back.
func (r *Replica) expected(peer string, now Now) bool {
	p := r.peers[peer]
	return p != nil && !p.banned && now.Boot-p.heard <= AwayMillis
}

// Peers lists this peer and all it ever heard of, sorted by ID.
func (r *Replica) Peers(now Now) []Peer { return r.AppendPeers(make([]Peer, 0, len(r.peers)), now) }

// AppendPeers is Peers into a slice that the caller reuses.
func (r *Replica) AppendPeers(out []Peer, now Now) []Peer {
	for _, p := range r.byID {
		id, beat := p.id, p.beat
		if id == r.self {
			// Of itself a peer knows more than it last said.
			beat.Jobs, beat.Accepting, beat.Why = r.Held(), r.report.Accepting, r.report.Why
			beat.Roots, beat.InstallMS = r.report.Roots, r.report.InstallMS
		}
		if len(r.idx.orders) > 0 && beat.Accepting {
			// Or the others would wait for it to take what it may not take.
			if why, paused := r.Paused(id); paused {
				beat.Accepting, beat.Why = false, why
			}
		}
		out = append(out, Peer{ID: id, Beat: beat, Stamp: hlc.Time(p.rec.Stamp()), AgeMS: now.Boot - p.heard,
			Live: r.alive(p, now), Self: id == r.self, AheadMS: p.ahead})
	}
	return out
}

// beats returns the newest Beat of every peer, encoded, for one that just connected.
func (r *Replica) beats() [][]byte {
	var out [][]byte
	for _, p := range r.byID {
		if !p.refuse && !p.banned && !p.rec.IsZero() {
			out = append(out, p.rec.Raw())
		}
	}
	return out
}

// leave gives everything back and says so: others take over at once.
func (r *Replica) leave(now Now) {
	for _, k := range r.ownKeys() {
		r.giveBack(now, k, "the peer stopped")
	}
	r.leaving = true
	r.beat(now)
}
