package guest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hours is a window of the week: on Days (Sunday is bit 0) from From to To, in
// minutes of the day. A window whose end is not after its begin goes on into
// the next day.
type Hours struct {
	Days     uint8
	From, To int
	text     string
}

var errHours = errors.New("want HH:MM-HH:MM, with days before it or not, as in: mon-fri 20:00-07:00")

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseHours reads "22:00-07:00", "sat 08:00-20:00" or "mon-fri 20:00-07:00".
func ParseHours(s string) (Hours, error) {
	h := Hours{Days: 1<<7 - 1, text: strings.ToLower(strings.TrimSpace(s))}
	days, span, ok := strings.Cut(h.text, " ")
	if !ok {
		days, span = "", h.text
	}
	if days != "" {
		from, to, ranged := strings.Cut(days, "-")
		if !ranged {
			to = from
		}
		a, b := slices.Index(dayNames, from), slices.Index(dayNames, to)
		if a < 0 || b < 0 {
			return Hours{}, fmt.Errorf("hours %.40q: %w", s, errHours)
		}
		h.Days = 0
		for d := a; ; d = (d + 1) % 7 {
			h.Days |= 1 << d
			if d == b {
				break
			}
		}
	}
	from, to, ok := strings.Cut(strings.TrimSpace(span), "-")
	var err1, err2 error
	h.From, err1 = minute(from)
	h.To, err2 = minute(to)
	if !ok || err1 != nil || err2 != nil || h.From == 24*60 {
		return Hours{}, fmt.Errorf("hours %.40q: %w", s, errHours)
	}
	return h, nil
}

func minute(s string) (int, error) {
	hh, mm, ok := strings.Cut(s, ":")
	h, err1 := strconv.Atoi(hh)
	m, err2 := strconv.Atoi(mm)
	if !ok || err1 != nil || err2 != nil || len(mm) != 2 || h < 0 || m < 0 || m > 59 || h*60+m > 24*60 {
		return 0, errHours
	}
	return h*60 + m, nil
}

func hoursText(list []Hours) string {
	texts := make([]string, 0, len(list))
	for _, h := range list {
		texts = append(texts, h.text)
	}
	return strings.Join(texts, ", ")
}

// outside reports whether a time is in none of the windows, and how long it is
// until that changes; 0 when it does not within eight days.
func outside(list []Hours, t time.Time) (time.Duration, bool) {
	if len(list) == 0 {
		return 0, false
	}
	in := inside(list, t)
	// Windows begin and end on minutes; a change of the clock by an hour is
	// found by looking again.
	at := t.Truncate(time.Minute)
	for n := 1; n <= 8*24*60; n++ {
		next := at.Add(time.Duration(n) * time.Minute)
		if inside(list, next) != in {
			return next.Sub(t), !in
		}
	}
	return 0, !in
}

func inside(list []Hours, t time.Time) bool {
	m, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	before := (day + 6) % 7
	return slices.ContainsFunc(list, func(h Hours) bool {
		if h.To > h.From {
			return h.Days>>day&1 == 1 && m >= h.From && m < h.To
		}
		return h.Days>>day&1 == 1 && m >= h.From || h.Days>>before&1 == 1 && m < h.To
	})
}
