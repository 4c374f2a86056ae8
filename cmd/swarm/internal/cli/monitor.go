package cli

import (
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/monitor"
)

func monitorCmd(e *env) *cli.Command {
	flags := clientFlags()
	return &cli.Command{
		Name: "monitor", Usage: "watch and drive the swarm on the whole terminal", Flags: flags, Before: settings(flags),
		Description: "Tabs 1 to 6 are the swarm, the queue, builds, releases, storage and events; ? lists the keys. It stays when the daemon stops, and goes on when it is back.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			in, ok := e.in.(*os.File)
			if !e.out.TTY || !ok || !term.IsTerminal(int(in.Fd())) {
				return usage("swarm status --watch, or swarm status --json", "swarm monitor wants a terminal")
			}
			return monitor.Run(c.Context, control.NewClient(c.String("socket")), in, e.out.W)
		},
	}
}
