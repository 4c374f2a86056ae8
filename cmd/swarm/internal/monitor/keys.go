package monitor

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// press takes one key, as bubbletea names it, and returns what it asks for.
// page is how many rows the table or the panel has room for.
func (s *state) press(key string, page int) ask {
	if key == "ctrl+c" {
		s.quit = true
		return nil
	}
	switch {
	case s.confirm != nil:
		return s.pressConfirm(key)
	case s.typing:
		s.pressFilter(key)
		return nil
	case s.panel != nil:
		return s.pressPanel(key, page)
	}
	return s.pressTable(key, page)
}

func (s *state) pressConfirm(key string) ask {
	c := s.confirm
	switch {
	case key == "esc":
		s.confirm = nil
		s.say("nothing was done", false)
	case c.word == "" && (key == "y" || key == "Y"), key == "enter" && c.word != "" && c.typed == c.word:
		s.confirm = nil
		return c.then
	case c.word == "":
		s.confirm = nil
		s.say("nothing was done", false)
	default:
		c.typed = edit(c.typed, key)
	}
	return nil
}

// edit is a line after a key.
func edit(line, key string) string {
	switch {
	case key == "backspace":
		_, n := utf8.DecodeLastRuneInString(line)
		return line[:len(line)-n]
	case key == "ctrl+u":
		return ""
	case key == "space":
		return line + " "
	case utf8.RuneCountInString(key) == 1 && len(line) < 200:
		return line + key
	}
	return line
}

func (s *state) pressFilter(key string) {
	switch key {
	case "enter":
		s.typing = false
	case "esc":
		s.typing, s.filter = false, ""
	default:
		s.filter = edit(s.filter, key)
	}
}

func (s *state) pressPanel(key string, page int) ask {
	p := s.panel
	if p.log != nil && p.log.press(key, page) {
		return nil
	}
	switch key {
	case "esc", "q", "left", "h":
		s.panel = nil
	case "down", "j":
		p.top++
	case "up", "k":
		p.top--
	case "pgdown", "space":
		p.top += page
	case "pgup":
		p.top -= page
	case "home", "g":
		p.top = 0
	case "end", "G":
		p.top = len(p.lines)
	case "l":
		if j := s.job(p.about); j != nil && p.log == nil {
			return s.openLog(p.about)
		}
	case "w":
		if j := s.job(p.about); j != nil && p.log != nil {
			return s.openWhy(p.about)
		}
	}
	return nil
}

// pressTable is the grammar of the tables.
func (s *state) pressTable(key string, page int) ask {
	switch key {
	case "q":
		s.quit = true
	case "tab", "right":
		return s.open((s.tab + 1) % tabCount)
	case "shift+tab", "left":
		return s.open((s.tab + tabCount - 1) % tabCount)
	case "1", "2", "3", "4", "5", "6":
		return s.open(tab(key[0] - '1'))
	case "down", "j":
		s.move(1)
	case "up", "k":
		s.move(-1)
	case "pgdown":
		s.move(page)
	case "pgup":
		s.move(-page)
	case "home", "g":
		s.move(-1 << 20)
	case "end", "G":
		s.move(1 << 20)
	case "/":
		s.typing = true
	case "esc":
		s.filter = ""
	case "?":
		s.panel = &panel{title: "keys", lines: help}
	case "enter", "w":
		return s.openRow()
	case "l":
		if j := s.chosenJob(); j != "" {
			return s.openLog(j)
		}
		s.say("choose a job first: tab 2 or 3", true)
	default:
		return s.order(key)
	}
	return nil
}

// open shows a tab; what it needs is asked for at once.
func (s *state) open(t tab) ask {
	s.tab = t
	return askNow{}
}

// move moves the cursor over the rows that are shown.
func (s *state) move(by int) {
	rows := s.table().rows
	if len(rows) == 0 {
		return
	}
	at := max(0, slices.IndexFunc(rows, func(r row) bool { return r.key == s.chosen[s.tab] }))
	at = min(max(at+by, 0), len(rows)-1)
	s.chosen[s.tab] = rows[at].key
}

// chosenRow is the key of the row under the cursor, "" when there is none.
func (s *state) chosenRow() string {
	rows := s.table().rows
	if i := slices.IndexFunc(rows, func(r row) bool { return r.key == s.chosen[s.tab] }); i >= 0 {
		return rows[i].key
	}
	if len(rows) > 0 {
		return rows[0].key
	}
	return ""
}

