package claimstest

import (
	"slices"

	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
)

// In a swarm of 1,000, each job that becomes free makes every idle drone look for
// it, and all but one in vain. A look costs a millisecond, and so a round half an
// hour. What is here saves looks whose end is certain, by what no drone knows: as
// nothingFree does, but for jobs of which some have not heard that they are taken.

// mostFree is up to how many free jobs it is worth while to think about.
const mostFree = 64

// large reports whether a world has more nodes than are all connected.
func (w *World) large() bool { return len(w.Nodes) > mostConnected }

// beatPeriod is how often its drones speak while they work.
func (w *World) beatPeriod() int64 {
	if !w.large() {
		return claims.BeatMillis
	}
	return claims.WorkPeriod(len(w.Nodes))
}

// claimedBy notes who hears of a job's newest claim, and when.
func (s *Spec) claimedBy(w *World, reached map[*Node]bool, last int64) {
	s.most, s.heard, s.deaf = last+1, last+1, s.deaf[:0]
	if len(reached) == len(w.Nodes) {
		return
	}
	s.heard = w.now + heldLong + 1
	for _, n := range w.Nodes {
		if !reached[n] {
			s.deaf = append(s.deaf, n)
		}
	}
}

// free reports whether a node may think that nobody holds the job.
func (s *Spec) free(n *Node, now int64) bool {
	return !s.held || now < s.most || now < s.heard && slices.Contains(s.deaf, n)
}

// inVain reports whether the schedule gives a drone nothing, in whatever view: of
// each job that may be free there are better drones, known to all as idle, for
// every such job. Not so when a job waits for so long that drones are passed over.
func (w *World) inVain(d *drone) bool {
	if w.net.disturbed || w.Affinity || w.Roots {
		return false
	}
	var free []*Spec
	for s := range w.open {
		if !s.free(d.n, w.now) {
			continue
		}
		if free = append(free, s); len(free) > mostFree || w.now-s.opened > 2*w.beatPeriod() && w.now-makespanRound > 2*w.beatPeriod() {
			return false
		}
	}
	for _, s := range free {
		better := 0
		for _, o := range w.Nodes {
			if o == d.n || o.drone.speed < d.speed || !o.drone.rested(w) {
				continue
			}
			if o.drone.speed > d.speed || plan.Prefers(s.Job.Key, o.ID, d.n.ID) {
				if better++; better == len(free) {
					break
				}
			}
		}
		if better < len(free) {
			return false
		}
	}
	return true
}

// rested reports whether all know that a drone is idle: it has said so in a Beat
// since it became so.
func (d *drone) rested(w *World) bool {
	return d.n.Up() && len(d.running) == 0 && w.now-d.idle > w.beatPeriod()+claims.BeatMillis
}
