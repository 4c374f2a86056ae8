package monitor

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// look is how a terminal wants to be drawn on.
type look struct {
	width, height int
	ascii         bool // no Unicode
}

// Smallest terminal that shows anything of use.
const (
	leastWidth  = 40
	leastHeight = 10
)

// chrome is how many rows stand around the table: verdict, round, tabs, header,
// what was said, keys.
const chrome = 6

// page is how many rows the table has.
func (l look) page() int { return max(1, l.height-chrome) }

var (
	plain   = lipgloss.NewStyle()
	strong  = plain.Bold(true)
	reverse = plain.Reverse(true)
	styles  = map[render.Style]lipgloss.Style{
		render.Plain: plain, render.Good: plain.Foreground(lipgloss.Color("2")), render.Warn: plain.Foreground(lipgloss.Color("3")),
		render.Bad: plain.Foreground(lipgloss.Color("1")).Bold(true), render.Dim: plain.Faint(true), render.Strong: strong,
	}
)

// screen draws the state: exactly height lines, none wider than width.
func (s *state) screen(l look) string {
	if l.width < leastWidth || l.height < leastHeight {
		return fmt.Sprintf("the terminal is %dx%d; at least %dx%d is wanted", l.width, l.height, leastWidth, leastHeight)
	}
	out := []string{s.verdictLine(l), s.roundLine(l), s.tabLine(l)}
	if s.panel != nil {
		out = append(out, s.panelLines(l)...)
	} else {
		out = append(out, s.tableLines(l)...)
	}
	for len(out) < l.height-2 {
		out = append(out, "")
	}
	out = append(out[:l.height-2], s.saidLine(l), s.keyLine(l))
	for i := range out {
		out[i] = ansi.Truncate(out[i], l.width, "")
	}
	return strings.Join(out, "\n")
}

// fit cuts text to n columns, with a mark where it was cut.
func fit(s string, n int) string { return ansi.Truncate(s, max(0, n), "~") }

// pad fills text to n columns.
func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-ansi.StringWidth(s))) }

func (s *state) verdictLine(l look) string {
	at := s.now.Format("15:04:05")
	if s.heard.IsZero() {
		if s.trouble != "" {
			return pad(styles[render.Bad].Render("NO DAEMON")+"  "+fit(s.trouble, l.width-21), l.width-9) + " " + at
		}
		return pad("asking the daemon ...", l.width-9) + " " + at
	}
	style := styles[render.Good]
	switch s.snap.Verdict {
	case view.Degraded:
		style = styles[render.Warn]
	case view.Blocked:
		style = styles[render.Bad]
	}
	verdict := strings.ToUpper(string(s.snap.Verdict))
	return pad(style.Bold(true).Render(verdict)+"  "+fit(render.Clean(s.snap.Sentence), l.width-len(verdict)-12), l.width-9) + " " + at
}

// roundLine tells the newest open round: a bar, its counts, the end, the rate.
func (s *state) roundLine(l look) string {
	i := slices.IndexFunc(s.snap.Rounds, func(r view.Round) bool { return r.State == "open" })
	if i < 0 {
		return styles[render.Dim].Render("no round is open")
	}
	r := &s.snap.Rounds[i]
	bar := 0
	if r.Jobs > 0 {
		bar = 1000 * r.Done / r.Jobs
	}
	parts := []string{drawBar(bar, 20, l.ascii) + fmt.Sprintf(" %d/%d", r.Done, r.Jobs)}
	if r.Blocked > 0 {
		parts = append(parts, styles[render.Bad].Render(fmt.Sprintf("%d blocked", r.Blocked)))
	}
	if r.LeftHighMS > 0 {
		parts = append(parts, fmt.Sprintf("%s-%s left", span(r.LeftLowMS), span(r.LeftHighMS)))
	} else if r.LeftMS > 0 {
		parts = append(parts, strings.TrimPrefix(left(r.LeftMS), ", "))
	}
	if r.PerHour > 0 {
		parts = append(parts, fmt.Sprintf("%.0f/h", r.PerHour))
	}
	if rate := s.rate(); len(rate) > 1 {
		parts = append(parts, spark(rate, 20, l.ascii))
	}
	return strings.Join(parts, "  ")
}

// drawBar is a bar of n columns, filled to so many permille.
func drawBar(permille, n int, ascii bool) string {
	full := min(max(permille, 0), 1000) * n / 1000
	on, off := "█", "░"
	if ascii {
		on, off = "#", "-"
	}
	return styles[render.Good].Render(strings.Repeat(on, full)) + styles[render.Dim].Render(strings.Repeat(off, n-full))
}

