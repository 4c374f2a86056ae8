package claims

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// The schedule asks again and again which jobs could be claimed, and a round
// may have 20,000. So what each key waits for is kept up to date change by
// change: a record touches the keys it is about and those that wait for them,
// never the whole board. What time alone changes (a lease that ends, a holder
// that is not expected any more, a background round that ages) is looked at by
// settle, once a step, peer by peer.

// RiseMillis is after how long a background round counts as normal.
const RiseMillis = 6 * 3_600_000

// cutOffMillis is for how long after their leases peers that fell silent
// together may be cut off rather than gone. It is longer than nearly every
// build, so that grace decides by what each build is worth.
const cutOffMillis = 4 * 3_600_000

// recheckMillis is how often keys whose state depends on the clock alone are
// looked at.
const recheckMillis = 5_000

// keyState is one build key: a job of some plan, or an artifact that a root
// names.
type keyState struct {
	key    build.Key
	hash   uint64
	job    *build.Job // nil while no known plan lists it
	from   string     // ID of the round whose job it is: of the open ones that list it the newest, else of all
	target string
	ground Ground       // what that round was planned on
	rounds []string     // IDs of rounds that list it, sorted
	jobs   []*build.Job // as each of them lists it

	deps, users []*keyState // by Job.Before

	prio   build.Priority
	wanted bool // an open round lists it
	work   int64
	rank   int64

	claim *entry // on the board, or nil

	avail   bool // a live peer holds its artifact
	away    bool // built; its holders are expected back
	failed  bool // blocked by its own failures
	missing int  // deps that are not available
	blocked int  // deps that are failed or blocked
	listed  bool // stands in index.ready
	undone  bool // is counted in index.undone
}

// toDo reports whether the job can still come to be built.
func (k *keyState) toDo() bool {
	return k.job != nil && k.wanted && !k.avail && !k.away && !k.failed && k.blocked == 0
}

// candidate reports whether the job could be claimed if nobody holds it.
func (k *keyState) candidate() bool {
	return k.missing == 0 && k.toDo()
}

// stuck reports whether what waits for a key waits in vain: it failed, or waits
// in vain itself, and was not built before all that.
func (k *keyState) stuck() bool {
	return !k.avail && !k.away && (k.failed || k.blocked > 0)
}

// Candidate is a job that could be claimed, in the order of the schedule.
type Candidate struct {
	Job      *build.Job
	For      *build.Target // what it is built for, as the board has it; nil = it says nothing
	Priority build.Priority
	Rank     int64 // upward rank in core-milliseconds
	Work     int64 // estimate in core-milliseconds
	// MemoryMiB and DiskMiB are what the build is expected to want; 0 = unknown.
	MemoryMiB, DiskMiB int64
	// Scarred says that some drone declined or failed it: ask before giving it.
	Scarred bool
}

func before(a, b *keyState) int {
	return cmp.Or(cmp.Compare(a.prio, b.prio), cmp.Compare(b.rank, a.rank), cmp.Compare(a.key, b.key))
}

// state returns the state of a key, made if need be.
func (x *index) state(k build.Key) *keyState {
	ks := x.keys[k]
	if ks == nil {
		ks = &keyState{key: k, hash: Rendezvous(string(k), "")}
		x.keys[k] = ks
	}
	return ks
}

// unlink takes a job off what it waits for.
func (x *index) unlink(ks *keyState) {
	was := ks.stuck()
	for _, d := range ks.deps {
		if n := slices.Index(d.users, ks); n >= 0 {
			d.users = slices.Delete(d.users, n, n+1)
		}
	}
	ks.deps, ks.missing, ks.blocked = nil, 0, 0
	if was {
		for _, u := range ks.users {
			x.addBlocked(u, -1)
		}
	}
}

// link connects a job that just became known with what it waits for.
func (x *index) link(ks *keyState) {
	for _, d := range ks.job.Before() {
		dep := x.state(d)
		ks.deps = append(ks.deps, dep)
		dep.users = append(dep.users, ks)
		if !dep.avail {
			ks.missing++
		}
		if dep.stuck() {
			ks.blocked++
		}
	}
	if ks.stuck() {
		for _, u := range ks.users {
			x.addBlocked(u, 1)
		}
	}
}

// relist puts a key among the candidates or takes it out, as it is now.
func (x *index) relist(ks *keyState) {
	x.count(ks)
	want := ks.candidate()
	if want == ks.listed || x.unsorted {
		return // or the whole list is made anew anyway
	}
	n, found := slices.BinarySearchFunc(x.ready, ks, before)
	switch {
	case want && !found:
		x.ready = slices.Insert(x.ready, n, ks)
	case !want && found:
		x.ready = slices.Delete(x.ready, n, n+1)
	}
	ks.listed = want
}

