package render

import (
	"io"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build/progress"
)

const (
	// drawEvery is how often a terminal's line is drawn at the most, and tickEvery
	// how often though nothing was told: its times go on.
	drawEvery = 100 * time.Millisecond
	tickEvery = time.Second
	// saidEvery is how often a pipe gets a line about the same thing.
	saidEvery = 10 * time.Second
)

// Waiting shows how far something is that a person waits for: on a terminal one
// line that is drawn over, in a pipe a line when something new begins and every
// ten seconds. Its methods may be called from any goroutine.
type Waiting struct {
	out Out

	mu    sync.Mutex
	pace  progress.Pace
	going bool // there was a step, and not the end yet
	drawn bool // a line stands on the terminal
	last  time.Time
	said  string
	// unsaid: what was told last has not been shown.
	unsaid bool
	timer  *time.Timer
}

// NewWaiting writes to w, which is stderr: the data is what comes after it.
func NewWaiting(w io.Writer) *Waiting { return &Waiting{out: To(w)} }

// Tell shows a step.
func (w *Waiting) Tell(s progress.Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	fresh := w.pace.See(s, now)
	w.going, w.unsaid = true, true
	w.show(now, fresh)
	w.tick()
}

// tick has the line shown again though nothing is told; w.mu is held.
func (w *Waiting) tick() {
	if w.timer != nil {
		w.timer.Reset(tickEvery)
		return
	}
	w.timer = time.AfterFunc(tickEvery, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.going {
			w.show(time.Now(), false)
			w.timer.Reset(tickEvery)
		}
	})
}

func (w *Waiting) show(now time.Time, fresh bool) {
	if since := now.Sub(w.last); !fresh && (w.out.TTY && since < drawEvery || !w.out.TTY && since < saidEvery) {
		return
	}
	line := Clean(w.pace.Line(now, Bytes, Duration))
	switch {
	case w.out.TTY:
		w.out.Printf("\r\x1b[K%s", Fit(line, w.out.Width-1))
		w.drawn = true
	case line != w.said:
		w.out.Printf("%s\n", line)
		w.said = line
	}
	w.last, w.unsaid = now, false
}

// Pause takes the line away, so that something else can be written.
func (w *Waiting) Pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wipe()
}

// End takes the line away for good, or until something else is told. A pipe
// gets the last word, if it has not got it.
func (w *Waiting) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.going && !w.out.TTY && w.unsaid {
		w.last = time.Time{}
		w.show(time.Now(), false)
	}
	w.going = false
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	w.pace = progress.Pace{}
	w.wipe()
}

func (w *Waiting) wipe() {
	if w.drawn {
		w.out.Printf("\r\x1b[K")
		w.drawn = false
	}
}
