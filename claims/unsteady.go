package claims

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/hlc"
)

// A drone that fails what it touches would fail the whole queue, and quickly (a
// "black hole"): a broken compiler ends each build in seconds. So after some
// failures in a row a drone holds back, for longer each time, and comes back by
// one small job. That is derived from the outcomes, so that every peer knows of
// it and a restart forgets nothing.
const (
	TrialAfter  = 3         // failures in a row
	trialFirst  = 60_000    // milliseconds of the first pause; doubles
	trialMost   = 1_800_000 // of the longest
	trialLooked = 64        // outcomes that are looked at
)

// ended is one outcome of a drone.
type ended struct {
	key   build.Key
	class build.Class
	stamp hlc.Time
}

// noteEnded keeps the newest outcomes of a drone, as many as Trial looks at, in
// the order in which they were written.
func (r *Replica) noteEnded(author string, o build.Outcome, stamp hlc.Time) {
	list := r.endings[author]
	e := ended{o.Key, o.Class, stamp}
	at, _ := slices.BinarySearchFunc(list, e, func(a, b ended) int { return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.key, b.key)) })
	if len(list) < trialLooked {
		r.endings[author] = slices.Insert(list, at, e)
		return
	}
	if at > 0 { // else it is older than all of them
		copy(list, list[1:at])
		list[at-1] = e
	}
}

// Trial says how a drone stands that fails others' successes.
type Trial struct {
	Failures int    // in a row, of those that count against the drone
	WaitMS   int64  // until it may take a small job; 0 = now
	Reason   string // of the newest of them
}

// Held reports whether the drone takes nothing but a small job when it may.
func (t Trial) Held() bool { return t.Failures >= TrialAfter }

// Trial counts a drone's newest failures up to its last success. What failed on
// another drone, too, and was built by none is the package's fault; so is what
// fails where no other drone could try. A person who unblocks everything forgives
// the drones as well.
func (r *Replica) Trial(peer string, now Now) Trial {
	var t Trial
	var last hlc.Time
	var forgiven hlc.Time
	if d, on := r.idx.order(VerbUnblock, ScopeAll); on {
		forgiven = d.stamp
	}
	list := r.endings[peer]
	for i := len(list) - 1; i >= 0; i-- {
		e := list[i]
		if e.class == build.Good || e.stamp < forgiven {
			break
		}
		if e.class == build.Cancelled || e.class == build.BadPackage && r.packagesFault(peer, e.key, now) {
			continue
		}
		if t.Failures++; t.Failures == 1 {
			t.Reason = r.reasonOf(peer, e.key, e.stamp)
		}
		last = max(last, e.stamp)
	}
	if !t.Held() {
		return t
	}
	pause := min(int64(trialMost), trialFirst<<min(t.Failures-TrialAfter, 10))
	t.WaitMS = min(pause, max(0, last.Millis()+pause-now.Wall))
	return t
}

// reasonOf is why a build of a key by a peer failed, as it said at a time.
func (r *Replica) reasonOf(peer string, k build.Key, stamp hlc.Time) string {
	for _, o := range r.idx.results[k] {
		if o.Peer == peer && o.Stamp == stamp {
			return o.Reason
		}
	}
	return ""
}

// packagesFault reports whether a failure is the package's by all that is known.
func (r *Replica) packagesFault(peer string, k build.Key, now Now) bool {
	others := false
	for _, o := range r.idx.results[k] {
		switch {
		case o.Peer == peer:
		case o.Class == build.Good:
			return false
		case o.Class == build.BadPackage:
			others = true
		}
	}
	if others {
		return true
	}
	for id, p := range r.peers {
		if id != peer && p.beat.Slots > 0 && r.live(id, now) {
			return false // it may yet succeed
		}
	}
	return true
}
