package ui

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

const (
	rowHeight  = 18 // pixels of one build at a time
	barHeight  = 14
	lanesShown = 12
	// pastShown is how far back the picture goes unless all is asked for.
	pastShown = 2 * 3_600_000
	// narrow and near are in percent of the width: what a screen cannot show
	// apart is drawn as one.
	narrow, near = 0.35, 0.2
	// nearNow is the part of the width in which no time stands beside "now".
	nearNow = 0.035
	// labelled is how wide a bar is in percent before its name is written in it.
	labelled = 4
)

// lanes is the timeline as it is drawn: all lengths in percent of the width.
type lanes struct {
	Rounds         []string
	Lanes          []*lane
	Ticks          []tick
	NowAt          string
	Busy           int64
	EndMS, StartMS int64
	NowMS          int64
	Hidden         int // lanes that are not shown
	Cut            bool
	AllSpan        string // links
	AllLanes       string
	Pole           []poleStep
	PoleMore       int
	Empty          bool
	Then           *then // the timeline is shown as it stood at another time
	Steps          []step
}

// then is what is said of another time.
type then struct {
	AtMS int64
	view.Stood
}

// step is a link to another time.
type step struct{ Label, URL string }

// steps are links to the times around one; from now there is none forward.
func stepsOf(t *view.Timeline, at int64) []step {
	var out []step
	for _, s := range []struct {
		label string
		ms    int64
	}{{"1 h back", -3_600_000}, {"10 min back", -600_000}, {"1 min back", -60_000}, {"1 min on", 60_000}, {"10 min on", 600_000}} {
		if to := at + s.ms; to > t.StartMS && to < t.NowMS {
			out = append(out, step{s.label, link("/", "at", strconv.FormatInt(to, 10)) + "#timeline"})
		}
	}
	if at < t.NowMS {
		out = append(out, step{"now", "/#timeline"})
	}
	return out
}

// timelineAt is the timeline at the time that a query asks for, or now.
func timelineAt(t *view.Timeline, at, span string, all bool) lanes {
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil || t.StartMS == 0 || ms <= t.StartMS || ms >= t.NowMS {
		out := lanesOf(t, span, all)
		if !out.Empty {
			out.Steps = stepsOf(t, t.NowMS)
		}
		return out
	}
	past, stood := t.At(ms)
	out := lanesOf(&past, span, all)
	out.Then, out.Steps = &then{ms, stood}, stepsOf(t, ms)
	return out
}

type lane struct {
	Nick   string
	Live   bool
	Height int
	Bars   []bar
	NowAt  string
}

type bar struct {
	Class       string
	Pole        bool
	X, Wide     string
	Y, H        int
	Label, Tip  string
	URL         string
	TextY       int
	PoleY       int
	Striped     bool
	merged      int
	start, wide float64
}

type tick struct{ X, Label string }

// poleStep is one build of the long pole, for people who read lists.
type poleStep struct {
	CPV, Nick, State string
	StartMS, EndMS   int64
}

func lanesOf(t *view.Timeline, span string, all bool) lanes {
	out := lanes{Rounds: t.Rounds, Busy: t.BusyPermille, EndMS: t.EndMS, StartMS: t.StartMS, NowMS: t.NowMS, Empty: t.StartMS == 0,
		AllSpan: link("/", "span", "all", "lanes", laneWord(all)), AllLanes: link("/", "lanes", "all", "span", span)}
	if out.Empty {
		return out
	}
	from, to := t.StartMS, max(t.EndMS, t.StartMS+60_000)
	if past := min(t.NowMS, to) - pastShown; span != "all" && from < past {
		from, out.Cut = past, true
	}
	whole := float64(to - from)
	at := func(ms int64) float64 { return float64(ms-from) / whole * 100 }
	if t.NowMS < to {
		out.NowAt = pct(at(t.NowMS))
	}
	out.Ticks = ticks(from, to, t.NowMS)
	list := slices.Clone(t.Lanes)
	if !all && len(list) > lanesShown {
		out.Hidden = len(list) - lanesShown
		slices.SortStableFunc(list, func(a, b view.Lane) int { return cmp.Compare(lastEnd(b), lastEnd(a)) })
		list = list[:lanesShown]
		slices.SortStableFunc(list, func(a, b view.Lane) int { return cmp.Compare(a.Nick, b.Nick) })
	}
	for i := range list {
		out.Lanes = append(out.Lanes, laneOf(&list[i], at, out.NowAt))
	}
	out.steps(t)
	return out
}

