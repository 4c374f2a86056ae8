package hlc

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestStampsGrowWhateverTheWallClockDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		var last Time
		for _, wall := range rapid.SliceOf(rapid.Int64Range(0, 1<<40)).Draw(t, "walls") {
			if rapid.Bool().Draw(t, "observe") {
				_ = c.Observe(New(rapid.Int64Range(0, 1<<40).Draw(t, "other")), wall)
			}
			got := c.Now(wall)
			if got <= last {
				t.Fatalf("stamp %v after %v", got, last)
			}
			if got.Millis() < wall {
				t.Fatalf("stamp %v is behind the wall clock %d", got, wall)
			}
			last = got
		}
	})
}

func TestFutureStampIsRefusedAndChangesNothing(t *testing.T) {
	var c Clock
	before := c.Now(1_000_000)
	err := c.Observe(New(1_000_000+MaxAheadMillis+1), 1_000_000)
	if !errors.Is(err, ErrFuture) {
		t.Fatalf("err = %v, want ErrFuture", err)
	}
	if c.Last() != before {
		t.Errorf("clock moved to %v on a refused stamp", c.Last())
	}
	if err := c.Observe(New(1_000_000+MaxAheadMillis), 1_000_000); err != nil {
		t.Errorf("stamp at the bound: %v", err)
	}
}

func TestTextFormSortsAndReturns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := Time(rapid.Uint64().Draw(t, "a")), Time(rapid.Uint64().Draw(t, "b"))
		if (a < b) != (a.String() < b.String()) {
			t.Fatalf("%v and %v sort differently as text", a, b)
		}
		if got, err := Parse(a.String()); err != nil || got != a {
			t.Fatalf("Parse(%v) = %v, %v", a, got, err)
		}
	})
	for _, bad := range []string{"", "0", "000000000000000G", "00000000000000AA", "+000000000000000"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) succeeded", bad)
		}
	}
}
