package monitor

import (
	"fmt"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// part is a list below the first tab's table, as long as there is room.
type part struct {
	title string
	lines []string
	most  int    // lines that it takes at the most
	more  string // where the rest is
}

// overview is what the first tab says below its peers, in n lines: what wants
// attention, the builds that have no line above, releases, and what happened.
func (s *state) overview(l look, n int) []string {
	var out []string
	parts := []part{s.attention(l), s.further(l), s.production(l), s.lately(l)}
	for i, p := range parts {
		// Each that is to follow keeps its title and two lines, if there is room.
		room := n - len(out)
		for _, q := range parts[i+1:] {
			if len(q.lines) > 0 && room >= 8 {
				room -= 2 + min(2, len(q.lines))
			}
		}
		if len(p.lines) == 0 || room < 3 {
			continue
		}
		room = min(room-2, p.most)
		out = append(out, "", styles[render.Dim].Render(p.title))
		if hidden := len(p.lines) - room; hidden > 0 && p.more != "" {
			out = append(out, p.lines[:room-1]...)
			out = append(out, styles[render.Dim].Render(fmt.Sprintf("  and %d more: %s", hidden+1, p.more)))
			continue
		}
		out = append(out, p.lines[:min(room, len(p.lines))]...)
	}
	return out
}

// attention lists the root causes.
func (s *state) attention(l look) part {
	p := part{title: "NEEDS ATTENTION", most: 12, more: "swarm status"}
	for _, i := range s.snap.Issues {
		style := styles[render.Warn]
		if i.Severity == view.Blocked {
			style = styles[render.Bad]
		}
		line := i.Title
		if i.HoldsUp > 0 {
			line += fmt.Sprintf(" (holds up %d)", i.HoldsUp)
		}
		if i.Do != "" {
			line += ": " + i.Do
		}
		p.lines = append(p.lines, style.Render("! ")+fit(render.Clean(line), l.width-2))
	}
	return p
}

// further lists the builds of drones that have more than one: the table has room
// for the first.
func (s *state) further(l look) part {
	p := part{title: "ALSO BUILDING", most: 16, more: "3 builds"}
	for i := range s.snap.Peers {
		q := &s.snap.Peers[i]
		if len(q.Doing) < 2 || q.State == "away" || q.State == "gone" {
			continue
		}
		for n := range q.Doing[1:] {
			b := &q.Doing[n+1]
			p.lines = append(p.lines, "  "+pad(fit(render.Clean(q.Nick), 16), 16)+" "+drawBar(permille(b), barWidth, l.ascii)+" "+fit(buildText(b), l.width-30))
		}
	}
	return p
}

// production says of each target what is released, and what a release would bring
// now.
func (s *state) production(l look) part {
	p := part{title: "RELEASES", most: 8, more: "4 releases"}
	told := map[string]bool{}
	for _, r := range s.snap.Releases {
		line := fmt.Sprintf("%s/%s shows %d", r.Target, r.Channel, r.Version)
		if r.Number > 0 && r.Number != r.Version {
			line += fmt.Sprintf(" (back at release %d)", r.Number)
		}
		if r.Packages > 0 {
			line += fmt.Sprintf(", %d packages", r.Packages)
		}
		if age := s.now.Unix() - r.Timestamp; age >= 0 {
			line += ", " + render.Duration(time.Duration(age)*time.Second) + " old"
		}
		for _, x := range s.snap.Staging {
			if x.Target == r.Target {
				told[x.Target] = true
				line += "; staging: " + stagingText(x)
			}
		}
		p.lines = append(p.lines, "  "+fit(render.Clean(line), l.width-2))
	}
	for _, x := range s.snap.Staging {
		if !told[x.Target] {
			p.lines = append(p.lines, "  "+fit(render.Clean(x.Target+" has no release yet; staging: "+stagingText(x)), l.width-2))
		}
	}
	return p
}

// stagingText is what a release would bring now.
func stagingText(x view.Staging) string {
	if x.Problem != "" {
		return "cannot be composed: " + x.Problem
	}
	var parts []string
	for _, c := range []struct {
		n    int
		word string
	}{{x.New, "new"}, {x.Changed, "changed"}, {x.Gone, "gone"}, {x.Held, "held back"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	if len(parts) == 0 {
		return "nothing new"
	}
	return strings.Join(parts, ", ")
}

// latelyShown is how many events the first tab has room for at the most.
const latelyShown = 14

// lately lists what happened, the newest first.
func (s *state) lately(l look) part {
	p := part{title: "LATELY", most: latelyShown}
	for i := len(s.events) - 1; i >= 0 && len(p.lines) < p.most; i-- {
		e := &s.events[i]
		style := render.Plain
		if e.Bad {
			style = render.Warn
		}
		p.lines = append(p.lines, "  "+styles[render.Dim].Render(time.UnixMilli(e.AtMS).Format("15:04:05"))+" "+styles[style].Render(fit(render.Clean(e.Text), l.width-11)))
	}
	return p
}