func laneWord(all bool) string {
	if all {
		return "all"
	}
	return ""
}

func lastEnd(l view.Lane) int64 {
	var end int64
	for i := range l.Bars {
		end = max(end, l.Bars[i].EndMS)
	}
	return end
}

func laneOf(l *view.Lane, at func(int64) float64, now string) *lane {
	out := &lane{Nick: l.Nick, Live: l.Live, Height: max(1, l.Rows)*rowHeight + 2, NowAt: now}
	last := map[int]int{} // row to its last bar
	for i := range l.Bars {
		b := &l.Bars[i]
		if at(b.EndMS) <= 0 {
			continue
		}
		x := max(0, at(b.StartMS))
		n := bar{Class: string(b.Kind), Pole: b.Pole, start: x, wide: max(0.12, at(b.EndMS)-x), Y: 2 + b.Row*rowHeight, H: barHeight, merged: 1,
			Label: b.CP, URL: pageOf(b.CP), Tip: tip(b)}
		if k, ok := last[b.Row]; ok {
			p := &out.Bars[k]
			if p.Class == n.Class && p.wide < narrow && n.wide < narrow && n.start-(p.start+p.wide) < near && p.start+narrow*2 > n.start {
				p.wide = max(p.wide, n.start+n.wide-p.start)
				p.merged++
				p.Pole = p.Pole || n.Pole
				p.Tip = fmt.Sprintf("%d builds, the last: %s", p.merged, n.Tip)
				continue
			}
		}
		last[b.Row] = len(out.Bars)
		out.Bars = append(out.Bars, n)
	}
	for i := range out.Bars {
		b := &out.Bars[i]
		b.X, b.Wide, b.TextY, b.PoleY = pct(b.start), pct(b.wide), b.Y+11, b.Y+b.H-2
		if b.wide < labelled {
			b.Label = ""
		}
	}
	return out
}

// Drawn is the lane's bars. It is written here and not in the template, which
// takes ten times as long for the 3,000 bars of a whole round.
func (l *lane) Drawn() template.HTML {
	var b strings.Builder
	b.Grow(300 * len(l.Bars))
	rect := func(class, fill, x, wide string, y, h int) {
		b.WriteString(`<rect`)
		attr(&b, "class", class)
		attr(&b, "fill", fill)
		attr(&b, "x", x)
		attr(&b, "width", wide)
		attr(&b, "y", strconv.Itoa(y))
		attr(&b, "height", strconv.Itoa(h))
	}
	for i := range l.Bars {
		n := &l.Bars[i]
		b.WriteString(`<a`)
		attr(&b, "href", n.URL)
		b.WriteString(`>`)
		rect("b-"+n.Class, "", n.X, n.Wide, n.Y, n.H)
		b.WriteString(` rx="2"><title>`)
		b.WriteString(template.HTMLEscapeString(n.Tip))
		b.WriteString(`</title></rect>`)
		switch view.BarKind(n.Class) {
		case view.BarFailed:
			rect("", "url(#hatch)", n.X, n.Wide, n.Y, n.H)
			b.WriteString(`/>`)
		case view.BarRunning:
			rect("", "url(#stripes)", n.X, n.Wide, n.Y, n.H)
			b.WriteString(`/>`)
		}
		if n.Pole {
			rect("pole", "", n.X, n.Wide, n.PoleY, 3)
			b.WriteString(`/>`)
		}
		if n.Label != "" {
			b.WriteString(`<svg`)
			attr(&b, "x", n.X)
			attr(&b, "y", strconv.Itoa(n.Y))
			attr(&b, "width", n.Wide)
			attr(&b, "height", strconv.Itoa(n.H))
			b.WriteString(`><text x="4" y="10.5"`)
			attr(&b, "class", "l-"+n.Class)
			b.WriteString(`>`)
			b.WriteString(template.HTMLEscapeString(n.Label))
			b.WriteString(`</text></svg>`)
		}
		b.WriteString(`</a>`)
	}
	return template.HTML(b.String()) //nolint:gosec // every value of it is escaped above
}

