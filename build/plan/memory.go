package plan

import (
	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Memory notices drones that do not take what the plan gives them: for reasons
// that others cannot see, or because they see another board. Whoever has not
// claimed within two Beats is passed over for that job for ten. It is the
// observer's own judgement and is told to nobody.
type Memory struct {
	given map[build.Key]given
	pass  map[build.Key]map[string]int64 // until, boot milliseconds
}

type given struct {
	peer  string
	since int64
}

// NewMemory is empty.
func NewMemory() *Memory {
	return &Memory{given: map[build.Key]given{}, pass: map[build.Key]map[string]int64{}}
}

// Note takes in the assignments of one call of Next at a boot time in
// milliseconds. Only those that could start at once count.
func (m *Memory) Note(all []Assignment, peers []claims.Peer, boot int64) {
	seen := make(map[build.Key]bool, len(all))
	for _, a := range all {
		if a.Start > 0 {
			continue
		}
		seen[a.Key] = true
		g, ok := m.given[a.Key]
		if !ok || g.peer != a.Peer {
			m.given[a.Key] = given{a.Peer, boot}
			continue
		}
		period := periodOf(peers, a.Peer)
		if boot-g.since < 2*period {
			continue
		}
		if m.pass[a.Key] == nil {
			m.pass[a.Key] = map[string]int64{}
		}
		m.pass[a.Key][a.Peer] = boot + passBeats*period
		delete(m.given, a.Key)
	}
	for k := range m.given {
		if !seen[k] {
			delete(m.given, k)
		}
	}
	for k, ps := range m.pass {
		for p, until := range ps {
			if until <= boot {
				delete(ps, p)
			}
		}
		if len(ps) == 0 {
			delete(m.pass, k)
		}
	}
}

// Scarred reports whether anybody is passed over for a job now.
func (m *Memory) Scarred(k build.Key) bool { return len(m.pass[k]) > 0 }

// Passed reports whether a drone is passed over for a job now.
func (m *Memory) Passed(k build.Key, peer string) bool {
	_, ok := m.pass[k][peer]
	return ok
}

func periodOf(peers []claims.Peer, id string) int64 {
	for i := range peers {
		if peers[i].ID == id && peers[i].Beat.PeriodMS > 0 {
			return peers[i].Beat.PeriodMS
		}
	}
	return claims.BeatMillis
}
