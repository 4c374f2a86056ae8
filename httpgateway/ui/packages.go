package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

const rowsShown = 150

// matrix is the packages against the targets.
type matrix struct {
	Query, State, Target string
	Targets              []string
	States               []stateLink
	Rows                 []row
	Total, Matching      int
	Page, Pages          int
	Prev, Next           string
}

type stateLink struct {
	State, URL string
	N          int
	On         bool
}

type row struct {
	CP    string
	Cells []cell // one for each target
	worst int
}

// cell is one package for one target: the jobs of it that are known, the most
// urgent first.
type cell struct {
	Jobs []view.Job
}

// urgency sorts states: what a person may have to do something about first.
var urgency = []string{"blocked", "unfit", "away", "building", "claimed", "ready", "waiting", "available", "safe"}

func urgencyOf(state string) int {
	if i := slices.Index(urgency, state); i >= 0 {
		return i
	}
	return len(urgency)
}

// packages is the page of all packages of the rounds that are shown.
func (u *UI) packages(r *http.Request, d *view.Detail) (*page, error) {
	m := matrixOf(d, r.URL.Query())
	return &page{Title: "Packages", Here: "packages", Live: true, Detail: d, Sections: []section{{"verdict", verdictOf(d)}, {"filter", m}, {"matrix", m}}}, nil
}

func matrixOf(d *view.Detail, q url.Values) *matrix {
	m := &matrix{Query: build.OneLine(q.Get("q"), 80), State: build.OneLine(q.Get("state"), 20), Target: build.OneLine(q.Get("target"), 64), Total: len(d.Jobs)}
	states := map[string]int{}
	words := strings.Fields(strings.ToLower(m.Query))
	rows := map[string]*row{}
	for i := range d.Jobs {
		if t := d.Jobs[i].Target; !slices.Contains(m.Targets, t) {
			m.Targets = append(m.Targets, t)
		}
	}
	slices.Sort(m.Targets)
	var order []*row
	for i := range d.Jobs {
		j := &d.Jobs[i]
		if !matches(j, words) || m.Target != "" && j.Target != m.Target {
			continue
		}
		states[j.State]++
		if m.State != "" && j.State != m.State {
			continue
		}
		m.Matching++
		cp := cpOf(j.CPV)
		x := rows[cp]
		if x == nil {
			x = &row{CP: cp, Cells: make([]cell, len(m.Targets)), worst: len(urgency)}
			rows[cp] = x
			order = append(order, x)
		}
		c := &x.Cells[slices.Index(m.Targets, j.Target)]
		c.Jobs = append(c.Jobs, *j)
		x.worst = min(x.worst, urgencyOf(j.State))
	}
	slices.SortFunc(order, func(a, b *row) int { return cmp.Or(cmp.Compare(a.worst, b.worst), cmp.Compare(a.CP, b.CP)) })
	m.pages(len(order), q.Get("page"))
	for _, x := range order[min(len(order), (m.Page-1)*rowsShown):min(len(order), m.Page*rowsShown)] {
		for i := range x.Cells {
			slices.SortFunc(x.Cells[i].Jobs, func(a, b view.Job) int {
				return cmp.Or(cmp.Compare(urgencyOf(a.State), urgencyOf(b.State)), cmp.Compare(a.CPV, b.CPV))
			})
		}
		m.Rows = append(m.Rows, *x)
	}
	all := 0
	for _, s := range urgency {
		all += states[s]
		if states[s] > 0 || s == m.State {
			m.States = append(m.States, stateLink{s, m.url(s, 1), states[s], s == m.State})
		}
	}
	m.States = append([]stateLink{{"", m.url("", 1), all, m.State == ""}}, m.States...)
	return m
}

func matches(j *view.Job, words []string) bool {
	for _, w := range words {
		if !strings.Contains(strings.ToLower(j.CPV), w) && !strings.Contains(strings.ToLower(j.Peer), w) && !strings.HasSuffix(string(j.Key), w) {
			return false
		}
	}
	return true
}

func (m *matrix) url(state string, page int) string {
	n := ""
	if page > 1 {
		n = strconv.Itoa(page)
	}
	return link(Prefix+"packages", "q", m.Query, "state", state, "target", m.Target, "page", n)
}

