package monitor

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

const (
	lookEvery = time.Second
	saidFor   = 8 * time.Second
	eventsFor = 24 * time.Hour
	maxEvents = 2_000
)

// Daemon is whom the monitor asks: control.Client, or a swarm in memory.
type Daemon interface {
	Status(ctx context.Context) (view.Snapshot, error)
	Jobs(ctx context.Context, round string) ([]view.Job, error)
	Events(ctx context.Context, since int64, limit int) (control.Events, error)
	Releases(ctx context.Context, target string) (control.ReleasesReply, error)
	Why(ctx context.Context, job string) (view.Why, error)
	WhyDrone(ctx context.Context, peer string) (view.DroneWhy, error)
	Log(ctx context.Context, w io.Writer, job string, follow bool) error
	Order(ctx context.Context, o control.Order) (control.OrderReply, error)
	Finalize(ctx context.Context, req control.FinalizeRequest) (control.FinalizeReply, error)
}

// Run shows the swarm on the terminal of in and out until the person quits or
// ctx ends.
func Run(ctx context.Context, d Daemon, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a log that is followed
	m := &model{ctx: ctx, d: d, s: newState(time.Now()), look: look{ascii: !unicodeLocale(os.Getenv)}}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return context.Canceled
	}
	return err
}

// unicodeLocale reads the locale as the C library does.
func unicodeLocale(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := env(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}

// model carries a state's asks to the daemon, and its answers back.
type model struct {
	ctx  context.Context
	d    Daemon
	s    *state
	look look

	looking bool               // a look is under way
	stopLog context.CancelFunc // ends the log that is followed; nil when none is
	pieces  *pieces            // of that log
}

type (
	tick     time.Time
	trouble  struct{ err error } // of a look
	replied  struct{ text string }
	refused  struct{ err error }
	logPiece struct {
		from *pieces
		text string
	}
	logEnd struct {
		from *pieces
		err  error
	}
)

// Init asks for the first look.
func (m *model) Init() tea.Cmd { return tea.Batch(m.lookNow(), after()) }

func after() tea.Cmd { return tea.Tick(lookEvery, func(t time.Time) tea.Msg { return tick(t) }) }

// Update takes one message.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.look.width, m.look.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		cmd = m.do(m.s.press(msg.String(), m.look.page()))
	case tick:
		m.s.now = time.Time(msg)
		cmd = tea.Batch(m.lookNow(), after())
	case answer:
		m.looking = false
		m.s.takeAnswer(msg)
	case trouble:
		m.looking = false
		m.s.takeTrouble(msg.err.Error())
	case view.Why:
		m.s.takeWhy(msg)
	case view.DroneWhy:
		m.s.takeDrone(msg)
	case control.FinalizeReply:
		m.s.takeFinalized(msg)
	case replied:
		m.s.say(msg.text, false)
		cmd = m.lookNow()
	case refused:
		m.refuse(msg.err)
	case logPiece:
		if m.s.panel != nil && m.s.panel.log != nil && msg.from == m.pieces {
			m.s.panel.log.take(msg.text)
			cmd = msg.from.next
		}
	case logEnd:
		if m.s.panel != nil && m.s.panel.log != nil && msg.from == m.pieces {
			m.s.panel.log.end(howEnded(msg.err))
		}
	}
	if m.stopLog != nil && (m.s.panel == nil || m.s.panel.log == nil) {
		m.stopLog()
		m.stopLog, m.pieces = nil, nil
	}
	if m.s.quit {
		return m, tea.Quit
	}
	return m, cmd
}

// refuse shows what a question came to: in its panel, else as a line.
func (m *model) refuse(err error) {
	text := err.Error()
	if e, ok := errors.AsType[*control.Error](err); ok && e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	if p := m.s.panel; p != nil && p.log == nil {
		p.lines = []string{text}
		return
	}
	m.s.say(text, true)
}

func howEnded(err error) string {
	if err != nil {
		return "the log ends here: " + render.Clean(err.Error())
	}
	return "end of the log"
}

// View draws.
func (m *model) View() tea.View {
	v := tea.NewView(m.s.screen(m.look))
	v.AltScreen, v.WindowTitle = true, "swarm monitor"
	return v
}

