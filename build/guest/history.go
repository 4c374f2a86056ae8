package guest

import "slices"

// History is what is remembered of a machine's days: for how long it was to be
// had at a time, and for how long it was not, in milliseconds, newest last. It
// is kept over restarts.
type History struct {
	Idle []int64 `json:"idle_ms"`
	Away []int64 `json:"away_ms"`
}

const (
	// remembered spans: two weeks of a machine that is used five times a day.
	remembered = 64
	// enough spans to say anything of the next.
	enough = 4
	// glance is shorter than any span that means something, in milliseconds.
	glance = 10_000
)

func note(list []int64, ms int64) []int64 {
	if ms < glance {
		return list
	}
	list = append(list, ms)
	return slices.Clone(list[max(0, len(list)-remembered):])
}

// remaining is what is left of an idle span that has lasted so long: the lower
// quartile of what was left of past ones. 0 when too little is known.
func (h *History) remaining(lasted int64) int64 {
	var left []int64
	for _, ms := range h.Idle {
		if ms > lasted {
			left = append(left, ms-lasted)
		}
	}
	if len(h.Idle) < enough {
		return 0
	}
	if len(left) == 0 {
		// Longer than any before: likely to go on for as long as the shortest.
		return max(1000, slices.Min(h.Idle))
	}
	return max(1000, quartile(left))
}

// quartile is the lower one; 0 of nothing.
func quartile(list []int64) int64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return s[(len(s)-1)/4]
}
