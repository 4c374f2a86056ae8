package plan

import (
	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Memory notices jobs that nobody takes though the plan gives them to drones
// that are free: for reasons that others cannot see, or because they see
// another board. When that has gone on for two Beats, the other free drones
// are passed over for that job for ten, all at once: one after another would
// take two Beats for each that is deaf. So whoever looks first takes it, and
// drones look at different times. It is the observer's own judgement and is
// told to nobody.
type Memory struct {
	since map[build.Key]int64 // free drones were given it and did not take it
	until map[build.Key]int64 // boot milliseconds until which they are passed over
	idle  map[string]bool     // the other drones with a free slot
}

// NewMemory is empty.
func NewMemory() *Memory {
	return &Memory{since: map[build.Key]int64{}, until: map[build.Key]int64{}, idle: map[string]bool{}}
}

// Note takes in the assignments of one call of Next at a boot time in
// milliseconds. Only those to others that could start at once count.
func (m *Memory) Note(all []Assignment, peers []claims.Peer, boot int64) {
	if len(all) == 0 && len(m.since) == 0 && len(m.until) == 0 {
		return
	}
	self := ""
	clear(m.idle)
	for i := range peers {
		switch p := &peers[i]; {
		case p.Self:
			self = p.ID
		case len(p.Beat.Jobs) < p.Beat.Slots:
			m.idle[p.ID] = true
		}
	}
	seen := make(map[build.Key]bool, len(all))
	for _, a := range all {
		if a.Start > 0 || a.Peer == self {
			continue
		}
		seen[a.Key] = true
		since, ok := m.since[a.Key]
		if !ok {
			m.since[a.Key] = boot
			continue
		}
		if period := periodOf(peers, a.Peer); boot-since >= 2*period {
			m.until[a.Key] = boot + passBeats*period
		}
	}
	for k := range m.since {
		if !seen[k] {
			delete(m.since, k)
		}
	}
	for k, until := range m.until {
		if until <= boot {
			delete(m.until, k)
		}
	}
}

// Scarred reports whether anybody is passed over for a job now.
func (m *Memory) Scarred(k build.Key) bool {
	_, ok := m.until[k]
	return ok
}

// Passed reports whether a drone is passed over for a job now.
func (m *Memory) Passed(k build.Key, peer string) bool { return m.Scarred(k) && m.idle[peer] }

// periodOf is how often a peer speaks. One that has nothing to do as far as it
// knows speaks seldom; it is not waited for longer because of that.
func periodOf(peers []claims.Peer, id string) int64 {
	for i := range peers {
		if peers[i].ID == id && peers[i].Beat.PeriodMS > 0 {
			return min(peers[i].Beat.PeriodMS, claims.WorkPeriod(len(peers)))
		}
	}
	return claims.BeatMillis
}
