package view

import (
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// Detail is the snapshot with what the larger screens show beside it. Events
// and alerts are derived from it, so that they cannot disagree with a screen.
// It shares nothing with the replica and is not changed once made.
type Detail struct {
	Snapshot
	Jobs     []Job    `json:"jobs"`   // of the open rounds, then of the closed ones that are shown; each key once
	Orders   []Order  `json:"orders"` // what people ordered, newest first
	Timeline Timeline `json:"timeline"`
}

// Order is a directive that a person gave.
type Order struct {
	Verb   string `json:"verb"`
	Scope  string `json:"scope"` // as on the board
	Name   string `json:"name"`  // for people
	By     string `json:"by"`    // nickname of the peer that it was given on
	AtMS   int64  `json:"at_unix_ms"`
	Off    bool   `json:"off"` // it lifts what was ordered before
	Reason string `json:"reason"`
}

// maxOrders bounds the list, the newest stay.
const maxOrders = 100

// Look takes the snapshot with everything beside it.
func Look(r *claims.Replica, now claims.Now) *Detail {
	l := take(r, now)
	d := &Detail{Snapshot: l.snapshot(), Jobs: l.jobs(l.infos), Orders: l.orders()}
	seen := make(map[build.Key]bool, len(d.Jobs))
	for i := range d.Jobs {
		seen[d.Jobs[i].Key] = true
	}
	for _, rc := range l.recent {
		for i := range rc.infos {
			if k := rc.infos[i].Job.Key; !seen[k] {
				seen[k] = true
				d.Jobs = append(d.Jobs, l.job(&rc.infos[i], nil))
			}
		}
	}
	d.Timeline = l.timeline()
	return d
}

func (l *look) orders() []Order {
	out := []Order{}
	for _, d := range l.r.Directives() {
		if len(out) == maxOrders {
			break
		}
		out = append(out, Order{Verb: string(d.Verb), Scope: d.Scope, Name: l.scopeName(d.Scope), By: l.r.Name(d.Author), AtMS: d.Stamp.Millis(), Off: d.Off,
			Reason: build.OneLine(d.Reason, 200)})
	}
	return out
}

// scopeName is what people call the scope of a directive.
func (l *look) scopeName(scope string) string {
	if scope == "all" {
		return "everything"
	}
	if j := l.r.Job(build.Key(scope)); j != nil {
		return j.CPV.String()
	}
	if slices.ContainsFunc(l.peers, func(p claims.Peer) bool { return p.ID == scope }) {
		return l.r.Name(scope)
	}
	return build.OneLine(scope, 64)
}
