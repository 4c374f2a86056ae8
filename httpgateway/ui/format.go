package ui

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

// funcs are what templates may call.
func funcs() template.FuncMap {
	return template.FuncMap{
		"glyph": glyph, "word": word, "dur": dur, "size": size, "when": when, "peer": peerURL, "clock": clock, "iso": iso, "per": per, "link": link, "short": short, "permille": permille,
		"cp": cpOf, "version": versionOf, "plural": plural, "one": func(s string, max int) string { return build.OneLine(s, max) },
		"orders": ordersFor, "date": date, "sub": func(a, b int64) int64 { return a - b }, "ago": ago, "rate": rate,
		"add": func(a, b int) int { return a + b }, "neg": func(a int64) int64 { return -a }, "seconds": func(s int64) int64 { return s * 1000 },
		"size64": func(n uint64) string { return size(int64(min(n, math.MaxInt64))) },
	}
}

// glyph is a state's sign: no two that matter to tell apart look alike without
// colour.
func glyph(state string) string {
	switch state {
	case "safe", "done", "built", "healthy", "good", "closed":
		return "✓"
	case "available":
		return "◐"
	case "building", "running", "began":
		return "▶"
	case "claimed":
		return "▷"
	case "ready":
		return "○"
	case "waiting", "forecast":
		return "·"
	case "away", "lost":
		return "⇡"
	case "blocked":
		return "■"
	case "failed", "package", "machine", "network", "mismatch", "stuck":
		return "✕"
	case "unfit":
		return "?"
	case "degraded":
		return "▲"
	case "held", "cancelled":
		return "‖"
	case "gone", "left":
		return "×"
	case "idle":
		return "○"
	case "storing", "consumer":
		return "□"
	}
	return "•"
}

// word is a state for people.
func word(state string) string {
	switch state {
	case "safe":
		return "built, safe"
	case "available":
		return "built"
	case "away":
		return "away"
	case "unfit":
		return "no drone fits"
	case "held":
		return "holds back"
	case "storing":
		return "stores"
	case "consumer":
		return "looks on"
	case "package":
		return "failed"
	case "machine":
		return "machine failed"
	case "network":
		return "fetch failed"
	case "good":
		return "built"
	}
	return state
}

// dur is milliseconds for people: two units at the most.
func dur(ms int64) string {
	switch s := (ms + 500) / 1000; {
	case ms <= 0:
		return "0 s"
	case ms < 1000:
		return fmt.Sprintf("%d ms", ms)
	case s < 100:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

// rough is dur to one figure: what does not change with each second.
func rough(ms int64) string {
	switch s := ms / 1000; {
	case s < 60:
		return "under a minute"
	case s < 100*60:
		return fmt.Sprintf("%d min", (s+30)/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h", (s+1800)/3600)
	default:
		return fmt.Sprintf("%d d", (s+43200)/86400)
	}
}

func ago(ms, now int64) string {
	if ms == 0 {
		return ""
	}
	if now-ms < 60_000 {
		return "just now"
	}
	return rough(now-ms) + " ago"
}

func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if f /= 1000; f < 999.5 {
			if f < 9.95 {
				return fmt.Sprintf("%.1f %s", f, u)
			}
			return fmt.Sprintf("%.0f %s", f, u)
		}
	}
	return fmt.Sprintf("%.0f PB", f/1000)
}

func clock(ms int64) string {
	if ms == 0 {
		return "–"
	}
	return time.UnixMilli(ms).Format("15:04")
}

// when is a time of day, with its day unless that is the day of now.
func when(ms, now int64) string {
	t, n := time.UnixMilli(ms), time.UnixMilli(now)
	switch {
	case t.YearDay() == n.YearDay() && t.Year() == n.Year():
		return clock(ms)
	case t.Sub(n).Abs() < 6*24*time.Hour:
		return t.Format("Mon 15:04")
	}
	return t.Format("2 Jan 15:04")
}

func date(ms int64) string {
	if ms == 0 {
		return "–"
	}
	return time.UnixMilli(ms).Format("2 Jan 2006 15:04:05")
}

func iso(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// per is a part of a whole in percent, as an SVG length.
func per(part, whole int64) string {
	if whole <= 0 {
		return "0%"
	}
	return pct(float64(part) / float64(whole) * 100)
}

func pct(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", math.Max(0, math.Min(100, f))), "0"), ".") + "%"
}

func permille(n int64) string { return fmt.Sprintf("%d %%", (n+5)/10) }

func rate(f float64) string {
	if f > 0 && f < 10 {
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

func short(s any) string {
	t := fmt.Sprint(s)
	if len(t) > 8 {
		return t[len(t)-8:]
	}
	return t
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// cpOf and versionOf split what a CPV's text says; what is none stays whole.
func cpOf(cpv string) string {
	if c, err := build.ParseCPV(cpv); err == nil {
		return c.CP()
	}
	return cpv
}

func versionOf(cpv string) string {
	if c, err := build.ParseCPV(cpv); err == nil {
		return c.Version
	}
	return ""
}

// button is an order that a page offers: a link to the page that asks again.
type button struct{ Label, URL string }

func orderLink(label, verb, scope string, off bool) button {
	o := ""
	if off {
		o = "1"
	}
	return button{label, link(OrderPath, "verb", verb, "scope", scope, "off", o)}
}

// ordersFor are the orders that could mend an issue.
func ordersFor(i view.Issue) []button {
	switch i.Kind {
	case view.IssueFailed:
		return []button{orderLink("Unblock", "unblock", string(i.Key), false)}
	case view.IssueHeld:
		return []button{orderLink("Resume all", "pause", "all", true)}
	}
	return nil
}

func foldedWords(q string) []string { return strings.Fields(strings.ToLower(q)) }

func contains(text string, words []string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func dayOf(ms int64) string { return time.UnixMilli(ms).Format("Monday, 2 January 2006") }
