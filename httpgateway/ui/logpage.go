package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

// Bounds of what a log's page shows; the raw text has the rest.
const (
	lineShown  = 1_000 // bytes of one line
	headShown  = 150   // lines of a phase from its begin
	tailShown  = 1_200 // and from its end
	aroundUp   = 12    // lines before the first error
	aroundDown = 20    // and after it
	phasesMax  = 64
)

// logPhase is a phase of a build with the lines of it that are shown.
type logPhase struct {
	Name    string
	First   int // number of its first line, from 1
	Head    []logLine
	Skipped int
	Tail    []logLine
	Errors  int
	Open    bool
	N       int
}

type logLine struct {
	N     int
	Text  string
	Error bool
}

// logText takes a log in pieces and keeps what a page shows of it.
type logText struct {
	Phases []*logPhase
	Lines  int
	Bytes  int64
	// FirstError is the number of the first line that reads as an error, with
	// what stands around it.
	FirstError int
	Around     []logLine

	part   []byte // of a line whose end has not come
	cut    int64  // bytes of that line that are not kept
	before []logLine
}

func newLogText() *logText { return &logText{Phases: []*logPhase{{Name: "begin", First: 1}}} }

// Write takes a piece.
func (l *logText) Write(b []byte) (int, error) {
	n := len(b)
	l.Bytes += int64(n)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		piece := b
		if i >= 0 {
			piece = b[:i]
		}
		if room := 4*lineShown - len(l.part); room < len(piece) {
			l.cut += int64(len(piece) - max(0, room))
			piece = piece[:max(0, room)]
		}
		l.part = append(l.part, piece...)
		if i < 0 {
			break
		}
		l.line()
		b = b[i+1:]
	}
	return n, nil
}

// end takes what is left as a line.
func (l *logText) end() {
	if len(l.part) > 0 || l.cut > 0 {
		l.line()
	}
}

func (l *logText) line() {
	text := shownLine(l.part, l.cut)
	phase := view.LogPhase(text)
	l.part, l.cut = l.part[:0], 0
	l.Lines++
	if phase != "" && len(l.Phases) < phasesMax && phase != l.Phases[len(l.Phases)-1].Name {
		l.Phases = append(l.Phases, &logPhase{Name: phase, First: l.Lines})
	}
	x := logLine{l.Lines, text, view.LogError(text)}
	p := l.Phases[len(l.Phases)-1]
	p.add(x)
	switch {
	case x.Error && l.FirstError == 0:
		l.FirstError = l.Lines
		l.Around = append(l.before, x)
		p.Open = true
	case l.FirstError > 0 && l.Lines <= l.FirstError+aroundDown:
		l.Around = append(l.Around, x)
	case l.FirstError == 0:
		if len(l.before) == aroundUp {
			l.before = append(l.before[:0], l.before[1:]...)
		}
		l.before = append(l.before, x)
	}
}

func (p *logPhase) add(x logLine) {
	p.N++
	if x.Error {
		p.Errors++
	}
	if len(p.Head) < headShown {
		p.Head = append(p.Head, x)
		return
	}
	if len(p.Tail) == 2*tailShown {
		p.Skipped += tailShown
		p.Tail = append(p.Tail[:0], p.Tail[tailShown:]...)
	}
	p.Tail = append(p.Tail, x)
}

// shownLine is a line for people: no terminal sequences, what a carriage return
// overwrote left out, and no longer than a page can bear.
func shownLine(b []byte, cut int64) string {
	s := strings.TrimSuffix(string(b), "\r")
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	s = stripEscapes(s)
	if len(s) <= lineShown && cut == 0 {
		return s
	}
	kept := clip(s, lineShown)
	if cut > 0 {
		kept = fmt.Sprintf("%s … (%s more on this line)", strings.ToValidUTF8(s[:min(len(s), lineShown)], ""), size(cut+int64(max(0, len(s)-lineShown))))
	}
	return kept
}

// logView is a log's page.
type logView struct {
	*logText
	Job     *view.Job
	Key     string
	CPV     string
	CID     string
	Live    bool
	Raw     string
	Problem string
}

func (u *UI) logPage(w http.ResponseWriter, r *http.Request) {
	key, cid := r.PathValue("key"), r.URL.Query().Get("build")
	if !build.Key(key).Valid() {
		u.fail(w, r, http.StatusNotFound, "No such log", "a log goes by the key of its job")
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		u.followLog(w, r, key)
		return
	}
	d, err := u.cfg.Source.Latest(r.Context())
	if err != nil {
		u.problem(w, r, err)
		return
	}
	v := &logView{logText: newLogText(), Key: key, CPV: short(key), CID: cid, Raw: link(Prefix+"log/"+key+"/raw", "build", cid)}
	for i := range d.Jobs {
		if string(d.Jobs[i].Key) == key {
			v.Job, v.CPV = &d.Jobs[i], d.Jobs[i].CPV
		}
	}
	v.Live = cid == "" && v.Job != nil && (v.Job.State == "building" || v.Job.State == "claimed")
	err = u.cfg.Source.Log(r.Context(), v.logText, key, cid, false)
	switch {
	case err != nil && v.Bytes == 0 && !v.Live:
		u.problem(w, r, err)
		return
	case err != nil && !errors.Is(err, ErrNotFound):
		v.Problem = build.OneLine(err.Error(), 300)
	}
	if !v.Live {
		v.end()
	} else {
		v.Bytes -= int64(len(v.part)) + v.cut // what follows begins with that line
	}
	v.Phases[len(v.Phases)-1].Open = true
	u.send(w, r, &page{Title: "Log of " + v.CPV, Here: "packages", Detail: d, Sections: []section{{"log", v}}})
}