// chosenJob is the job under the cursor: of the tables of jobs the row, of a
// peer what it builds.
func (s *state) chosenJob() string {
	key := s.chosenRow()
	switch s.tab {
	case tabQueue, tabBuilds:
		return key
	case tabSwarm:
		if p := s.peer(key); p != nil && len(p.Doing) > 0 {
			return string(p.Doing[0].Key)
		}
	}
	return ""
}

func (s *state) openRow() ask {
	key := s.chosenRow()
	switch s.tab {
	case tabQueue, tabBuilds:
		return s.openWhy(key)
	case tabSwarm, tabStorage:
		if p := s.peer(key); p != nil {
			s.panel = &panel{title: "why " + p.Nick, lines: []string{"asking the daemon ..."}, about: p.ID}
			return askDrone{p.ID}
		}
	case tabReleases:
		s.panel = &panel{title: "release", lines: s.releaseText(key)}
	}
	return nil
}

func (s *state) openWhy(job string) ask {
	if job == "" {
		return nil
	}
	s.panel = &panel{title: "why " + s.nameOf(job), lines: []string{"asking the daemon ..."}, about: job}
	return askWhy{job}
}

func (s *state) openLog(job string) ask {
	s.panel = &panel{title: "log of " + s.nameOf(job), about: job, log: newLogText()}
	return askLog{job}
}

func (s *state) nameOf(job string) string {
	if j := s.job(job); j != nil {
		return j.CPV
	}
	for _, p := range s.snap.Peers {
		for _, b := range p.Doing {
			if string(b.Key) == job {
				return b.CPV
			}
		}
	}
	return job[:min(len(job), 12)]
}

// order is the keys that change something. What cannot be undone by another key
// asks first.
func (s *state) order(key string) ask {
	order := func(verb, scope string, off bool) control.Order {
		return control.Order{Verb: verb, Scope: scope, Off: off}
	}
	switch key {
	case "b":
		return askOrders{[]control.Order{order("balance", control.All, false)}}
	case "u":
		n := s.blocked()
		if n == 0 {
			s.say("nothing is blocked", false)
			return nil
		}
		s.confirm = &confirm{question: fmt.Sprintf("forget the failures of %s and try again? [y/N]", count(n, "blocked job")), then: askOrders{[]control.Order{order("unblock", control.All, false)}}}
	case "r":
		if j := s.chosenJob(); j != "" {
			return askOrders{[]control.Order{order("unblock", j, false)}}
		}
		s.say("choose a job to retry first: tab 2 or 3", true)
	case "+":
		if j := s.chosenJob(); j != "" {
			return askOrders{[]control.Order{order("bump", j, false)}}
		}
		s.say("choose a job to put first: tab 2 or 3", true)
	case "p", "D":
		p := s.peer(s.chosenRow())
		if s.tab != tabSwarm && s.tab != tabStorage || p == nil {
			s.say("choose a peer first: tab 1", true)
			return nil
		}
		if p.Ordered {
			return askOrders{[]control.Order{order("pause", p.ID, true), order("drain", p.ID, true)}}
		}
		if key == "p" {
			return askOrders{[]control.Order{order("pause", p.ID, false)}}
		}
		s.confirm = &confirm{question: "let " + p.Nick + " finish what it builds and take no more? [y/N]", then: askOrders{[]control.Order{order("drain", p.ID, false)}}}
	case "R", "F":
		t := s.target()
		if t == "" {
			s.say(fmt.Sprintf("choose a job or a release first: there are %d targets", len(s.targets())), true)
			return nil
		}
		if key == "R" {
			s.confirm = &confirm{question: "reset " + t + " (what is built stays)? Type its name:", word: t,
				then: askOrders{[]control.Order{order("reset", t, false)}}}
		} else {
			s.confirm = &confirm{question: "release what is built for " + t + "? Type its name:", word: t, then: askFinalize{t}}
		}
	}
	return nil
}

var help = []string{
	"1-6, Tab     the tables: swarm, queue, builds, releases, storage, events",
	"arrows, j k  choose a row            g G   first, last",
	"/            filter the table        Esc   close, forget the filter",
	"Enter, w     why: what a job waits for, what a drone is kept by",
	"l            the build's log, as it grows; e jumps to the first error,",
	"             Enter folds and unfolds a phase, G follows the end",
	"",
	"b            balance: what is claimed and not begun is given back",
	"u            unblock all: forget the failures, try again",
	"r            retry the chosen job    +     put the chosen job first",
	"p            pause the chosen peer, or let it go on",
	"D            drain the chosen peer: finish, take no more",
	"F            finalize: release what is built (asks for the name)",
	"R            reset a target: forget claims, failures, rounds (asks for the name)",
	"",
	"q            quit                    ?     this page",
}
