package cli

import (
	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

func webCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "web", Usage: "print the address of this peer's page, with a token to give orders there", Flags: flags, Before: settings(flags),
		Description: "Anybody who reaches the page may read it; only who has a token may give orders. A token is good for 12 hours, or until the daemon stops.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			w, err := control.NewClient(c.String("socket")).Web(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(w)
			}
			e.out.Printf("%s\n", w.URL)
			e.note("whoever has this address may give orders on the page for 12 hours; %s alone shows it", w.Page)
			return nil
		},
	}
}
