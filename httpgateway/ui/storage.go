package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

// storageView is the copies, the disks and the binhost.
type storageView struct {
	Total, Wanted int
	Bars          []copies
	Safe          string // share of blobs with all copies
	Classes       []classRow
	Peers         []tile
	Used, Free    int64
	Gateway       Gateway
	HitShare      string
	Asked         uint64 // packages
	Now           int64
}

// classRow is the blobs of one class as a stacked bar.
type classRow struct {
	view.BlobClass
	Says  string
	How   string // they are
	Parts []part
}

// classWords say what the classes of blobs are.
var classWords = map[string]string{"released": "in releases", "wanted": "wanted by rounds", "other": "logs, plans, older"}

func classRows(list []view.BlobClass) []classRow {
	var out []classRow
	for _, c := range list {
		r := classRow{BlobClass: c, Says: cmp.Or(classWords[c.Class], c.Class), How: "all well"}
		var bad []string
		for _, x := range []struct {
			n    int
			word string
		}{{c.Lost, "on no peer here"}, {c.Single, "with one copy"}, {c.Few, "waiting for a third copy"}} {
			if x.n > 0 {
				bad = append(bad, fmt.Sprint(x.n, " ", x.word))
			}
		}
		switch {
		case c.Total == 0:
			r.How = ""
		case len(bad) > 0:
			r.How = strings.Join(bad, ", ")
		}
		r.Parts = stack(c.Total, part{Class: "done", N: c.Total - c.Few - c.Single - c.Lost}, part{Class: "thin", N: c.Few + c.Single}, part{Class: "blocked", N: c.Lost})
		out = append(out, r)
	}
	return out
}

type copies struct {
	Copies int
	Label  string
	N      int
	Wide   string
	Class  string
}

func (u *UI) storage(_ *http.Request, d *view.Detail) (*page, error) {
	v := storageView{Total: d.Blobs.Total, Wanted: d.Blobs.Wanted, Gateway: u.cfg.Source.Gateway(), Now: d.AtMS, Classes: classRows(d.Blobs.Classes)}
	most, safe := 1, 0
	for n, c := range d.Blobs.Copies {
		most = max(most, c)
		if n >= d.Blobs.Wanted {
			safe += c
		}
	}
	for n := 0; n <= max(d.Blobs.Wanted, 3) || len(v.Bars) < 4; n++ {
		c := copies{Copies: n, N: d.Blobs.Copies[n], Label: plural(n, "copie"), Class: "done"}
		if n == 0 {
			c.Label, c.Class = "none here", "blocked"
		} else if n < d.Blobs.Wanted {
			c.Class = "thin"
		}
		if n == 1 {
			c.Label = "1 copy"
		}
		c.Wide = per(int64(c.N), int64(most))
		v.Bars = append(v.Bars, c)
	}
	more := 0
	for n, c := range d.Blobs.Copies {
		if n >= len(v.Bars) {
			more += c
		}
	}
	if more > 0 {
		v.Bars = append(v.Bars, copies{Label: "more", N: more, Wide: per(int64(more), int64(most)), Class: "done"})
	}
	v.Safe = permille(int64(safe*1000) / int64(max(1, d.Blobs.Total)))
	for _, p := range d.Peers {
		if p.Stores || p.Blobs > 0 {
			v.Peers = append(v.Peers, tile{Peer: p, DiskPct: per(p.UsedB, p.UsedB+p.FreeB)})
			v.Used, v.Free = v.Used+p.UsedB, v.Free+p.FreeB
		}
	}
	slices.SortStableFunc(v.Peers, func(a, b tile) int { return cmp.Compare(b.UsedB, a.UsedB) })
	g := v.Gateway
	v.Asked = g.Local + g.Streamed + g.Missing + g.Unavailable
	v.HitShare = "–"
	if v.Asked > 0 {
		v.HitShare = permille(int64((g.Local + g.Streamed) * 1000 / v.Asked))
	}
	return &page{Title: "Storage", Here: "storage", Live: true, Detail: d, Sections: []section{{"verdict", verdictOf(d)}, {"storage", v}}}, nil
}

