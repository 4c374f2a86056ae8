// Package hlc is a hybrid logical clock (Kulkarni et al., "Logical Physical
// Clocks", 2014): stamps that grow with every event, stay close to wall time,
// and never go back, whatever the wall clock of one machine does.
//
// A Time is 48 bits of milliseconds since 1970 and 16 bits of counter, so it
// compares as an integer and lasts until the year 10889. A Clock is owned by
// one goroutine; the wall time is a parameter of every call, which keeps the
// package pure.
package hlc

import (
	"errors"
	"fmt"
	"strconv"
)

// MaxAheadMillis is how far ahead of the wall clock a stamp of somebody else
// may be. More is refused, not clamped: a clamped stamp would differ from the
// signed one.
const MaxAheadMillis = 30_000

// ErrFuture is returned for a stamp further ahead than MaxAheadMillis.
var ErrFuture = errors.New("stamp is too far in the future")

// Time is one stamp. The zero Time is before every other.
type Time uint64

// New makes the first stamp of a millisecond.
func New(millis int64) Time {
	if millis < 0 {
		return 0
	}
	return Time(millis) << 16
}

// Millis is the wall part: milliseconds since 1970.
func (t Time) Millis() int64 { return int64(t >> 16) }

// String is 16 hex digits, so that stamps sort as text.
func (t Time) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// Parse reads what String wrote.
func Parse(s string) (Time, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("parse stamp %q: want 16 hex digits", s)
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || Time(n).String() != s {
		return 0, fmt.Errorf("parse stamp %q: want 16 lower-case hex digits", s)
	}
	return Time(n), nil
}

// Clock makes stamps. The zero Clock is ready; Restore one that ran before.
type Clock struct{ last Time }

// Last is the greatest stamp made or observed.
func (c *Clock) Last() Time { return c.last }

// Restore makes every later stamp greater than t: the high-water mark of an
// earlier life. It does not check t against any wall clock.
func (c *Clock) Restore(t Time) { c.last = max(c.last, t) }

// Unwind forgets every stamp above t. It is for a clock whose stamps nobody took,
// because the wall time in them was wrong.
func (c *Clock) Unwind(t Time) { c.last = min(c.last, t) }

// Now returns a stamp greater than all before, at wall milliseconds if the
// wall clock is ahead of them.
func (c *Clock) Now(wall int64) Time {
	c.last = max(c.last+1, New(wall))
	return c.last
}

// Observe takes in the stamp of somebody else; ErrFuture if it is more than
// MaxAheadMillis ahead of wall, and the clock is then unchanged.
func (c *Clock) Observe(t Time, wall int64) error {
	if t.Millis() > wall+MaxAheadMillis {
		return fmt.Errorf("%w: %d s ahead", ErrFuture, (t.Millis()-wall)/1000)
	}
	c.last = max(c.last, t)
	return nil
}
