package cli

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// trustCmds are the subcommands of peers: whom this swarm has seen, and whom it
// ignores.
func trustCmds(e *env) []*cli.Command {
	var out []*cli.Command
	for _, w := range []struct {
		orderWords
		description string
	}{
		{orderWords{"ack", "say that you have seen a new peer, or all of them", "[PEER]", 0, 1, []string{"ack"}, false, "%s is known now"},
			"A peer that nobody has acknowledged stands on status as new. What you say here counts on every machine that knows this one."},
		{orderWords{"ban", "ignore what a peer says from now on, on every peer", "PEER", 1, 1, []string{"ban"}, false, "%s is banned: its connections end, and nothing that it says counts"},
			"Its claims are free again at once. What it has built stays and is listed: remove what you do not trust. A machine that has the swarm key can come back under another identity: swarm rekey."},
		{orderWords{"unban", "lift a ban", "PEER", 1, 1, []string{"ban"}, true, "%s is a peer again"}, ""},
	} {
		flags := orderFlags()
		out = append(out, &cli.Command{
			Name: w.name, Usage: w.use, ArgsUsage: w.args + " ", Description: w.description, Flags: flags, Before: settings(flags),
			Action: func(c *cli.Context) error { return runOrder(c, e, w.orderWords) },
		})
	}
	return out
}

// showBuilt lists what a banned peer built.
func showBuilt(o render.Out, built []control.Built) {
	if len(built) == 0 {
		o.Printf("it has built nothing that is on the board\n")
		return
	}
	o.Printf("what it built, and stays:\n")
	t := o.NewTable("PACKAGE", "BUILT", "CID")
	for _, b := range built {
		t.Row(b.CPV, time.UnixMilli(b.AtMS).UTC().Format(time.RFC3339), b.CID)
	}
	t.Flush()
}

// recent is for how long an order that has been obeyed is still shown.
const recent = 10 * time.Minute

// showOrders writes who ordered what, and who is new here.
func showOrders(o render.Out, s view.Snapshot) {
	for _, x := range s.Orders {
		age := time.Since(time.UnixMilli(x.AtMS))
		if x.Lasts() || age < recent {
			o.Labeled(render.Warn, "order:", x.String()+", "+render.Duration(max(0, age))+" ago")
		}
	}
	var fresh []string
	for _, p := range s.Peers {
		if p.New {
			fresh = append(fresh, p.Nick+" ("+shortID(p.ID)+")")
		}
	}
	if len(fresh) > 0 {
		o.Labeled(render.Warn, "new here:", strings.Join(fresh, ", ")+"; known to you? swarm peers ack; not? swarm peers ban NAME")
	}
}

func rekeyCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "rekey", Usage: "make a new swarm key, which locks out whoever has only the old one", Flags: flags, Before: settings(flags),
		Description: "It prints the new join code. This daemon uses the new key after a restart; every other machine takes it with swarm join --rekeyed, which keeps its identity and its board, and is restarted, too. A machine that does not get the code is out.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			r, err := control.NewClient(c.String("socket")).Rekey(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(r)
			}
			e.out.Printf("%s\n", r.Code)
			e.note("it holds the new swarm key: pass it on as you would a password")
			e.note("next: on every other machine that is to stay, swarm join --rekeyed; then restart every daemon, this one too")
			return nil
		},
	}
}