// spark draws the last n figures, the greatest as high as a line is.
func spark(figures []int, n int, ascii bool) string {
	steps := []rune("▁▂▃▄▅▆▇█")
	if ascii {
		steps = []rune("_.-=+*#@")
	}
	figures = figures[max(0, len(figures)-n):]
	most := max(1, slices.Max(figures))
	var b strings.Builder
	for _, f := range figures {
		b.WriteRune(steps[(len(steps)-1)*f/most])
	}
	return b.String()
}

func (s *state) tabLine(l look) string {
	var b strings.Builder
	for t := range tabCount {
		name := fmt.Sprintf(" %d %s ", t+1, tabNames[t])
		if l.width < 60 {
			name = fmt.Sprintf(" %d %.3s ", t+1, tabNames[t])
		}
		if t == s.tab {
			name = reverse.Render(name)
		}
		b.WriteString(name)
	}
	if s.typing || s.filter != "" {
		b.WriteString("  /" + render.Clean(s.filter))
		if s.typing {
			b.WriteString(reverse.Render(" "))
		}
	}
	return b.String()
}

// tableLines are the header and the rows around the cursor, then, in what room
// is left of some tabs, more of what a person looks for there.
func (s *state) tableLines(l look) []string {
	t := s.table()
	if len(t.rows) == 0 {
		return []string{"", fit("  "+t.empty, l.width)}
	}
	width := columns(t, l)
	out := []string{styles[render.Dim].Render(drawRow(headerRow(t.header), width, l, false))}
	at := max(0, slices.IndexFunc(t.rows, func(r row) bool { return r.key == s.chosen[s.tab] }))
	page := l.page()
	top := min(max(s.top[s.tab], at-page+1), at)
	s.top[s.tab] = top
	for i := top; i < min(len(t.rows), top+page); i++ {
		out = append(out, drawRow(t.rows[i], width, l, i == at))
	}
	if s.tab == tabSwarm {
		out = append(out, s.overview(l, l.height-3-len(out)-2)...)
	}
	if s.tab == tabStorage {
		out = append(out, s.histogram(l, l.height-3-len(out)-2)...)
	}
	return out
}

// histogram draws how many blobs have how many live copies.
func (s *state) histogram(l look, n int) []string {
	b := s.snap.Blobs
	if b.Total == 0 || n < 3 {
		return nil
	}
	out := []string{"", styles[render.Dim].Render(fmt.Sprintf("COPIES of %d blobs; %d of each are wanted", b.Total, b.Wanted))}
	var have []int
	for c := range b.Copies {
		have = append(have, c)
	}
	slices.Sort(have)
	for _, c := range have {
		style := render.Good
		switch {
		case c == 0:
			style = render.Bad
		case c < b.Wanted:
			style = render.Warn
		}
		out = append(out, styles[style].Render(fmt.Sprintf("%6d", c))+" "+drawBar(1000*b.Copies[c]/b.Total, min(40, l.width-20), l.ascii)+fmt.Sprintf(" %d", b.Copies[c]))
	}
	for i, c := range b.Classes {
		if i == 0 {
			out = append(out, "", styles[render.Dim].Render("BY WHAT THEY ARE FOR"))
		}
		out = append(out, "  "+classLine(c))
	}
	return out[:min(len(out), n)]
}

// classLine says how the blobs of a class are.
func classLine(c view.BlobClass) string {
	line := fmt.Sprintf("%-9s %d", c.Class, c.Total)
	bad := ""
	for _, x := range []struct {
		n    int
		word string
	}{{c.Lost, "on no peer that is here"}, {c.Single, "with a single copy"}, {c.Few, "waiting for a third copy"}} {
		if x.n > 0 {
			bad += fmt.Sprintf(", %d %s", x.n, x.word)
		}
	}
	switch {
	case bad != "":
		return styles[render.Warn].Render(line + bad)
	case c.Total > 0:
		return line + ", all well"
	}
	return line
}

func headerRow(h []string) row {
	var r row
	for _, s := range h {
		r.cells = append(r.cells, text(s))
	}
	return r
}

const barWidth = 10

// columns finds the columns' widths: as wide as the widest cell, but the first
// column takes no more than what leaves the last one a third of the terminal.
func columns(t table, l look) []int {
	width := make([]int, len(t.header))
	for i, h := range t.header {
		width[i] = runes(h)
	}
	for _, r := range t.rows {
		for i := range r.cells {
			w := ansi.StringWidth(r.cells[i].text)
			if r.cells[i].bar >= 0 {
				w += barWidth + 1
			}
			width[i] = max(width[i], w)
		}
	}
	rest := 0
	for _, w := range width[1 : len(width)-1] {
		rest += w + 2
	}
	width[0] = min(width[0], max(12, l.width-rest-4-min(width[len(width)-1], l.width/3)))
	return width
}

