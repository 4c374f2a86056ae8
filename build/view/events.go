package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
)

// EventKind says what happened. The words are stable.
type EventKind string

const (
	EventStarted  EventKind = "started"  // this peer's daemon began
	EventJoined   EventKind = "joined"   // a peer was heard of for the first time
	EventAway     EventKind = "away"     // a peer fell silent
	EventLeft     EventKind = "left"     // a peer said that it stops
	EventBack     EventKind = "back"     // it is heard of again
	EventHeld     EventKind = "held"     // a drone takes no jobs, for a reason
	EventResumed  EventKind = "resumed"  // it takes jobs again
	EventOpened   EventKind = "opened"   // a round
	EventClosed   EventKind = "closed"   // a round: its result was published, or it was cancelled
	EventBegan    EventKind = "began"    // a build
	EventTaken    EventKind = "taken"    // a build that another drone had
	EventBuilt    EventKind = "built"    // a build ended well
	EventFailed   EventKind = "failed"   // a build did not
	EventBlocked  EventKind = "blocked"  // a package, until somebody mends it
	EventDiffers  EventKind = "differs"  // two builds from equal inputs came out differently
	EventLost     EventKind = "lost"     // an artifact that nobody here holds any more
	EventReleased EventKind = "released" // a channel moved
	EventOrdered  EventKind = "ordered"  // a person gave an order
	EventTrouble  EventKind = "trouble"  // something wants attention
	EventMended   EventKind = "mended"   // and does so no more
	EventMissed   EventKind = "missed"   // more happened at once than is listed
)

// Event is one thing that happened, as one peer saw it.
type Event struct {
	AtMS int64     `json:"at_unix_ms"`
	Kind EventKind `json:"kind"`
	Who  string    `json:"who"`  // nickname of who did it; "" = nobody in particular
	What string    `json:"what"` // package, round, release, peer: what it is about
	Key  build.Key `json:"key"`  // of the job, if it is about one
	Text string    `json:"text"` // one line that says all of it
	Bad  bool      `json:"bad"`  // a person may want to look
}

// MaxEvents bounds what one comparison gives; the last then says how many more
// there were. A peer that was away for a day finds thousands at once.
const MaxEvents = 500

// Events compares two snapshots of one peer and says what happened between
// them, in the order in which it did. With no earlier snapshot nothing did.
// What happened and passed between the two is not seen, but for builds: their
// outcomes say when they began and ended.
func Events(before, after *Detail) []Event {
	if before == nil || after == nil {
		return nil
	}
	e := events{now: after.AtMS, since: before.AtMS}
	e.peers(before, after)
	e.rounds(before, after)
	e.jobs(before, after)
	e.releases(before, after)
	e.orders(before, after)
	e.issues(before, after)
	slices.SortStableFunc(e.list, func(a, b Event) int { return cmp.Compare(a.AtMS, b.AtMS) })
	if n := len(e.list) - MaxEvents; n > 0 {
		e.list = append(e.list[:MaxEvents], Event{AtMS: after.AtMS, Kind: EventMissed, Text: fmt.Sprintf("and %d more events at once", n)})
	}
	return e.list
}

type events struct {
	now, since int64
	list       []Event
}

func (e *events) add(ev Event) {
	if ev.AtMS == 0 || ev.AtMS > e.now {
		ev.AtMS = e.now
	}
	ev.Text = build.OneLine(ev.Text, 400)
	e.list = append(e.list, ev)
}

func here(p *Peer) bool { return p.State != "away" && p.State != "gone" }

