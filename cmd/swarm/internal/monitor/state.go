package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// tab is one table.
type tab int

const (
	tabSwarm tab = iota
	tabQueue
	tabBuilds
	tabReleases
	tabStorage
	tabEvents
	tabCount
)

var tabNames = [tabCount]string{"swarm", "queue", "builds", "releases", "storage", "events"}

// needs is what a tab shows beside the snapshot.
func (t tab) needs() (jobs, events, releases bool) {
	return t == tabQueue || t == tabBuilds, t == tabEvents || t == tabSwarm, t == tabReleases
}

// rateMinutes is how many minutes the rate's line looks back.
const rateMinutes = 60

// state is everything that the screen shows. It is for one goroutine.
type state struct {
	now time.Time

	// What the daemon said last, when, and why it does not answer now.
	snap     view.Snapshot
	jobs     []view.Job
	events   []view.Event
	releases []control.ReleasesReply
	heard    time.Time
	trouble  string

	// done is how many builds had ended well at the begin of each minute, by
	// minute since 1970: what the rate is drawn from.
	done map[int64]int

	tab    tab
	chosen [tabCount]string // key of the row under the cursor
	top    [tabCount]int    // first row that is drawn
	filter string
	typing bool // the filter is being typed

	panel   *panel   // over the table
	confirm *confirm // over everything
	said    string   // what the last order came to
	saidAt  time.Time
	failed  bool // and it did not
	quit    bool
}

func newState(now time.Time) *state { return &state{now: now, done: map[int64]int{}} }

// panel is text about one thing, over the table.
type panel struct {
	title string
	lines []string
	top   int
	log   *logText // instead of lines
	about string   // key of what it is about: an answer for another is late
}

// confirm is a question before something that cannot be taken back. With typed
// the word has to be written; else y is enough.
type confirm struct {
	question string
	word     string
	typed    string
	then     ask
}

// ask is something for the daemon.
type ask interface{ ask() }

type (
	askWhy      struct{ job string }
	askDrone    struct{ peer string }
	askLog      struct{ job string }
	askOrders   struct{ orders []control.Order }
	askFinalize struct{ target string }
	askNow      struct{} // look again at once
)

func (askWhy) ask()      {}
func (askDrone) ask()    {}
func (askLog) ask()      {}
func (askOrders) ask()   {}
func (askFinalize) ask() {}
func (askNow) ask()      {}

// answer is what the daemon said of what a tab needs; parts that were not asked
// for are nil.
type answer struct {
	snap     *view.Snapshot
	jobs     []view.Job
	events   []view.Event
	releases []control.ReleasesReply
}

// takeAnswer takes in a look at the swarm.
func (s *state) takeAnswer(a answer) {
	s.heard, s.trouble = s.now, ""
	if a.snap != nil {
		s.snap = *a.snap
		s.noteRate()
	}
	if a.jobs != nil {
		s.jobs = a.jobs
		slices.SortStableFunc(s.jobs, func(a, b view.Job) int { return cmp.Compare(jobOrder(a.State), jobOrder(b.State)) })
	}
	if a.events != nil {
		s.events = a.events
	}
	if a.releases != nil {
		s.releases = a.releases
	}
}

// takeTrouble notes that the daemon does not answer.
func (s *state) takeTrouble(why string) { s.trouble = render.Clean(why) }

func (s *state) say(text string, failed bool) {
	s.said, s.saidAt, s.failed = render.Clean(text), s.now, failed
}

// noteRate counts what is built, once a minute.
func (s *state) noteRate() {
	n := 0
	for _, r := range s.snap.Rounds {
		n += r.Done
	}
	minute := s.now.Unix() / 60
	s.done[minute] = n
	for m := range s.done {
		if m < minute-rateMinutes {
			delete(s.done, m)
		}
	}
}

// rate is builds per minute over the last minutes, oldest first. A minute that
// nobody looked at counts with the next one.
func (s *state) rate() []int {
	var minutes []int64
	for m := range s.done {
		minutes = append(minutes, m)
	}
	slices.Sort(minutes)
	var out []int
	for i := 1; i < len(minutes); i++ {
		// Rounds that are forgotten take their builds with them.
		out = append(out, max(0, s.done[minutes[i]]-s.done[minutes[i-1]]))
	}
	return out
}