func drawRow(r row, width []int, l look, chosen bool) string {
	var b strings.Builder
	room := l.width
	for i := range r.cells {
		c := &r.cells[i]
		if i > 0 {
			b.WriteString("  ")
			room -= 2
		}
		w := max(0, min(width[i], room))
		if i == len(r.cells)-1 {
			w = max(0, room)
		}
		s, n := "", w
		if c.bar >= 0 && n > barWidth+1 {
			s = drawBar(c.bar, barWidth, l.ascii) + " "
			n -= barWidth + 1
			if chosen {
				s = ansi.Strip(s)
			}
		}
		txt := fit(c.text, n)
		if !chosen {
			txt = styles[c.style].Render(txt)
		}
		s = pad(s+txt, w)
		b.WriteString(s)
		room -= w
	}
	if chosen {
		return reverse.Render(pad(b.String(), l.width))
	}
	return strings.TrimRight(b.String(), " ")
}

// panelLines are the panel in the table's place, with its title.
func (s *state) panelLines(l look) []string {
	p := s.panel
	out := []string{strong.Render(fit(render.Clean(p.title), l.width))}
	room := l.height - 3 - 1 - 2
	if p.log != nil {
		return append(out, p.log.draw(l, room)...)
	}
	var lines []string
	for _, x := range p.lines {
		x = render.Clean(x)
		indent := len(x) - len(strings.TrimLeft(x, " "))
		for i, w := range render.Wrap(x, l.width-indent) {
			if i == 0 && runes(x) <= l.width {
				w = x[indent:] // as it is: columns stay
			}
			lines = append(lines, strings.Repeat(" ", indent)+w)
			if runes(x) <= l.width {
				break
			}
		}
	}
	p.top = min(max(p.top, 0), max(0, len(lines)-room))
	return append(out, lines[p.top:min(len(lines), p.top+room)]...)
}

func (l *logText) draw(on look, room int) []string {
	rows := l.rows()
	if len(rows) == 0 {
		if l.ended != "" {
			return []string{l.ended}
		}
		return []string{"no line has come yet"}
	}
	if l.follow {
		l.at = len(rows) - 1
	}
	l.at = min(l.at, len(rows)-1)
	top := min(max(0, l.at-room*2/3), max(0, len(rows)-room))
	var out []string
	for i := top; i < min(len(rows), top+room); i++ {
		r := rows[i]
		line, style := "", plain
		switch {
		case r.line == nil:
			line, style = r.phase.title(on.ascii), strong
		case r.line.bad:
			line, style = r.line.text, styles[render.Bad]
		default:
			line = r.line.text
		}
		if line = fit(line, on.width); i == l.at && !l.follow {
			out = append(out, reverse.Render(pad(line, on.width)))
			continue
		}
		out = append(out, style.Render(line))
	}
	return out
}

// saidLine is a question, or trouble, or what the last order came to, or the
// next command to type.
func (s *state) saidLine(l look) string {
	switch {
	case s.confirm != nil:
		return styles[render.Warn].Render(fit(s.confirm.question, l.width-2-runes(s.confirm.typed))) + " " + s.confirm.typed + reverse.Render(" ")
	case s.trouble != "" && !s.heard.IsZero():
		return styles[render.Bad].Render(fit(fmt.Sprintf("no answer for %s, shown is what was known then: %s", span(s.now.Sub(s.heard).Milliseconds()), s.trouble), l.width))
	case s.said != "" && s.now.Sub(s.saidAt) < saidFor:
		if s.failed {
			return styles[render.Bad].Render(fit(s.said, l.width))
		}
		return styles[render.Good].Render(fit(s.said, l.width))
	case s.panel != nil && s.panel.log != nil && s.panel.log.ended != "":
		return styles[render.Dim].Render(s.panel.log.ended)
	case s.snap.Next != "":
		return "NEXT ACTION: " + strong.Render(fit(render.Clean(s.snap.Next), l.width-13))
	}
	return ""
}

// keyLine names the keys of what is shown.
func (s *state) keyLine(l look) string {
	keys := "q quit  ? help  / filter  Enter why"
	switch {
	case s.confirm != nil:
		keys = "Esc no"
	case s.typing:
		keys = "Enter keep the filter  Esc forget it"
	case s.panel != nil && s.panel.log != nil:
		keys = "Esc back  e first error  Enter fold  G follow  w why"
	case s.panel != nil:
		keys = "Esc back"
	case s.tab == tabSwarm:
		keys += "  l log  p pause  D drain  b balance"
	case s.tab == tabQueue, s.tab == tabBuilds:
		keys += "  l log  r retry  + first  u unblock  R reset"
	case s.tab == tabReleases:
		keys += "  F finalize"
	}
	return styles[render.Dim].Render(fit(keys, l.width))
}