// lookNow asks for what the tab shows, if no look is under way.
func (m *model) lookNow() tea.Cmd {
	if m.looking {
		return nil
	}
	m.looking = true
	jobs, events, releases := m.s.tab.needs()
	targets, now, most := m.s.targets(), m.s.now, maxEvents
	if m.s.tab == tabSwarm {
		most = latelyShown
	}
	return func() tea.Msg {
		s, err := m.d.Status(m.ctx)
		if err != nil {
			return trouble{err}
		}
		a := answer{snap: &s}
		if jobs {
			if a.jobs, err = m.d.Jobs(m.ctx, ""); err != nil {
				return trouble{err}
			}
			a.jobs = append([]view.Job{}, a.jobs...) // nil says that they were not asked for
		}
		if events {
			list, err := m.d.Events(m.ctx, now.Add(-eventsFor).UnixMilli(), most)
			if err != nil {
				return trouble{err}
			}
			a.events = append([]view.Event{}, list.Events...)
		}
		if releases {
			a.releases = []control.ReleasesReply{}
			for _, t := range targets {
				r, err := m.d.Releases(m.ctx, t)
				if err != nil {
					return trouble{err}
				}
				a.releases = append(a.releases, r)
			}
		}
		return a
	}
}

// do carries an ask out.
func (m *model) do(a ask) tea.Cmd {
	switch a := a.(type) {
	case askNow:
		m.looking = false // what is under way is of another tab
		return m.lookNow()
	case askWhy:
		return func() tea.Msg { return orRefused(m.d.Why(m.ctx, a.job)) }
	case askDrone:
		return func() tea.Msg { return orRefused(m.d.WhyDrone(m.ctx, a.peer)) }
	case askFinalize:
		return func() tea.Msg { return orRefused(m.d.Finalize(m.ctx, control.FinalizeRequest{Target: a.target})) }
	case askOrders:
		return func() tea.Msg {
			var last control.OrderReply
			for _, o := range a.orders {
				var err error
				if last, err = m.d.Order(m.ctx, o); err != nil {
					return refused{err}
				}
			}
			return replied{ordered(last)}
		}
	case askLog:
		return m.follow(a.job)
	}
	return nil
}

func orRefused[T any](v T, err error) tea.Msg {
	if err != nil {
		return refused{err}
	}
	return v
}

// ordered says what an order means.
func ordered(r control.OrderReply) string {
	name := render.Clean(r.Name)
	if r.Off {
		return name + " takes jobs again"
	}
	switch r.Verb {
	case "pause":
		return name + " takes no new jobs; p lets it go on"
	case "drain":
		return name + " finishes what it builds and takes no more; p lets it go on"
	case "unblock":
		return "forgot the failures of " + name
	case "bump":
		return name + " goes first now"
	case "balance":
		return "what is not begun is given back"
	case "reset":
		return name + " starts afresh; what is built stays"
	}
	return r.Verb + " " + name
}

// follow begins to read a log; the one that was read before ends.
func (m *model) follow(job string) tea.Cmd {
	if m.stopLog != nil {
		m.stopLog()
	}
	ctx, cancel := context.WithCancel(m.ctx)
	p := &pieces{ctx: ctx, c: make(chan string, 16)}
	m.stopLog, m.pieces = cancel, p
	read := func() tea.Msg {
		defer close(p.c)
		p.err = m.d.Log(ctx, render.NewCleanWriter(p), job, true)
		return nil
	}
	return tea.Batch(read, p.next)
}

// pieces passes a log on from the request that reads it.
type pieces struct {
	ctx context.Context
	c   chan string
	err error // set before c is closed
}

// Write waits until the screen has taken what came before.
func (p *pieces) Write(b []byte) (int, error) {
	select {
	case p.c <- string(b):
		return len(b), nil
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	}
}

// next is the next piece, or the end.
func (p *pieces) next() tea.Msg {
	text, ok := <-p.c
	if !ok {
		return logEnd{p, p.err}
	}
	for len(p.c) > 0 && len(text) < 256<<10 { // what has gathered, in one go
		text += <-p.c
	}
	return logPiece{p, text}
}
