// Package alert tells a person that something is wrong, once for each root
// cause, and that it is over: by a webhook (plain JSON, ntfy, or the push
// monitor of Uptime Kuma) or a command.
//
// What to tell follows from the snapshot's issues (view.Issue): each is a root
// cause with all that it holds up, so a library that fails is one alert and not
// forty. A cause has to last before it is told (grace), and to be gone as long
// before its end is: what flickers wakes nobody. Many at once become one message.
//
// Who tells is elected by rendezvous hashing among the live peers that can
// (claims.Beat's Alerts): five peers tell once. What was told is on the board
// (claims.Alert), written after the telling. The second in rank tells what the
// first has not told after another grace, and so on: one that has just died, or
// that reaches the board and not the webhook, costs a minute and no alert. A
// peer that dies between telling and writing is the one case of a message told
// twice.
package alert

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

const (
	// defaultGrace is how long a cause has to last before it is told, or to be
	// gone; of a silent peer awayFactor times that: machines are rebooted.
	defaultGrace = time.Minute
	awayFactor   = 5
	// digestFrom is from how many messages on they become one.
	digestFrom = 4
	// step is how often time alone is looked at, but for a shorter grace.
	step = 10 * time.Second
	// A message that cannot be delivered is tried again after retryMin, then
	// ever more rarely.
	retryMin = 15 * time.Second
	retryMax = 10 * time.Minute
	// pulse is how often a push monitor hears that all is well, or is not.
	pulse = 60 * time.Second
)

// Message is what is told; its JSON form is the webhook's contract (schema 1).
type Message struct {
	Schema   int      `json:"schema"`
	State    string   `json:"state"` // open, resolved
	Severity string   `json:"severity"`
	Title    string   `json:"title"`
	Detail   string   `json:"detail"`
	HoldsUp  int      `json:"holds_up"` // jobs that wait because of it
	Drones   []string `json:"drones"`
	Do       string   `json:"next_action"`
	SinceMS  int64    `json:"since_unix_ms"`
	Causes   []string `json:"causes"` // stable IDs; several of a digest
	Peer     string   `json:"peer"`   // who tells, by nickname
}

// Book decides what is to be told. It is a state machine without clock or I/O.
type Book struct {
	grace int64            // ms
	first map[string]int64 // when a cause was first seen, by this peer
	last  map[string]view.Issue
	gone  map[string]int64 // since when a told cause is not seen
}

// NewBook makes an empty book. grace is how long a cause has to last before it is
// told, and to be gone before that is.
func NewBook(grace time.Duration) *Book {
	return &Book{grace: grace.Milliseconds(), first: map[string]int64{}, last: map[string]view.Issue{}, gone: map[string]int64{}}
}

// cause names an issue on the board. One that only this peer can know carries
// the peer's name: another's silence about it means nothing.
func cause(i *view.Issue, self string) string {
	if i.Local {
		return i.ID + "@" + self
	}
	return i.ID
}

func worth(i *view.Issue) bool { return i.Severity != view.Healthy || i.Kind == view.IssueAway }

// Step takes in a snapshot with what was told already (cause to whether it is
// open) and returns what is due now from this peer, whose rank makes it wait as
// many times longer.
func (b *Book) Step(d *view.Detail, told map[string]bool, now int64, rank int) []Message {
	seen := map[string]bool{}
	var due []Message
	for n := range d.Issues {
		i := &d.Issues[n]
		if !worth(i) {
			continue
		}
		id := cause(i, d.Self)
		seen[id] = true
		delete(b.gone, id)
		b.last[id] = *i
		if b.first[id] == 0 {
			b.first[id] = now
		}
		wait := b.grace
		if i.Kind == view.IssueAway {
			wait *= awayFactor
		}
		if !i.Local {
			wait += b.grace * int64(rank)
		}
		if !told[id] && now-b.first[id] >= wait {
			due = append(due, open(i, id, b.first[id]))
		}
	}
	maps.DeleteFunc(b.first, func(id string, _ int64) bool { return !seen[id] })
	for _, id := range slices.Sorted(maps.Keys(told)) {
		if !told[id] || seen[id] || foreign(id, d.Self) {
			delete(b.gone, id)
			continue
		}
		if b.gone[id] == 0 {
			b.gone[id] = now
		}
		wait := b.grace * int64(1+rank)
		if foreign(id, "") { // nobody else knows it
			wait = b.grace
		}
		if now-b.gone[id] >= wait {
			i, known := b.last[id]
			if !known {
				i = view.Issue{Title: "what was told before (" + id + ")"}
			}
			due = append(due, Message{Schema: 1, State: "resolved", Severity: string(view.Healthy), Title: "over: " + i.Title, Drones: []string{}, SinceMS: now, Causes: []string{id}})
		}
	}
	maps.DeleteFunc(b.last, func(id string, _ view.Issue) bool { return !seen[id] && !told[id] })
	maps.DeleteFunc(b.gone, func(id string, _ int64) bool { return !told[id] })
	return digest(due)
}

// foreign reports a cause that only another peer can know.
func foreign(id, self string) bool {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '@' {
			return id[i+1:] != self
		}
	}
	return false
}