func (e *events) peers(before, after *Detail) {
	old := map[string]*Peer{}
	for i := range before.Peers {
		old[before.Peers[i].ID] = &before.Peers[i]
	}
	for i := range after.Peers {
		p := &after.Peers[i]
		q := old[p.ID]
		ev := Event{Who: p.Nick, What: p.Nick}
		switch {
		case q == nil && !p.Self:
			ev.Kind, ev.Text, ev.Bad = EventJoined, fmt.Sprintf("%s joined, for the first time as far as this peer knows (%s)", p.Nick, p.ID), true
			e.add(ev)
		case q == nil:
		case here(q) && p.State == "away":
			ev.Kind, ev.Text, ev.AtMS, ev.Bad = EventAway, fmt.Sprintf("%s fell silent%s", p.Nick, whileDoing(q)), max(e.since, e.now-p.AgeMS), true
			e.add(ev)
		case here(q) && p.State == "gone":
			ev.Kind, ev.Text = EventLeft, p.Nick+" stopped"
			e.add(ev)
		case !here(q) && here(p):
			ev.Kind, ev.Text = EventBack, fmt.Sprintf("%s is back after %s", p.Nick, span(q.AgeMS))
			e.add(ev)
		case q.State != "held" && p.State == "held":
			ev.Kind, ev.Text = EventHeld, fmt.Sprintf("%s takes no jobs: %s", p.Nick, cmp.Or(p.Why, "it does not say why"))
			e.add(ev)
		case q.State == "held" && (p.State == "idle" || p.State == "building"):
			ev.Kind, ev.Text = EventResumed, p.Nick+" takes jobs again"
			e.add(ev)
		}
	}
}

func whileDoing(p *Peer) string {
	if len(p.Doing) == 0 {
		return ""
	}
	return " while it built " + p.Doing[0].CPV
}

func (e *events) rounds(before, after *Detail) {
	old := map[string]*Round{}
	for i := range before.Rounds {
		old[before.Rounds[i].ID] = &before.Rounds[i]
	}
	for i := range after.Rounds {
		rd := &after.Rounds[i]
		was := old[rd.ID]
		if was == nil && (rd.State == string(build.RoundOpen) || rd.CreatedMS >= e.since-hour) {
			// One that is over already began and ended between the two looks.
			e.add(Event{AtMS: rd.CreatedMS, Kind: EventOpened, Who: rd.Requester, What: rd.ID,
				Text: fmt.Sprintf("%s asked for %s: %s (round %s)", rd.Requester, count(rd.Jobs, "job"), cmp.Or(rd.Command, "no command given"), rd.ID)})
			was = &Round{State: string(build.RoundOpen)}
		}
		if was != nil && was.State == string(build.RoundOpen) && rd.State != was.State {
			e.add(Event{Kind: EventClosed, What: rd.ID, Text: fmt.Sprintf("round %s is %s: %d of %d built", rd.ID, rd.State, rd.Done, rd.Jobs)})
		}
	}
}

func (e *events) jobs(before, after *Detail) {
	old := make(map[build.Key]*Job, len(before.Jobs))
	for i := range before.Jobs {
		old[before.Jobs[i].Key] = &before.Jobs[i]
	}
	for i := range after.Jobs {
		j := &after.Jobs[i]
		was := old[j.Key]
		if was == nil {
			was = &Job{} // of a round that is new: its builds may have begun
		}
		if was.State != j.State || was.Epoch != j.Epoch || was.Failures != j.Failures || was.EndedMS != j.EndedMS || was.PeerID != j.PeerID || was.Differs != j.Differs {
			e.job(was, j)
		}
	}
}

func running(state string) bool {
	return state == string(claims.JobBuilding) || state == string(claims.JobClaimed)
}

func done(state string) bool { return claims.JobState(state).Done() }