// jobOrder puts first what a person looks for.
func jobOrder(state string) int {
	return slices.Index([]string{"available", "safe", "waiting", "away", "ready", "claimed", "building", "unfit", "blocked"}, state) * -1
}

func (s *state) job(key string) *view.Job {
	i := slices.IndexFunc(s.jobs, func(j view.Job) bool { return string(j.Key) == key })
	if i < 0 {
		return nil
	}
	return &s.jobs[i]
}

func (s *state) peer(id string) *view.Peer {
	i := slices.IndexFunc(s.snap.Peers, func(p view.Peer) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return &s.snap.Peers[i]
}

// targets are those that open rounds and releases speak of.
func (s *state) targets() []string {
	var out []string
	for _, r := range s.snap.Rounds {
		out = append(out, r.Target)
	}
	for _, r := range s.snap.Releases {
		out = append(out, r.Target)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// target is the one that an order means: that of the chosen row, or the only
// one.
func (s *state) target() string {
	switch s.tab {
	case tabQueue, tabBuilds:
		if j := s.job(s.chosen[s.tab]); j != nil {
			return j.Target
		}
	case tabReleases:
		if t, _, ok := strings.Cut(s.chosen[s.tab], " "); ok {
			return t
		}
	}
	if all := s.targets(); len(all) == 1 {
		return all[0]
	}
	return ""
}

// takeWhy, takeDrone and takeReply show what an ask came to.
func (s *state) takeWhy(w view.Why) {
	if s.panel == nil || s.panel.about != string(w.Key) {
		return
	}
	p := s.panel
	p.lines = []string{w.Sentence, ""}
	for _, x := range w.WaitsFor {
		p.lines = append(p.lines, fmt.Sprintf("  waits for %s (%s)%s", x.CPV, x.State, inAbout(x.LeftMS)))
	}
	if w.HoldsUp > 0 {
		p.lines = append(p.lines, fmt.Sprintf("  holds up %d jobs", w.HoldsUp))
	}
	if w.Next != "" {
		p.lines = append(p.lines, "  next: "+w.Next+inAbout(w.NextMS))
	}
	p.lines = append(p.lines, "")
	for _, d := range w.Drones {
		could := "cannot"
		if d.Could {
			could = "could "
		}
		p.lines = append(p.lines, fmt.Sprintf("  %-16s %s  %s", d.Nick, could, d.Reason))
	}
	if w.Do != "" {
		p.lines = append(p.lines, "", "NEXT ACTION: "+w.Do)
	}
}

func (s *state) takeDrone(w view.DroneWhy) {
	if s.panel == nil || s.panel.about != w.Peer {
		return
	}
	s.panel.lines = []string{w.Sentence, ""}
	for _, j := range w.Jobs {
		s.panel.lines = append(s.panel.lines, "  the plan has "+j.CPV+" for it"+inAbout(j.LeftMS))
	}
	for _, u := range w.Unfit {
		s.panel.lines = append(s.panel.lines, "  not for it: "+u.CPV+": "+u.Reason)
	}
}

func inAbout(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return ", in about " + span(ms)
}

func span(ms int64) string { return render.Duration(time.Duration(ms) * time.Millisecond) }

// takeFinalized says what a finalize did.
func (s *state) takeFinalized(r control.FinalizeReply) {
	switch {
	case r.Refused != "":
		s.say("not released: "+r.Refused, true)
	case !r.Released:
		s.say(fmt.Sprintf("nothing new to release; release %d of %s stays", r.Number, r.Target), false)
	default:
		s.say(fmt.Sprintf("release %d of %s: %d packages, %d held back", r.Number, r.Target, r.Packages, len(r.Held)), false)
	}
}

// blockedKeys are the jobs that failed wherever they fit.
func (s *state) blocked() int {
	n := 0
	for _, r := range s.snap.Rounds {
		if r.State == string(build.RoundOpen) {
			n += r.Blocked
		}
	}
	return n
}