// releasesView is the rail, and a comparison where one is asked for.
type releasesView struct {
	Rails    []Rail
	From, To string
	Target   string
	Old, New *Head
	Changes  []Change
	Counts   map[string]int
	Problem  string
	More     int
	Now      int64
	Rounds   []view.Round
	Staging  []view.Staging
}

const changesShown = 500

func (u *UI) releases(r *http.Request, d *view.Detail) (*page, error) {
	rails, err := u.cfg.Source.Releases(r.Context())
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	v := releasesView{Rails: rails, From: q.Get("from"), To: q.Get("to"), Now: d.AtMS, Counts: map[string]int{}, Staging: d.Staging}
	for _, rd := range d.Rounds {
		if rd.State == "open" {
			v.Rounds = append(v.Rounds, rd)
		}
	}
	v.choose()
	if v.New != nil {
		from := ""
		if v.Old != nil {
			from = v.Old.CID
		}
		v.Changes, err = u.cfg.Source.Diff(r.Context(), from, v.New.CID)
		if err != nil {
			v.Problem = build.OneLine(err.Error(), 300)
		}
		for _, c := range v.Changes {
			v.Counts[c.Kind]++
		}
		if v.More = len(v.Changes) - changesShown; v.More > 0 {
			v.Changes = v.Changes[:changesShown]
		}
		v.More = max(0, v.More)
	}
	return &page{Title: "Releases", Here: "releases", Live: true, Detail: d, Sections: []section{{"verdict", verdictOf(d)}, {"releases", v}}}, nil
}

// choose finds what to compare: what was asked for, else the newest head with
// the one before.
func (v *releasesView) choose() {
	for i := range v.Rails {
		heads := v.Rails[i].Heads
		for n := range heads {
			if v.To != "" && heads[n].CID != v.To || v.To == "" && n > 0 {
				continue
			}
			if v.New != nil {
				return
			}
			v.New, v.Target = &heads[n], v.Rails[i].Target
			if n+1 < len(heads) {
				v.Old = &heads[n+1]
			}
			for k := range heads {
				if v.From != "" && heads[k].CID == v.From {
					v.Old = &heads[k]
				}
			}
		}
	}
}

// eventsView is what happened.
type eventsView struct {
	Days  []day
	Query string
	Bad   bool
	Hours int
	Spans []stateLink
	N     int
}

type day struct {
	Date   string
	Events []view.Event
}

const eventsShown = 400

func (u *UI) events(r *http.Request, d *view.Detail) (*page, error) {
	q := r.URL.Query()
	v := eventsView{Query: build.OneLine(q.Get("q"), 80), Bad: q.Get("bad") != "", Hours: 24}
	if n, err := strconv.Atoi(q.Get("hours")); err == nil && n > 0 && n <= 24*365 {
		v.Hours = n
	}
	list, err := u.cfg.Source.Events(r.Context(), d.AtMS-int64(v.Hours)*3_600_000, 5000)
	if err != nil {
		return nil, fmt.Errorf("read what happened: %w", err)
	}
	bad := ""
	if v.Bad {
		bad = "1"
	}
	for _, h := range []int{2, 24, 24 * 7} {
		v.Spans = append(v.Spans, stateLink{State: map[int]string{2: "2 hours", 24: "a day", 168: "a week"}[h], URL: link(Prefix+"events", "q", v.Query, "bad", bad, "hours", strconv.Itoa(h)), On: h == v.Hours})
	}
	words := foldedWords(v.Query)
	for _, e := range slices.Backward(list) {
		if v.N == eventsShown {
			break
		}
		if v.Bad && !e.Bad || !contains(e.Text+" "+string(e.Kind), words) {
			continue
		}
		v.N++
		on := dayOf(e.AtMS)
		if len(v.Days) == 0 || v.Days[len(v.Days)-1].Date != on {
			v.Days = append(v.Days, day{Date: on})
		}
		last := &v.Days[len(v.Days)-1]
		last.Events = append(last.Events, e)
	}
	return &page{Title: "Events", Here: "events", Live: true, Detail: d, Sections: []section{{"eventsfilter", v}, {"events", v}}}, nil
}