func (e *events) job(was, j *Job) {
	ev := Event{Who: j.Peer, What: j.CPV, Key: j.Key}
	switch {
	case done(j.State) && !done(was.State) && was.State != string(claims.JobAway):
		if j.EndedMS < e.since-hour && was.Key == "" {
			return // it was there when the round came
		}
		ev.Kind, ev.AtMS, ev.Text = EventBuilt, j.EndedMS, fmt.Sprintf("%s built %s in %s", j.Peer, j.CPV, span(j.CostMS))
		e.add(ev)
	case j.State == string(claims.JobAway) && done(was.State):
		ev.Kind, ev.Text, ev.Bad = EventLost, j.CPV+" is on no peer that is here", true
		e.add(ev)
	case running(j.State) && running(was.State) && was.PeerID != j.PeerID:
		ev.Kind, ev.Text = EventTaken, fmt.Sprintf("%s took over %s from %s", j.Peer, j.CPV, was.Peer)
		e.add(ev)
	case running(j.State) && !running(was.State):
		ev.Kind, ev.AtMS, ev.Text = EventBegan, max(e.since, j.StartedMS), fmt.Sprintf("%s began %s", j.Peer, j.CPV)
		if j.Epoch > 1 && was.Failures == j.Failures && was.Key != "" {
			ev.Text += fmt.Sprintf(" (attempt %d)", j.Epoch)
		}
		e.add(ev)
	}
	if j.Differs != "" && was.Differs == "" && was.Key != "" {
		e.add(Event{Kind: EventDiffers, What: j.CPV, Key: j.Key, Bad: true, Text: fmt.Sprintf("%s was %s; swarm why %.8s says where", j.CPV, j.Differs, j.Key)})
	}
	if j.Failures > was.Failures && was.Key != "" {
		ev.Kind, ev.Bad, ev.AtMS = EventFailed, true, j.EndedMS
		ev.Text = fmt.Sprintf("%s failed on %s: %s", j.CPV, cmp.Or(j.Peer, "a drone"), j.Reason)
		e.add(ev)
	}
	if j.State == string(claims.JobBlocked) && was.State != j.State && was.Key != "" && j.Failures > 0 {
		ev.Kind, ev.Bad, ev.AtMS = EventBlocked, true, 0
		ev.Text = fmt.Sprintf("%s is blocked after %s", j.CPV, count(j.Failures, "failure"))
		if j.HoldsUp > 0 {
			ev.Text += ", and with it " + count(j.HoldsUp, "job")
		}
		e.add(ev)
	}
}

func (e *events) releases(before, after *Detail) {
	old := map[string]Release{}
	for _, r := range before.Releases {
		old[r.Target+"/"+r.Channel] = r
	}
	for _, r := range after.Releases {
		was := old[r.Target+"/"+r.Channel]
		if was.Version == r.Version && was.CID == r.CID {
			continue
		}
		e.add(Event{AtMS: r.Timestamp * 1000, Kind: EventReleased, What: r.CID,
			Text: fmt.Sprintf("%s/%s moved from version %d to %d", r.Target, r.Channel, was.Version, r.Version)})
	}
}

func (e *events) orders(before, after *Detail) {
	old := map[string]int64{}
	for _, o := range before.Orders {
		old[o.Verb+"/"+o.Scope] = o.AtMS
	}
	for _, o := range after.Orders {
		if at, known := old[o.Verb+"/"+o.Scope]; known && at >= o.AtMS || o.AtMS < e.since-hour {
			continue
		}
		text := fmt.Sprintf("%s of %s, ordered on %s", o.Verb, o.Name, o.By)
		if o.Off {
			text = fmt.Sprintf("%s of %s lifted, on %s", o.Verb, o.Name, o.By)
		}
		if o.Reason != "" {
			text += ": " + o.Reason
		}
		e.add(Event{AtMS: o.AtMS, Kind: EventOrdered, Who: o.By, What: o.Name, Text: text})
	}
}

// issues tells of causes that have no event of their own.
func (e *events) issues(before, after *Detail) {
	told := func(k IssueKind) bool { return k == IssueFailed || k == IssueAway }
	index := func(list []Issue) map[string]Issue {
		out := map[string]Issue{}
		for _, i := range list {
			if !told(i.Kind) {
				out[i.ID] = i
			}
		}
		return out
	}
	old, now := index(before.Issues), index(after.Issues)
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if i := now[id]; old[id].ID == "" {
			text := i.Title
			if i.Detail != "" {
				text += ": " + i.Detail
			}
			e.add(Event{Kind: EventTrouble, What: i.ID, Key: i.Key, Text: text, Bad: true})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if i := old[id]; now[id].ID == "" {
			e.add(Event{Kind: EventMended, What: i.ID, Key: i.Key, Text: "no more: " + i.Title})
		}
	}
}
