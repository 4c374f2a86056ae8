package monitor

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// What is kept of a log; the rest of it stands in `swarm logs`.
const (
	logLines  = 20_000
	lineBytes = 2_000
)

// logText is a build's log as it grows, folded by phases. A phase that is over
// without an error folds itself.
type logText struct {
	phases []*logPhase
	part   strings.Builder // of a line whose end has not come
	cut    int             // bytes of that line that are not kept
	lines  int             // of all phases
	lost   int             // oldest lines that are not kept
	ended  string          // how it ended; "" while it grows

	at     int // the row under the cursor
	follow bool
}

type logPhase struct {
	name   string
	lines  []logLine
	errors int
	folded bool
	opened bool // by hand: it does not fold itself
}

type logLine struct {
	text string
	bad  bool
}

func newLogText() *logText {
	return &logText{phases: []*logPhase{{name: "begin"}}, follow: true}
}

// take adds a piece that is free of control sequences.
func (l *logText) take(b string) {
	for b != "" {
		piece, rest, whole := strings.Cut(b, "\n")
		if room := lineBytes - l.part.Len(); room < len(piece) {
			l.cut += len(piece) - max(0, room)
			piece = piece[:max(0, room)]
		}
		l.part.WriteString(piece)
		if !whole {
			return
		}
		l.line()
		b = rest
	}
}

// end takes what is left as a line, and says how the log ended.
func (l *logText) end(how string) {
	if l.part.Len() > 0 || l.cut > 0 {
		l.line()
	}
	l.ended = how
}

func (l *logText) line() {
	text := render.Clean(strings.ReplaceAll(strings.ToValidUTF8(l.part.String(), "?"), "\t", "    "))
	if l.cut > 0 {
		text += fmt.Sprintf(" ... (%s more on this line)", render.Bytes(int64(l.cut)))
	}
	l.part.Reset()
	l.cut = 0
	p := l.phases[len(l.phases)-1]
	if name := view.LogPhase(text); name != "" && name != p.name {
		p.folded = p.errors == 0 && !p.opened
		p = &logPhase{name: name}
		l.phases = append(l.phases, p)
	}
	bad := view.LogError(text)
	if bad {
		p.errors++
	}
	p.lines = append(p.lines, logLine{text, bad})
	if l.lines++; l.lines > logLines {
		l.drop()
	}
}

// drop forgets the oldest tenth: a copy of what is kept for each line would be
// the cost else.
func (l *logText) drop() {
	for n := logLines / 10; n > 0 && len(l.phases) > 0; {
		p := l.phases[0]
		k := min(n, len(p.lines))
		p.lines = append([]logLine(nil), p.lines[k:]...)
		n, l.lines, l.lost = n-k, l.lines-k, l.lost+k
		if len(p.lines) == 0 && len(l.phases) > 1 {
			l.phases = l.phases[1:]
		}
	}
	l.at = 0
}

// logRow is one row of the folded log: a phase's head, or a line of it.
type logRow struct {
	phase *logPhase
	line  *logLine // nil for the head
}

func (l *logText) rows() []logRow {
	var out []logRow
	for _, p := range l.phases {
		if len(p.lines) == 0 {
			continue
		}
		out = append(out, logRow{phase: p})
		if p.folded {
			continue
		}
		for i := range p.lines {
			out = append(out, logRow{p, &p.lines[i]})
		}
	}
	return out
}

// press moves in the log; false for a key that is not the log's.
func (l *logText) press(key string, page int) bool {
	rows := l.rows()
	last := len(rows) - 1
	if l.follow {
		l.at = last
	}
	switch key {
	case "down", "j":
		l.at++
	case "up", "k":
		l.at--
	case "pgdown", "space":
		l.at += page
	case "pgup":
		l.at -= page
	case "home", "g":
		l.at = 0
	case "end", "G":
		l.at = last
	case "enter", "right":
		if l.at < 0 || l.at > last {
			return true
		}
		p := rows[l.at].phase
		p.folded = !p.folded && key == "enter"
		p.opened = !p.folded
		for i, r := range l.rows() {
			if r.phase == p && r.line == nil {
				l.at = i
			}
		}
		l.follow = false
		return true
	case "e":
		l.firstError()
		return true
	default:
		return false
	}
	l.at = min(max(l.at, 0), max(last, 0))
	l.follow = l.at == last && key != "up" && key != "k"
	return true
}

// firstError puts the cursor on the first line that reads as an error.
func (l *logText) firstError() {
	for _, p := range l.phases {
		if p.errors > 0 {
			p.folded = false
			break
		}
	}
	for i, r := range l.rows() {
		if r.line != nil && r.line.bad {
			l.at, l.follow = i, false
			return
		}
	}
}

// title is a phase's head.
func (p *logPhase) title(ascii bool) string {
	mark := "▾ "
	if p.folded {
		mark = "▸ "
	}
	if ascii {
		mark = map[bool]string{true: "+ ", false: "- "}[p.folded]
	}
	errs := ""
	if p.errors > 0 {
		errs = ", " + count(p.errors, "error")
	}
	return fmt.Sprintf("%s%s  %s%s", mark, p.name, count(len(p.lines), "line"), errs)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func runes(s string) int { return utf8.RuneCountInString(s) }