// count keeps index.undone.
func (x *index) count(ks *keyState) {
	if is := ks.toDo(); is != ks.undone {
		if ks.undone = is; is {
			x.undone++
		} else {
			x.undone--
		}
	}
}

// setAvail notes whether an artifact can be fetched, and tells its users.
func (x *index) setAvail(ks *keyState, avail, away bool) {
	was := ks.stuck()
	ks.away = away
	if away {
		x.awayKeys[ks.key] = ks
	} else {
		delete(x.awayKeys, ks.key)
	}
	if ks.avail != avail {
		ks.avail = avail
		for _, u := range ks.users {
			if avail {
				u.missing--
			} else {
				u.missing++
			}
			x.relist(u)
		}
	}
	x.tellStuck(ks, was)
	x.relist(ks)
}

// tellStuck tells what waits for a key that it became stuck, or is not any more.
func (x *index) tellStuck(ks *keyState, was bool) {
	is := ks.stuck()
	if is == was {
		return
	}
	n := 1
	if !is {
		n = -1
	}
	for _, u := range ks.users {
		x.addBlocked(u, n)
	}
}

// setFailed notes whether a job is blocked by its own failures, and tells what
// waits for it, to the end.
func (x *index) setFailed(ks *keyState, failed bool) {
	if ks.failed == failed {
		return
	}
	was := ks.stuck()
	ks.failed = failed
	x.tellStuck(ks, was)
	x.relist(ks)
}

func (x *index) addBlocked(ks *keyState, n int) {
	was := ks.stuck()
	ks.blocked += n
	x.tellStuck(ks, was)
	x.relist(ks)
}

// settle brings up to date what depends on the time: who is live, which rounds
// are open and how urgent, which keys are away or failed.
func (r *Replica) settle(now Now) {
	x := r.idx
	changed := now.Boot >= r.judgeAt && r.judgeLeases(now)
	if changed {
		r.emit(Changed{})
	}
	if changed || r.fitChanged {
		// A package that failed where it fits is blocked until others fit.
		r.fitChanged = false
		for k := range x.failing {
			x.touched[k] = true
		}
	}
	for k := range x.touched {
		r.refresh(k, now)
	}
	if now.Boot >= x.recheckAt {
		x.recheckAt = now.Boot + recheckMillis
		for k := range x.awayKeys {
			r.refresh(k, now)
		}
		x.rewant = x.rewant || x.relearn
	}
	clear(x.touched)
	if x.rewant || x.riseAt > 0 && now.Wall >= x.riseAt {
		r.rewant(now)
	}
	if x.unsorted {
		x.resort()
	}
}

// judgeLeases notes who is live now, reports whether that changed, and sets
// when the next lease may end: a step looks at no peer before that.
func (r *Replica) judgeLeases(now Now) (changed bool) {
	r.judgeAt = now.Boot + IdleBeatMillis
	known, silent := 0, 0
	for id, p := range r.peers {
		live := r.live(id, now)
		if live != p.wasLive {
			p.wasLive, changed = live, true
			r.idx.touchPeer(id)
		}
		if live && id != r.self {
			r.judgeAt = min(r.judgeAt, p.heard+r.lease(p)+1)
		}
		switch {
		case live:
			known++
		case !p.refuse && !p.beat.Leaving && now.Boot-p.heard <= r.lease(p)+cutOffMillis:
			known++
			silent++
		}
	}
	r.cutOff = silent >= 2 && silent*3 > known
	return changed
}

// refresh derives one key's availability and failures anew.
func (r *Replica) refresh(k build.Key, now Now) {
	ks := r.idx.state(k)
	good, copies := r.Good(k, now)
	r.idx.setAvail(ks, copies > 0, good != nil && copies == 0)
	if ks.job != nil {
		// What was built blocks nothing, though it failed somewhere else.
		_, failed := r.failed(ks, now)
		r.idx.setFailed(ks, failed && good == nil)
	}
}

// rewant derives for every job whether it is wanted, and how urgently, and the
// ranks that follow.
func (r *Replica) rewant(now Now) {
	x := r.idx
	x.rewant, x.relearn, x.riseAt = false, false, 0
	x.unsorted = true
	open := map[string]build.Priority{}
	for id := range x.rounds {
		if rd, ok := r.open(id); ok {
			open[id] = r.urgency(rd, now)
		}
	}
	for _, ks := range x.keys {
		ks.wanted, ks.prio = false, build.Background
		best := -1
		for n, id := range ks.rounds {
			p, isOpen := open[id]
			if isOpen && !ks.wanted {
				best = -1 // a round that is over says nothing beside one that is open
			}
			if isOpen {
				ks.wanted, ks.prio = true, min(ks.prio, p)
			}
			if isOpen == ks.wanted && (best < 0 || newer(x.rounds[id], x.rounds[ks.rounds[best]])) {
				best = n
			}
		}
		if best >= 0 && ks.from != ks.rounds[best] {
			x.adopt(ks, x.rounds[ks.rounds[best]], ks.jobs[best])
			r.refresh(ks.key, now)
		}
		if ks.wanted && len(x.orders) > 0 {
			if _, bumped := x.order(VerbBump, string(ks.key)); bumped {
				ks.prio = build.WaitedFor
			}
		}
		x.count(ks)
	}
	// What a job waits for is as urgent as the job.
	for _, ks := range x.keys {
		if ks.wanted && ks.prio < build.Background {
			x.hurry(ks)
		}
	}
	x.rankAll()
	r.noteWork(now)
}

