package cli

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func eventsCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(),
		&cli.StringFlag{Name: "since", Value: "24h", Usage: "how far back: a `TIME` as 2h, 3d, 03:14, or 2026-11-24T03:14"},
		&cli.StringFlag{Name: "until", Usage: "up to when: a `TIME`, as for --since; now if empty"},
		&cli.IntFlag{Name: "limit", Value: 1000, Usage: "at most the newest `NUMBER`"})
	return &cli.Command{
		Name: "events", Usage: "say who did what, and when, as this peer saw it", Flags: flags, Before: settings(flags),
		Description: "The history is kept on this peer's disk, 4 MiB of it. A peer knows what happened while it ran.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			now := time.Now()
			since, err := parseSince(c.String("since"), now)
			if err != nil {
				return err
			}
			until := now
			if s := c.String("until"); s != "" {
				if until, err = parseSince(s, now); err != nil {
					return err
				}
				if until.Before(since) {
					return usage("swarm events --since 3d --until 2d", "--until %s is before --since %s", s, c.String("since"))
				}
			}
			if n := c.Int("limit"); n < 1 || n > control.MaxEvents {
				return usage("swarm events --limit 1000", "--limit wants 1 to %d", control.MaxEvents)
			}
			limit := c.Int("limit")
			if c.IsSet("until") {
				limit = control.MaxEvents // the newest of them may be later
			}
			list, err := control.NewClient(c.String("socket")).Events(c.Context, since.UnixMilli(), limit)
			if err != nil {
				return err
			}
			list.Events = upTo(list.Events, until.UnixMilli(), c.Int("limit"))
			if c.Bool("json") {
				return e.out.JSON(list)
			}
			if len(list.Events) == 0 {
				e.note("nothing happened since %s, as far as this peer knows", since.Format(time.DateTime))
			}
			showEvents(e.out, list)
			return nil
		},
	}
}

// upTo are the newest limit events of those up to a time.
func upTo(list []view.Event, ms int64, limit int) []view.Event {
	n, _ := slices.BinarySearchFunc(list, ms+1, func(e view.Event, at int64) int { return cmp.Compare(e.AtMS, at) })
	return list[max(0, n-limit):n]
}

func showEvents(o render.Out, list control.Events) {
	t := o.NewTable("WHEN", "WHAT", "")
	for _, ev := range list.Events {
		style := render.Plain
		if ev.Bad {
			style = render.Warn
		}
		at := time.UnixMilli(ev.AtMS)
		when := at.Format(time.RFC3339)
		if o.TTY {
			when = at.Format("Jan _2 15:04:05")
		}
		t.Row(when, render.Cell(style, string(ev.Kind)), ev.Text)
	}
	t.Flush()
}

// parseSince reads a span back from now, a time of day (the last one), or a
// date with or without a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		s = days + "h"
		if d, err := time.ParseDuration(s); err == nil && d >= 0 && d < 100_000*time.Hour {
			return now.Add(-24 * d), nil
		}
		s = days + "d"
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("for example: swarm events --since 2h", "--since %q: want a time as 2h, 3d, 03:14 or 2026-11-24T03:14", s)
}
