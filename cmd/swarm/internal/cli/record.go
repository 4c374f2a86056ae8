package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/plan/replay"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func recordCmd(e *env) *cli.Command {
	flags := clientFlags(&cli.BoolFlag{Name: "show", Usage: "read FILE, and say what was forecast, and what came of it"}, jsonFlag())
	return &cli.Command{
		Name: "record", Usage: "write down how the open rounds go, or read what was written", ArgsUsage: "FILE", Flags: flags, Before: settings(flags),
		Description: "It writes what the schedule and the forecast are computed from, and ends with the last\n" +
			"open round, or when it is interrupted. Send FILE along with a report of a schedule or a\n" +
			"forecast that was bad: it names packages, peers and times, and holds no logs and no keys.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "a FILE")
			if err != nil {
				return err
			}
			if c.Bool("show") {
				return e.showRecording(args[0], c.Bool("json"))
			}
			if c.Bool("json") {
				return usage("swarm record --show --json "+args[0], "--json goes with --show")
			}
			return e.record(c.Context, control.NewClient(c.String("socket")), args[0])
		},
	}
}

// A recorder looks this often, and less often as time goes on: a fortieth of what
// is recorded already is soon enough.
const recordEvery, recordShare = 2 * time.Second, 40

// record writes moments until no round is open any more.
func (e *env) record(ctx context.Context, client *control.Client, path string) (err error) {
	m, err := client.Moment(ctx) // before a file is made: somebody has to be there
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage("swarm record --show "+path, "%s is there already, and a recording overwrites nothing", path)
	}
	if err != nil {
		return fmt.Errorf("make the recording: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ctx, end := e.waiting(ctx)
	defer end()
	w, began, moments := replay.NewWriter(f), time.Now(), int64(0)
	for {
		if len(m.Rounds) > 0 || moments > 0 {
			if err := w.Write(m); err != nil {
				return err
			}
			moments++
		}
		if moments > 0 && len(m.Rounds) == 0 {
			e.note("%d moments in %s; look at them: swarm record --show %s", moments, path, path)
			return nil
		}
		step := progress.Step{What: "wait for a round"}
		if moments > 0 {
			step = progress.Step{What: "record", Done: moments, Note: fmt.Sprintf("%d open rounds", len(m.Rounds))}
		} else {
			began = time.Now()
		}
		progress.Tell(ctx, step)
		select {
		case <-ctx.Done():
			if moments > 0 {
				e.note("%d moments in %s; the round has not ended", moments, path)
			}
			return ctx.Err()
		case <-time.After(max(recordEvery, time.Since(began)/recordShare)):
		}
		if m, err = client.Moment(ctx); err != nil {
			return err
		}
	}
}

// recordedLook is one line of what a recording shows.
type recordedLook struct {
	Share  float64 `json:"share_over"`
	LowMS  int64   `json:"low_ms"`
	HighMS int64   `json:"high_ms"`
	LeftMS int64   `json:"left_ms"` // as it came
	Held   bool    `json:"held"`
}

type recordedRound struct {
	Round string         `json:"round"`
	Looks []recordedLook `json:"looks"`
	// Held is the share of ranges that held, Width their median width as a part
	// of the time that was left, from a tenth of the round on.
	Held  float64 `json:"held"`
	Width float64 `json:"width"`
}

// showRecording says for each tenth of each round what today's code forecasts from
// what was known then, and what came of it.
func (e *env) showRecording(path string, asJSON bool) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the recording: %w", err)
	}
	rec, err := replay.Read(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	out := []recordedRound{}
	for _, id := range rec.Rounds() {
		looks := rec.Looks(id, 10)
		if len(looks) == 0 {
			e.note("round %s: the recording does not reach from its beginning to its end", id)
			continue
		}
		r := recordedRound{Round: id}
		r.Held, r.Width = replay.Figures(looks)
		for _, l := range looks {
			r.Looks = append(r.Looks, recordedLook{l.Share, l.Low, l.High, l.Truth, l.Holds()})
		}
		out = append(out, r)
	}
	if asJSON {
		return e.out.JSON(struct {
			Schema int             `json:"schema"`
			Rounds []recordedRound `json:"rounds"`
		}{1, out})
	}
	t := e.out.NewTable("ROUND", "OVER", "FORECAST", "", "CAME", "")
	for _, r := range out {
		for _, l := range r.Looks {
			style, verdict := render.Good, "held"
			switch {
			case l.LeftMS > l.HighMS:
				style, verdict = render.Warn, "later"
			case l.LeftMS < l.LowMS:
				style, verdict = render.Warn, "earlier"
			}
			t.Row(r.Round, fmt.Sprintf("%.0f %%", 100*l.Share), render.Duration(millis(l.LowMS)), render.Duration(millis(l.HighMS)), render.Duration(millis(l.LeftMS)), render.Cell(style, verdict))
		}
	}
	t.Flush()
	for _, r := range out {
		e.note("round %s: the range held %.0f %% of the time, and half were wider than %.0f %% of what was left", r.Round, 100*r.Held, 100*r.Width)
	}
	return nil
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