func (u *UI) rawLog(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if !build.Key(key).Valid() {
		u.fail(w, r, http.StatusNotFound, "No such log", "a log goes by the key of its job")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `inline; filename="`+short(key)+`.log"`)
	h.Set("Cache-Control", "no-store")
	out := &counted{w: w}
	if err := u.cfg.Source.Log(r.Context(), out, key, r.URL.Query().Get("build"), false); err != nil {
		if out.n > 0 {
			panic(http.ErrAbortHandler) // half a log is no log
		}
		h.Del("Content-Disposition")
		u.problem(w, r, err)
	}
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// followLog sends what is added to a log, from byte `from` on: "line" with HTML
// of lines, "phase" with the name of one that begins, "end" when the build has
// ended.
func (u *UI) followLog(w http.ResponseWriter, r *http.Request, key string) {
	q := r.URL.Query()
	from, err := strconv.ParseInt(q.Get("from"), 10, 64)
	if err != nil || from < 0 {
		from = 0
	}
	// A browser that lost the connection says how far it came.
	if n, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && n > from {
		from = n
	}
	lines, err := strconv.Atoi(q.Get("line"))
	if err != nil || lines < 0 {
		lines = 0
	}
	f := &follower{ctx: r.Context(), stream: newStream(w), tmpl: u.pages, skip: from, at: from, line: lines}
	if !f.event("hello", u.build) {
		return
	}
	if err := u.cfg.Source.Log(r.Context(), f, key, "", true); err != nil && r.Context().Err() == nil {
		u.cfg.Log.Debug("log not followed", "job", key, "error", err)
		return
	}
	if f.flush(true) {
		f.event("end", "the build has ended")
	}
}

// follower turns pieces of a log into events.
type follower struct {
	*stream
	ctx  context.Context
	tmpl *template.Template
	skip int64
	at   int64 // byte after the last line that was sent
	line int
	part []byte
	cut  int64
}

// Write takes a piece; what is before skip was on the page already.
func (f *follower) Write(b []byte) (int, error) {
	n := len(b)
	if f.skip > 0 {
		k := min(f.skip, int64(len(b)))
		b, f.skip = b[k:], f.skip-k
	}
	f.part = append(f.part, b...)
	if !f.flush(false) {
		return 0, errors.Join(errGone, f.ctx.Err())
	}
	return n, nil
}

var errGone = errors.New("nobody reads any more")

// flush sends whole lines, and at the end whatever is left.
func (f *follower) flush(end bool) bool {
	var lines []logLine
	send := func() bool {
		if len(lines) == 0 {
			return true
		}
		var html bytes.Buffer
		if err := f.tmpl.ExecuteTemplate(&plainText{w: &html}, "loglines", lines); err != nil {
			return false
		}
		lines = nil
		return f.numbered(f.at, "lines", html.String())
	}
	for {
		i := bytes.IndexByte(f.part, '\n')
		if i < 0 && end && len(f.part) > 0 {
			i = len(f.part)
		}
		if i < 0 {
			break
		}
		raw := f.part[:i]
		var cut int64
		if len(raw) > 4*lineShown {
			raw, cut = raw[:4*lineShown], int64(len(raw)-4*lineShown)
		}
		text := shownLine(raw, cut+f.cut)
		f.line++
		if p := view.LogPhase(text); p != "" {
			if !send() || !f.numbered(f.at, "phase", p) {
				return false
			}
		}
		lines = append(lines, logLine{f.line, text, view.LogError(text)})
		f.at += int64(min(len(f.part), i+1)) + f.cut
		f.part, f.cut = f.part[min(len(f.part), i+1):], 0
		if len(lines) >= 500 && !send() {
			return false
		}
	}
	if over := len(f.part) - 4*lineShown; over > 0 {
		f.part, f.cut = f.part[:4*lineShown], f.cut+int64(over)
	}
	return send()
}

// numbered sends an event that a browser can take up again at.
func (s *stream) numbered(id int64, name, data string) bool {
	_, err := fmt.Fprintf(s.w, "id: %d\nevent: %s\n", id, name)
	if err != nil {
		return false
	}
	for _, line := range strings.Split(data, "\n") {
		if _, err := fmt.Fprintf(s.w, "data: %s\n", line); err != nil {
			return false
		}
	}
	_, err = fmt.Fprint(s.w, "\n")
	return err == nil && s.rc.Flush() == nil
}