func (m *matrix) pages(rows int, asked string) {
	m.Pages = max(1, (rows+rowsShown-1)/rowsShown)
	n, err := strconv.Atoi(asked)
	if err != nil {
		n = 1
	}
	m.Page = min(m.Pages, max(1, n))
	if m.Page > 1 {
		m.Prev = m.url(m.State, m.Page-1)
	}
	if m.Page < m.Pages {
		m.Next = m.url(m.State, m.Page+1)
	}
}

// packageView is one package's page.
type packageView struct {
	view.Package
	Whys    map[build.Key]view.Why
	Chart   *history
	Now     int64
	Buttons map[build.Key][]button
}

// history is durations and sizes of the good builds, oldest first.
type history struct {
	Columns         []column
	MaxDur, MaxSize string
	MedianDur       string
}

type column struct {
	X, Wide, Mid   string
	DurY, DurH     int
	SizeY          int
	Tip            string
	SameVersion    bool
	Label          string
	dur, bytesSize int64
}

const (
	chartHeight = 96
	maxColumns  = 40
	maxWhys     = 6
)

func (u *UI) packagePage(r *http.Request, d *view.Detail) (*page, error) {
	cp := r.PathValue("category") + "/" + r.PathValue("name")
	if a, err := build.ParseAtom(cp); err != nil || a.Category == "" {
		return nil, &errPage{http.StatusNotFound, "No such package", build.OneLine(cp, 100) + " is no package's name"}
	}
	p, err := u.cfg.Source.Package(r.Context(), cp)
	if err != nil {
		return nil, err
	}
	v := &packageView{Package: p, Whys: map[build.Key]view.Why{}, Buttons: map[build.Key][]button{}, Chart: chart(p.Builds), Now: d.AtMS}
	for _, j := range p.Jobs {
		if len(v.Whys) < maxWhys {
			w, err := u.cfg.Source.Why(r.Context(), string(j.Key))
			if err != nil {
				return nil, fmt.Errorf("explain %s: %w", j.CPV, err)
			}
			v.Whys[j.Key] = w
		}
		switch j.State {
		case "blocked":
			if j.Failures == 0 {
				continue // it waits for one that is
			}
			v.Buttons[j.Key] = []button{orderLink("Unblock", "unblock", string(j.Key), false)}
		case "ready", "waiting":
			v.Buttons[j.Key] = []button{orderLink("Build it next", "bump", string(j.Key), false)}
		}
	}
	return &page{Title: cp, Here: "packages", Live: true, Detail: d, Sections: []section{{"package", v}}}, nil
}

func chart(builds []view.PastBuild) *history {
	var h history
	var durs []int64
	for _, b := range slices.Backward(builds) {
		if b.Class != string(build.Good) {
			continue
		}
		h.Columns = append(h.Columns, column{dur: b.TookMS, bytesSize: b.Size, Label: versionOf(b.CPV),
			Tip: fmt.Sprintf("%s on %s, %s: %s, %s", b.CPV, b.Peer, date(b.EndedMS), dur(b.TookMS), size(b.Size))})
	}
	if len(h.Columns) > maxColumns {
		h.Columns = h.Columns[len(h.Columns)-maxColumns:]
	}
	if len(h.Columns) < 2 {
		return nil
	}
	var most, big int64 = 1, 1
	for _, c := range h.Columns {
		most, big = max(most, c.dur), max(big, c.bytesSize)
		durs = append(durs, c.dur)
	}
	slices.Sort(durs)
	h.MaxDur, h.MaxSize, h.MedianDur = dur(most), size(big), dur(durs[len(durs)/2])
	wide := 100 / float64(len(h.Columns))
	for i := range h.Columns {
		c := &h.Columns[i]
		c.X, c.Wide, c.Mid = pct(float64(i)*wide+wide*0.15), pct(wide*0.7), pct(float64(i)*wide+wide/2)
		c.DurH = max(2, int(c.dur*(chartHeight-10)/most))
		c.DurY = chartHeight - c.DurH
		c.SizeY = chartHeight - int(c.bytesSize*(chartHeight-10)/big)
		c.SameVersion = i > 0 && h.Columns[i-1].Label == c.Label
	}
	return &h
}
