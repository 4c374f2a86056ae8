package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/build-swarm/swarm/build/view"
)

// verdict is the bar at the top of every page's first section.
type verdict struct {
	*view.Detail
	Release *view.Release
	Beyond  int // releases beside it
}

func verdictOf(d *view.Detail) verdict {
	v := verdict{Detail: d}
	for i := range d.Releases {
		if v.Release == nil || d.Releases[i].Timestamp > v.Release.Timestamp {
			v.Release = &d.Releases[i]
		}
	}
	v.Beyond = max(0, len(d.Releases)-1)
	return v
}

// roundCard is the figures of one round.
type roundCard struct {
	*view.Round
	Now      int64
	Parts    []part
	Busy     int64
	Failed   int // packages that failed themselves
	EndMS    int64
	LowMS    int64 // of the range in which it ends, wall times; 0 = there is none
	HighMS   int64
	OnlyOne  bool
	Released bool
}

// part is a stretch of a stacked bar.
type part struct {
	Class    string
	N        int
	At, Wide string // percent
}

func stack(total int, parts ...part) []part {
	var out []part
	at := 0
	for _, p := range parts {
		if p.N > 0 && total > 0 {
			p.At, p.Wide = per(int64(at), int64(total)), per(int64(p.N), int64(total))
			out = append(out, p)
		}
		at += p.N
	}
	return out
}

func rounds(d *view.Detail) []roundCard {
	var out []roundCard
	for i := range d.Rounds {
		rd := &d.Rounds[i]
		if rd.State != "open" && (len(out) > 0 || i > 0) {
			continue // the newest stays when none is open
		}
		c := roundCard{Round: rd, Now: d.AtMS, Busy: d.Timeline.BusyPermille, Released: rd.State == "closed"}
		for _, is := range d.Issues {
			if is.Kind == view.IssueFailed {
				c.Failed++
			}
		}
		if rd.LeftMS > 0 {
			c.EndMS = d.AtMS + rd.LeftMS
		}
		if rd.LeftHighMS > 0 {
			c.LowMS, c.HighMS = d.AtMS+rd.LeftLowMS, d.AtMS+rd.LeftHighMS
		}
		c.Parts = stack(rd.Jobs, part{Class: "done", N: rd.Done}, part{Class: "running", N: rd.Building}, part{Class: "blocked", N: rd.Blocked}, part{Class: "unfit", N: rd.Unfit})
		out = append(out, c)
	}
	return out
}

// tile is one peer.
type tile struct {
	view.Peer
	Mode    string // of the whole grid: "" or "compact"
	DiskPct string // of its store
	Heard   string
	Builds  []doing
}

type doing struct {
	view.Build
	Wide string // percent done
	Over bool   // it takes longer than was expected
}

const (
	compactFrom = 24 // peers
	// tilesShown have a tile, linesShown more a line each.
	tilesShown = 18
	linesShown = 200
)

type tiles struct {
	Compact bool
	Peers   []tile
	Counts  []count
	// Rest are peers that have a line each, in a list that is folded unless Open.
	Rest       []tile
	RestCounts []count
	Open       bool
	Hidden     int
	All        string // link to all of them
	Alone      bool
}

type count struct {
	State string
	N     int
}

// stateOrder is how tiles are sorted where there are many: what wants a look
// first, then what moves.
var stateOrder = []string{"away", "held", "building", "idle", "storing", "consumer", "gone"}

func tilesOf(d *view.Detail, all bool) tiles {
	t := tiles{Compact: len(d.Peers) > compactFrom, All: link("/", "peers", "all"), Alone: len(d.Peers) < 2}
	for _, p := range d.Peers {
		t.Peers = append(t.Peers, tileOf(p))
	}
	t.Counts = countStates(t.Peers)
	if !t.Compact {
		return t
	}
	slices.SortStableFunc(t.Peers, func(a, b tile) int {
		return cmp.Compare(slices.Index(stateOrder, a.State), slices.Index(stateOrder, b.State))
	})
	// What wants a look or moves has a tile; who waits has a line.
	n := min(tilesShown, len(t.Peers))
	if still := slices.IndexFunc(t.Peers, func(x tile) bool {
		return x.State == "idle" || x.State == "storing" || x.State == "consumer" || x.State == "gone"
	}); still >= 0 {
		n = min(n, still)
	}
	t.Peers, t.Rest, t.Open = t.Peers[:n:n], t.Peers[n:], all
	t.RestCounts = countStates(t.Rest)
	if !all && len(t.Rest) > linesShown {
		t.Hidden = len(t.Rest) - linesShown
		t.Rest = t.Rest[:linesShown]
	}
	return t
}

func countStates(list []tile) []count {
	n := map[string]int{}
	for i := range list {
		n[list[i].State]++
	}
	var out []count
	for _, s := range stateOrder {
		if n[s] > 0 {
			out = append(out, count{s, n[s]})
		}
	}
	return out
}

func tileOf(p view.Peer) tile {
	x := tile{Peer: p, DiskPct: per(p.UsedB, p.UsedB+p.FreeB)}
	if p.Self {
		x.Heard = "this peer"
	} else if p.AgeMS > 120_000 {
		x.Heard = rough(p.AgeMS) + " ago"
	}
	for _, b := range p.Doing {
		x.Builds = append(x.Builds, doing{Build: b, Wide: per(b.InvestedMS, b.InvestedMS+b.LeftMS), Over: b.LeftMS == 0 && b.InvestedMS > 0})
	}
	return x
}

const issuesShown = 8

type attention struct {
	Issues []view.Issue
	More   int
	Notes  []string // warnings that are no issue
	Now    int64
}

func attentionOf(d *view.Detail) attention {
	a := attention{Issues: d.Issues, Now: d.AtMS}
	if a.More = len(a.Issues) - issuesShown; a.More > 0 {
		a.Issues = a.Issues[:issuesShown]
	}
	a.More = max(0, a.More)
	return a
}

// swarm is the first page: everything at a glance.
func (u *UI) swarm(r *http.Request, d *view.Detail) (*page, error) {
	q := r.URL.Query()
	recent, err := u.cfg.Source.Events(r.Context(), d.AtMS-24*3_600_000, 12)
	if err != nil {
		return nil, fmt.Errorf("read what happened: %w", err)
	}
	slices.Reverse(recent)
	return &page{Title: "Swarm", Here: "swarm", Live: true, Detail: d, Sections: []section{
		{"verdict", verdictOf(d)},
		{"rounds", rounds(d)},
		{"attention", attentionOf(d)},
		{"timeline", timelineAt(&d.Timeline, q.Get("at"), q.Get("span"), q.Get("lanes") == "all")},
		{"peers", tilesOf(d, q.Get("peers") == "all")},
		{"recent", struct {
			Events []view.Event
			Now    int64
		}{recent, d.AtMS}},
	}}, nil
}
