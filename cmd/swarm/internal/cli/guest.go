package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
)

// guestConfig reads when builds may run here, and how they end.
func guestConfig(c *cli.Context, cfg *node.Config) (err error) {
	if cfg.Guest, err = guestPolicy(c); err != nil {
		return err
	}
	if cfg.Drain, err = time.ParseDuration(c.String("drain-limit")); err != nil || cfg.Drain < 0 {
		return usage("for example: swarm run --drain-limit 10m", "--drain-limit %q: want a duration, 0 or more", c.String("drain-limit"))
	}
	cfg.Sensors.Log = cfg.Log
	cfg.Reload = make(chan os.Signal, 1)
	signal.Notify(cfg.Reload, syscall.SIGHUP)
	cfg.Check = check
	return nil
}

// guestPolicy is when builds may run here.
func guestPolicy(c *cli.Context) (p guest.Policy, err error) {
	switch when := c.String("build-when"); when {
	case string(guest.Auto), string(guest.Always), string(guest.WhenIdle):
		p.When = guest.When(when)
	default:
		d, err := time.ParseDuration(when)
		if err != nil || d < time.Second {
			return p, usage("for example: swarm run --build-when idle, or --build-when 10m", "--build-when %q: want always, idle, auto, or how long nobody used the machine", when)
		}
		p.When, p.IdleAfter = guest.WhenIdle, d.Milliseconds()
	}
	for _, s := range noEmpty(c.StringSlice("hours")) {
		h, err := guest.ParseHours(s)
		if err != nil {
			return p, usage("for example: swarm run --hours 'mon-fri 20:00-07:00'", "%v", err)
		}
		p.Hours = append(p.Hours, h)
	}
	return p, nil
}

// checkTime bounds a look at the new settings; Portage may have to be asked.
const checkTime = time.Minute

// check has the program on disk, which may be a new one, say whether it would
// start with these arguments and what the settings file says now.
func check() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	// Not over the socket: this process answers there.
	cmd.Args = append(append([]string{"swarm"}, os.Args[1:]...), "--check")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// again replaces this process by the program on disk, with the same arguments.
func again() error {
	self, err := os.Executable()
	if err == nil {
		err = syscall.Exec(self, append([]string{"swarm"}, os.Args[1:]...), os.Environ())
	}
	return failure("start the daemon again; builds go on for as long as --keep-builds says", "go on in a new process: %v", err)
}

// hereFlags make pause and resume be about this machine alone.
func hereFlags(off bool) []cli.Flag {
	here := &cli.BoolFlag{Name: "here", Usage: "the builds of this machine, which are frozen at once"}
	if off {
		return []cli.Flag{here}
	}
	return []cli.Flag{here, &cli.DurationFlag{Name: "for", Usage: "with --here: for so long, a `DURATION` as 2h; else until swarm resume --here"}}
}

// pauseHere is `swarm pause --here` and `swarm resume --here`.
func pauseHere(c *cli.Context, e *env, off bool) error {
	if _, err := positional(c, 0, 0, ""); err != nil {
		return usage("swarm "+c.Command.Name+" --here", "--here is this machine: it wants no PEER")
	}
	d := time.Duration(0)
	if !off {
		d = c.Duration("for")
		if d < 0 || c.IsSet("for") && d == 0 {
			return usage("swarm pause --for 2h", "--for %s: want more than nothing", d)
		}
	}
	p := control.PauseHere{ForMS: d.Milliseconds(), Off: off}
	if err := control.NewClient(c.String("socket")).PauseHere(c.Context, p); err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return e.out.JSON(struct {
			Schema int `json:"schema"`
			control.PauseHere
		}{1, p})
	case off:
		e.out.Printf("builds go on here\n")
	case d > 0:
		e.out.Printf("no builds here for %s; swarm resume --here ends it\n", guest.Span(d))
	default:
		e.out.Printf("no builds here until swarm resume --here\n")
	}
	return nil
}
