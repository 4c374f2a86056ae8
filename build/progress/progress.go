// Package progress says how far something is that a person waits for: a plan, a
// check, a release. Whoever does the work tells it to the context, and knows
// nothing of who listens; the control API carries it from the daemon to the
// command, and the command shows it: what, how far, how long still.
package progress

import (
	"context"
	"fmt"
	"time"
)

// Step is where the work stands.
type Step struct {
	What string `json:"what"` // "verify the packages"
	// Done of All things are done; All 0 = nobody knows how many there are.
	Done int64 `json:"done"`
	All  int64 `json:"all"`
	// Bytes says that Done and All count bytes.
	Bytes bool `json:"bytes,omitempty"`
	// LowMS and HighMS are how long the work takes yet, as far as whoever does it
	// knows; 0 = follow the pace so far.
	LowMS  int64 `json:"low_ms,omitempty"`
	HighMS int64 `json:"high_ms,omitempty"`
	// Note stands behind the figures.
	Note string `json:"note,omitempty"`
}

type listener struct{}

// With gives a context somebody who listens. tell is called from the goroutines
// that do the work and must be quick.
func With(ctx context.Context, tell func(Step)) context.Context {
	return context.WithValue(ctx, listener{}, tell)
}

// Listened reports whether somebody listens.
func Listened(ctx context.Context) bool {
	tell, _ := ctx.Value(listener{}).(func(Step))
	return tell != nil
}

// Tell says where the work stands, if somebody listens.
func Tell(ctx context.Context, s Step) {
	if tell, _ := ctx.Value(listener{}).(func(Step)); tell != nil {
		tell(s)
	}
}

// Pace turns steps into lines for people. The zero value is ready; it is not
// safe for concurrent use.
type Pace struct {
	what  string
	began time.Time
	from  int64 // Done when it began
	last  Step
	told  time.Time
}

// See takes in a step at a time; it reports whether it is about something new.
func (p *Pace) See(s Step, now time.Time) (fresh bool) {
	if s.What != p.what || p.began.IsZero() {
		p.what, p.began, p.from, fresh = s.What, now, s.Done, true
	}
	p.last, p.told = s, now
	return fresh
}

// surePace is how long a thing has to go on before its pace says something.
const surePace = time.Second

// Left is how long the work takes yet, at the least and at the most; ok is false
// where that cannot be said.
func (p *Pace) Left(now time.Time) (low, high time.Duration, ok bool) {
	s, ran := &p.last, now.Sub(p.began)
	switch {
	case s.HighMS > 0:
		since := now.Sub(p.told)
		low, high = max(0, time.Duration(s.LowMS)*time.Millisecond-since), time.Duration(s.HighMS)*time.Millisecond-since
		return low, high, high > 0
	case s.All > 0 && s.Done > p.from && s.Done < s.All && ran >= surePace:
		left := time.Duration(float64(ran) / float64(s.Done-p.from) * float64(s.All-s.Done))
		return left, left, true
	}
	return 0, 0, false
}

// Line is what a person reads. size and span write bytes and durations.
func (p *Pace) Line(now time.Time, size func(int64) string, span func(time.Duration) string) string {
	s := &p.last
	line := s.What
	number := func(n int64) string { return fmt.Sprint(n) }
	if s.Bytes {
		number = size
	}
	switch {
	case s.All > 0:
		line += fmt.Sprintf(": %s of %s", number(s.Done), number(s.All))
	case s.Done > 0:
		line += ": " + number(s.Done)
	}
	if s.Note != "" {
		line += ", " + s.Note
	}
	ran := now.Sub(p.began)
	low, high, ok := p.Left(now)
	switch {
	case ok && span(low) != span(high):
		line += fmt.Sprintf(", %s to %s left", span(low), span(high))
	case ok:
		line += fmt.Sprintf(", about %s left", span(high))
	case ran >= surePace:
		line += ", for " + span(ran)
	}
	return line
}
