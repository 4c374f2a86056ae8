package view

import (
	"cmp"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Timeline is the open rounds, or the newest one that has closed, per drone:
// what was built, what runs, and what the forecast gives to each.
type Timeline struct {
	Rounds  []string    `json:"rounds"`
	StartMS int64       `json:"start_unix_ms"` // of the first build
	NowMS   int64       `json:"now_unix_ms"`
	EndMS   int64       `json:"end_unix_ms"` // of the last, by the forecast if it is not built
	Lanes   []Lane      `json:"lanes"`
	Pole    []build.Key `json:"long_pole"` // the chain that decides the end, first build first
	// BusyPermille is how much of the drones' slots was busy from the start to
	// now (or to the end, if that has passed).
	BusyPermille int64 `json:"busy_permille"`
}

// Lane is one drone's part, by nickname.
type Lane struct {
	Peer string `json:"peer"`
	Nick string `json:"nick"`
	Live bool   `json:"live"`
	Rows int    `json:"rows"` // builds at once, at the most
	Bars []Bar  `json:"bars"` // by start
}

// BarKind says what a bar stands for.
type BarKind string

const (
	BarDone     BarKind = "done"
	BarFailed   BarKind = "failed" // whatever it came to that is no artifact
	BarRunning  BarKind = "running"
	BarForecast BarKind = "forecast"
)

// Bar is one build on a lane.
type Bar struct {
	Key     build.Key `json:"key"`
	CPV     string    `json:"cpv"`
	CP      string    `json:"cp"` // category/name
	Kind    BarKind   `json:"kind"`
	StartMS int64     `json:"start_unix_ms"`
	EndMS   int64     `json:"end_unix_ms"` // expected, of what is not over
	Row     int       `json:"row"`
	Pole    bool      `json:"pole"`
	Note    string    `json:"note"` // phase, or why it failed
}

// Stood counts builds at a time: what had ended, and what was under way.
type Stood struct{ Built, Failed, Building int }

// At is the timeline as it stood at a time between its start and now. What came
// after it, or is still expected, is a BarForecast; a build that ran then is a
// BarRunning up to its end, as it is known today. There is no long pole: it was
// another one then.
func (t *Timeline) At(ms int64) (out Timeline, n Stood) {
	out = *t
	out.NowMS, out.Pole, out.Lanes = min(max(ms, t.StartMS), t.NowMS), []build.Key{}, make([]Lane, len(t.Lanes))
	for i, ln := range t.Lanes {
		ln.Bars = slices.Clone(ln.Bars)
		for k := range ln.Bars {
			b := &ln.Bars[k]
			b.Pole = false
			switch {
			case b.StartMS > out.NowMS:
				b.Kind = BarForecast
			case b.EndMS > out.NowMS:
				b.Kind = BarRunning
				n.Building++
			case b.Kind == BarFailed:
				n.Failed++
			case b.Kind == BarDone:
				n.Built++
			}
		}
		out.Lanes[i] = ln
	}
	return out, n
}

// timeline lays the builds out.
func (l *look) timeline() Timeline {
	t := Timeline{Rounds: []string{}, NowMS: l.now.Wall, Lanes: []Lane{}, Pole: []build.Key{}}
	infos, since := l.infos, int64(0)
	for _, rd := range l.r.Rounds() {
		if rd.State == build.RoundOpen {
			t.Rounds = append(t.Rounds, rd.ID)
			since = hlc.Time(rd.Created).Millis() // the oldest comes last
		}
	}
	if len(t.Rounds) == 0 && len(l.recent) > 0 {
		rc := l.recent[0]
		t.Rounds, infos, since = append(t.Rounds, rc.round.ID), rc.infos, hlc.Time(rc.round.Created).Millis()
	}
	lanes := map[string]*Lane{}
	lane := func(peer string) *Lane {
		if lanes[peer] == nil {
			lanes[peer] = &Lane{Peer: peer, Nick: l.r.Name(peer), Bars: []Bar{}}
		}
		return lanes[peer]
	}
	for _, p := range l.peers {
		if p.Live && p.Beat.Slots > 0 {
			lane(p.ID).Live = true
		}
	}
	place := func(peer string, b Bar) {
		ln := lane(peer)
		ln.Bars = append(ln.Bars, b)
		if t.StartMS == 0 || b.StartMS < t.StartMS {
			t.StartMS = b.StartMS
		}
		t.EndMS = max(t.EndMS, b.EndMS)
	}
	for i := range infos {
		l.bars(&infos[i], since, place)
	}
	l.pole(&t, infos, lanes)
	slots := map[string]int64{}
	for _, p := range l.peers {
		slots[p.ID] = int64(p.Beat.Slots)
	}
	t.BusyPermille = busy(&t, lanes, slots)
	for _, ln := range lanes {
		arrange(ln)
		t.Lanes = append(t.Lanes, *ln)
	}
	slices.SortFunc(t.Lanes, func(a, b Lane) int { return cmp.Or(cmp.Compare(a.Nick, b.Nick), cmp.Compare(a.Peer, b.Peer)) })
	return t
}

// bars places what is known of one job.
func (l *look) bars(info *claims.JobInfo, since int64, place func(string, Bar)) {
	k, name, cp := info.Job.Key, "", ""
	bar := func(kind BarKind, from, to int64, note string) Bar {
		if name == "" {
			name, cp = info.Job.CPV.String(), info.Job.CPV.CP()
		}
		return Bar{Key: k, CPV: name, CP: cp, Kind: kind, StartMS: from, EndMS: max(to, from), Note: note}
	}
	for _, o := range l.r.Results(k) {
		start := hlc.Time(o.Started).Millis()
		// An artifact of an earlier round is no part of this one.
		if start < since || start > l.now.Wall {
			continue
		}
		kind := BarDone
		if o.Class != build.Good {
			kind = BarFailed
		}
		place(o.Peer, bar(kind, start, min(start+max(0, o.Millis), l.now.Wall), build.OneLine(o.Reason, 120)))
	}
	a, planned := l.forecast[k]
	switch {
	case info.Holder != "":
		place(info.Holder, bar(BarRunning, l.now.Wall-info.Beat.InvestedMS, l.now.Wall+max(1, a.Finish), build.OneLine(info.Beat.Phase, 24)))
	case planned:
		place(a.Peer, bar(BarForecast, l.now.Wall+a.Start, l.now.Wall+a.Finish, ""))
	}
}

// slack is how much later than its cause's end a build may begin and still
// count as having waited for it, in milliseconds: claims and fetches take time.
const slack = 30_000

// pole marks the chain of builds that decides the end: from the last one back,
// each preceded by what it waited for, or by what its drone did before.
func (l *look) pole(t *Timeline, infos []claims.JobInfo, lanes map[string]*Lane) {
	type place struct {
		lane *Lane
		bar  int
	}
	at := make(map[build.Key]place, len(infos)) // the last bar of each job
	ends := map[*Lane][]int{}                   // bars by end
	var last place
	for _, id := range sortedPeers(lanes) {
		ln := lanes[id]
		for i := range ln.Bars {
			b := &ln.Bars[i]
			if p, ok := at[b.Key]; !ok || p.lane.Bars[p.bar].EndMS < b.EndMS {
				at[b.Key] = place{ln, i}
			}
			if last.lane == nil || b.EndMS > last.lane.Bars[last.bar].EndMS {
				last = place{ln, i}
			}
			ends[ln] = append(ends[ln], i)
		}
		slices.SortFunc(ends[ln], func(a, b int) int { return cmp.Compare(ln.Bars[a].EndMS, ln.Bars[b].EndMS) })
	}
	for last.lane != nil {
		b := &last.lane.Bars[last.bar]
		if b.Pole {
			break // two plans together may close a circle
		}
		b.Pole = true
		t.Pole = append(t.Pole, b.Key)
		next := place{}
		var end int64
		if j := l.r.Job(b.Key); j != nil {
			for _, d := range j.Before() {
				if p, ok := at[d]; ok {
					if e := p.lane.Bars[p.bar].EndMS; e > end && e <= b.StartMS+slack {
						next, end = p, e
					}
				}
			}
		}
		// Unless its drone was busy until later with something else.
		list := ends[last.lane]
		n, _ := slices.BinarySearchFunc(list, b.StartMS+1, func(i int, t int64) int { return cmp.Compare(last.lane.Bars[i].EndMS, t) })
		for n--; n >= 0 && list[n] == last.bar; n-- {
		}
		if n >= 0 && last.lane.Bars[list[n]].EndMS > end && last.lane.Bars[list[n]].EndMS >= b.StartMS-slack {
			next = place{last.lane, list[n]}
		}
		last = next
	}
	slices.Reverse(t.Pole)
}

func sortedPeers(lanes map[string]*Lane) []string {
	ids := make([]string, 0, len(lanes))
	for id := range lanes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// arrange sorts a lane's bars and gives each the first row that is free.
func arrange(ln *Lane) {
	slices.SortFunc(ln.Bars, func(a, b Bar) int { return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), cmp.Compare(a.Key, b.Key)) })
	var free []int64 // per row, when it is free again
	for i := range ln.Bars {
		b := &ln.Bars[i]
		// A forecast begins where a build ends, to the millisecond or so.
		row := slices.IndexFunc(free, func(t int64) bool { return t <= b.StartMS+1000 })
		if row < 0 {
			row, free = len(free), append(free, 0)
		}
		b.Row, free[row] = row, b.EndMS
	}
	ln.Rows = max(1, len(free))
}

// busy is the share of slot time that went into builds, in permille.
func busy(t *Timeline, lanes map[string]*Lane, slots map[string]int64) int64 {
	end := min(t.NowMS, t.EndMS)
	var used, all int64
	for id, ln := range lanes {
		n := slots[id]
		if n == 0 || !ln.Live && len(ln.Bars) == 0 {
			continue
		}
		all += n * max(0, end-t.StartMS)
		for i := range ln.Bars {
			used += max(0, min(ln.Bars[i].EndMS, end)-ln.Bars[i].StartMS)
		}
	}
	if all == 0 {
		return 0
	}
	return min(1000, used*1000/all)
}