// attr writes an attribute; one without a value is left out.
func attr(b *strings.Builder, name, value string) {
	if value == "" {
		return
	}
	b.WriteByte(' ')
	b.WriteString(name)
	b.WriteString(`="`)
	b.WriteString(template.HTMLEscapeString(value))
	b.WriteByte('"')
}

func tip(b *view.Bar) string {
	when := fmt.Sprintf("%s to %s, %s", clock(b.StartMS), clock(b.EndMS), dur(b.EndMS-b.StartMS))
	s := fmt.Sprintf("%s: %s, %s", b.CPV, map[view.BarKind]string{view.BarDone: "built", view.BarFailed: "failed", view.BarRunning: "building", view.BarForecast: "expected"}[b.Kind], when)
	if b.Note != "" {
		s += " (" + b.Note + ")"
	}
	if b.Pole {
		s += "; on the long pole"
	}
	return s
}

func packageURL(cpv string) string { return pageOf(cpOf(cpv)) }

// pageOf is where the page of a package (category/name) is.
func pageOf(cp string) string { return (&url.URL{Path: Prefix + "package/" + cp}).EscapedPath() }

// ticks are round times of day, six or so of them.
func ticks(from, to, now int64) []tick {
	steps := []int64{1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080}
	step := steps[len(steps)-1]
	for _, s := range steps {
		if (to-from)/(s*60_000) <= 6 {
			step = s
			break
		}
	}
	step *= 60_000
	_, offset := time.UnixMilli(from).Zone()
	local := int64(offset) * 1000
	var out []tick
	for t := (from+local)/step*step + step - local; t < to && len(out) < 24; t += step {
		x := float64(t-from) / float64(to-from) * 100
		if x > 96 {
			break
		}
		label := clock(t)
		if math.Abs(float64(t-now)) < nearNow*float64(to-from) {
			label = "" // "now" stands there
		}
		if step >= 1440*60_000 && label != "" {
			label = time.UnixMilli(t).Format("2 Jan")
		}
		out = append(out, tick{pct(x), label})
	}
	return out
}

const poleShown = 8

// steps lists the long pole: what of it is still to come, or its end.
func (out *lanes) steps(t *view.Timeline) {
	type where struct {
		nick string
		b    *view.Bar
	}
	at := map[string]where{}
	for i := range t.Lanes {
		for n := range t.Lanes[i].Bars {
			if b := &t.Lanes[i].Bars[n]; b.Pole {
				at[string(b.Key)] = where{t.Lanes[i].Nick, b}
			}
		}
	}
	var list []poleStep
	for _, k := range t.Pole {
		w, ok := at[string(k)]
		if !ok || t.EndMS > t.NowMS && w.b.EndMS <= t.NowMS {
			continue
		}
		list = append(list, poleStep{w.b.CPV, w.nick, string(w.b.Kind), w.b.StartMS, w.b.EndMS})
	}
	if out.PoleMore = len(list) - poleShown; out.PoleMore > 0 {
		list = list[:poleShown]
	}
	out.PoleMore = max(0, out.PoleMore)
	out.Pole = list
}