// hurry gives a job's priority to all that it waits for.
func (x *index) hurry(ks *keyState) {
	for _, d := range ks.deps {
		if d.wanted && d.prio > ks.prio {
			d.prio = ks.prio
			x.hurry(d)
		}
	}
}

// urgency of an open round now: as asked, bumped, or risen by waiting.
func (r *Replica) urgency(rd build.Round, now Now) build.Priority {
	if _, bumped := r.idx.order(VerbBump, rd.ID); bumped {
		return build.WaitedFor
	}
	if rd.Priority == build.Background {
		rises := hlc.Time(rd.Created).Millis() + RiseMillis
		if now.Wall >= rises {
			return build.Normal
		}
		if r.idx.riseAt == 0 || rises < r.idx.riseAt {
			r.idx.riseAt = rises
		}
	}
	return rd.Priority
}

// rankAll computes upward ranks: a job's own work and the longest chain of work
// behind it, over the wanted jobs.
func (x *index) rankAll() {
	for _, ks := range x.keys {
		ks.rank = -1
	}
	for _, ks := range x.keys {
		x.rankOf(ks)
	}
}

func (x *index) rankOf(ks *keyState) int64 {
	if ks.rank >= 0 {
		return ks.rank
	}
	ks.rank = 0 // a cycle cannot be: plans are validated; two plans together may
	longest := int64(0)
	for _, u := range ks.users {
		if u.wanted && !u.avail {
			longest = max(longest, x.rankOf(u))
		}
	}
	if ks.job != nil {
		ks.work = x.estimate(ks.job)
	}
	ks.rank = longest + ks.work
	return ks.rank
}

func (x *index) resort() {
	x.unsorted = false
	x.ready = x.ready[:0]
	for _, ks := range x.keys {
		ks.listed = ks.candidate()
		if ks.listed {
			x.ready = append(x.ready, ks)
		}
	}
	slices.SortFunc(x.ready, before)
}

// Ready appends up to limit jobs that are free to be claimed now, the most
// urgent first. It allocates nothing where out has room.
func (r *Replica) Ready(out []Candidate, limit int, now Now) []Candidate {
	if !r.cutOff {
		return r.pick(out, limit, now, nil)
	}
	// Both sides of a broken network see the same free jobs and would take the
	// same ones. So each takes first what rendezvous hashing gives to a drone
	// that it hears, and what it gives to the other side only then.
	n := len(out)
	out = r.pick(out, limit, now, func(ks *keyState) bool { return !r.elsewhere(ks, now) })
	return r.pick(out, limit-(len(out)-n), now, func(ks *keyState) bool { return r.elsewhere(ks, now) })
}

// elsewhere reports whether a job's drone, of all that were heard of lately, is
// one that fell silent.
func (r *Replica) elsewhere(ks *keyState, now Now) bool {
	var best uint64
	var whose *peerState
	for _, p := range r.byID {
		if p.beat.Slots == 0 || p.beat.Leaving || p.refuse || p.id != r.self && now.Boot-p.heard > r.lease(p)+cutOffMillis {
			continue
		}
		if w := mix(ks.hash, p.hash); whose == nil || w > best {
			best, whose = w, p
		}
	}
	return whose != nil && !r.alive(whose, now)
}

// mix is the weight of a drone for a job, cheap since it is asked for each pair
// (the finalizer of SplitMix64).
func mix(a, b uint64) uint64 {
	z := a ^ b
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *Replica) pick(out []Candidate, limit int, now Now, which func(*keyState) bool) []Candidate {
	for _, ks := range r.idx.ready {
		if limit <= 0 {
			break
		}
		if which != nil && !which(ks) {
			continue
		}
		if _, held := r.holder(ks, now); held {
			continue
		}
		limit--
		out = append(out, Candidate{Job: ks.job, For: r.builtFor(ks), Priority: ks.prio, Rank: ks.rank, Work: ks.work, MemoryMiB: r.idx.memory(ks.job), DiskMiB: r.idx.disk(ks.job),
			Scarred: len(r.idx.decline[ks.key]) > 0 || len(r.idx.results[ks.key]) > 0})
	}
	return out
}
