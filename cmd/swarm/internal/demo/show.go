package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// Show tells a person how the demo goes: a table that is drawn over on a
// terminal, a line for each change when piped. It writes to stderr, where all
// that is not data goes.
type Show struct {
	out   render.Out
	began time.Time
	mu    sync.Mutex
	drawn int // lines of the table that stand on the terminal
	last  string
	lost  string // name of the killed peer
}

// NewShow writes to w; a nil *Show shows nothing.
func NewShow(w io.Writer) *Show { return &Show{out: render.To(w), began: time.Now()} }

// Step is something that happened; it stays.
func (s *Show) Step(format string, args ...any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.out.Printf("%5.1fs  %s\n", time.Since(s.began).Seconds(), render.Clean(fmt.Sprintf(format, args...)))
}

// Lost says which peer is no more: the others find out when its lease has run
// out.
func (s *Show) Lost(name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = name
}

func (s *Show) erase() {
	if s.drawn > 0 {
		s.out.Printf("\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// Progress shows where the swarm is now.
func (s *Show) Progress(snap view.Snapshot) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, counts := progressLines(snap, s.lost)
	if s.out.TTY {
		s.erase()
		for _, l := range lines {
			s.out.Printf("%s\n", render.Fit(l, s.out.Width-1))
		}
		s.drawn = len(lines)
		return
	}
	// Piped: a line when the counts have changed.
	if len(lines) == 0 || counts == s.last {
		return
	}
	s.last = counts
	s.out.Printf("%5.1fs  %s\n", time.Since(s.began).Seconds(), strings.TrimSpace(lines[0]))
}

// progressLines are the rounds and the peers; counts are the rounds without
// their forecast, which changes all the time.
func progressLines(snap view.Snapshot, lost string) (lines []string, counts string) {
	for _, r := range snap.Rounds {
		line := fmt.Sprintf("        %d of %d built, %d building, %d waiting", r.Done, r.Jobs, r.Building, r.Ready+r.Waiting)
		counts += line
		low, high := render.Duration(time.Duration(r.LeftLowMS)*time.Millisecond), render.Duration(time.Duration(r.LeftHighMS)*time.Millisecond)
		switch {
		case r.LeftHighMS <= 0:
		case low == high:
			line += ", " + high + " left"
		default:
			line += ", " + low + " to " + high + " left"
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, ""
	}
	for _, p := range snap.Peers {
		what := p.State
		switch {
		case p.Nick != lost:
		case p.State == "away":
			what = "killed; its lease has run out"
		default:
			what = "killed; its lease runs out 30 s after its last word"
		}
		for _, b := range p.Doing {
			if p.State == "building" && p.Nick != lost {
				what = fmt.Sprintf("building %s (%s, %s)", b.CPV, b.Phase, render.Duration(time.Duration(b.InvestedMS)*time.Millisecond))
			}
		}
		lines = append(lines, fmt.Sprintf("        %-9s %s", render.Clean(p.Nick), render.Clean(what)))
	}
	return lines, counts
}