func open(i *view.Issue, id string, since int64) Message {
	if i.SinceMS > 0 {
		since = i.SinceMS
	}
	return Message{Schema: 1, State: "open", Severity: string(i.Severity), Title: i.Title, Detail: i.Detail, HoldsUp: i.HoldsUp,
		Drones: append([]string{}, i.Drones...), Do: i.Do, SinceMS: since, Causes: []string{id}}
}

// digest makes one message of many of a kind.
func digest(due []Message) []Message {
	var out []Message
	for _, state := range []string{"open", "resolved"} {
		var list []Message
		for _, m := range due {
			if m.State == state {
				list = append(list, m)
			}
		}
		if len(list) < digestFrom {
			out = append(out, list...)
			continue
		}
		all := list[0] // the gravest
		all.Title, all.Detail = several(len(list), state), ""
		all.HoldsUp, all.Causes, all.Drones = 0, nil, []string{}
		for n, m := range list {
			if n < 5 {
				all.Detail += m.Title + "; "
			}
			all.HoldsUp += m.HoldsUp
			all.Causes = append(all.Causes, m.Causes...)
		}
		if len(list) > 5 {
			all.Detail += "and more"
		}
		all.Do = "swarm status"
		out = append(out, all)
	}
	return out
}

// Board is what alerts need of it.
type Board interface {
	// Told lists the causes that people were told of, and whether they are open.
	Told(ctx context.Context) (map[string]bool, error)
	// Tell notes that they were.
	Tell(ctx context.Context, causes []string, open bool) error
}

// Sender delivers a message. It returns when it has been taken, or the error.
type Sender interface {
	Send(ctx context.Context, m Message) error
	// Pulse tells a monitor that wants to hear it regularly how things are;
	// open are the titles of what is wrong.
	Pulse(ctx context.Context, open []string) error
}

// Config of an Alerter. All but Grace and Every are needed.
type Config struct {
	Latest  func(context.Context) (*view.Detail, error)
	Board   Board
	Senders []Sender
	Grace   time.Duration // see NewBook; 0 = a minute
	// Every stretches how often it is looked; nil leaves it as it is.
	Every func(time.Duration) time.Duration
	Log   *slog.Logger
}

// Alerter watches and tells.
type Alerter struct {
	cfg  Config
	book *Book
}

// New makes an Alerter. Nothing is told before Run.
func New(cfg Config) *Alerter {
	cfg.Grace = cmp.Or(cfg.Grace, defaultGrace)
	return &Alerter{cfg, NewBook(cfg.Grace)}
}

// Run watches until ctx ends.
func (a *Alerter) Run(ctx context.Context) error {
	every := a.cfg.Every
	if every == nil {
		every = func(d time.Duration) time.Duration { return d }
	}
	often := min(step, a.cfg.Grace/2)
	tick := time.NewTimer(often)
	defer tick.Stop()
	var retry time.Duration
	var notBefore, nextPulse time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		tick.Reset(every(often))
		d, err := a.cfg.Latest(ctx)
		if err != nil {
			continue // the board is closing, or busy
		}
		told, err := a.cfg.Board.Told(ctx)
		if err != nil {
			continue
		}
		now := time.Now()
		rank := Rank(d)
		due := a.book.Step(d, told, now.UnixMilli(), rank)
		if now.Before(notBefore) {
			continue
		}
		err = a.tell(ctx, due, d)
		if err == nil && !now.Before(nextPulse) && rank == 0 {
			err = a.pulse(ctx, d, told)
			nextPulse = now.Add(pulse)
		}
		switch {
		case err == nil:
			retry = 0
		case ctx.Err() == nil:
			retry = min(retryMax, max(retryMin, 2*retry))
			notBefore = now.Add(retry)
			a.cfg.Log.Warn("alert not delivered; tried again", "after", retry, "error", err)
		}
	}
}

// tell delivers what is due, each by every sender, and notes it.
func (a *Alerter) tell(ctx context.Context, due []Message, d *view.Detail) error {
	for _, m := range due {
		m.Peer = nick(d)
		var errs []error
		for _, s := range a.cfg.Senders {
			errs = append(errs, s.Send(ctx, m))
		}
		// Told by one is told: the others would repeat it for ever if one of
		// them is gone for good.
		if err := errors.Join(errs...); err != nil && len(a.cfg.Senders) == failures(errs) {
			return err
		} else if err != nil {
			a.cfg.Log.Warn("alert delivered by some", "error", err)
		}
		if err := a.cfg.Board.Tell(ctx, m.Causes, m.State == "open"); err != nil {
			return err
		}
		a.cfg.Log.Info("alert told", "state", m.State, "title", m.Title, "holds_up", m.HoldsUp)
	}
	return nil
}

func failures(errs []error) int {
	n := 0
	for _, err := range errs {
		if err != nil {
			n++
		}
	}
	return n
}

func (a *Alerter) pulse(ctx context.Context, d *view.Detail, told map[string]bool) error {
	var titles []string
	for n := range d.Issues {
		if told[cause(&d.Issues[n], d.Self)] {
			titles = append(titles, d.Issues[n].Title)
		}
	}
	var errs []error
	for _, s := range a.cfg.Senders {
		errs = append(errs, s.Pulse(ctx, titles))
	}
	return errors.Join(errs...)
}

func nick(d *view.Detail) string {
	for _, p := range d.Peers {
		if p.Self {
			return p.Nick
		}
	}
	return ""
}
