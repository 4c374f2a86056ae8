package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func whyCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), &cli.StringFlag{Name: "drone", Usage: "why the peer `NAME` does nothing, or what it will do"})
	return &cli.Command{
		Name: "why", Usage: "say what a job waits for, and each drone's reason", ArgsUsage: "JOB", Flags: flags, Before: settings(flags),
		Description: "JOB is a package (category/name, or with its version) or the end of a job's key.",
		Action: func(c *cli.Context) error {
			client := control.NewClient(c.String("socket"))
			if drone := c.String("drone"); drone != "" {
				if c.Args().Present() {
					return usage("swarm why --drone "+shellWords([]string{drone})+", or swarm why "+shellWords(c.Args().Slice()[:1]), "swarm why wants a JOB or --drone PEER, not both")
				}
				w, err := client.WhyDrone(c.Context, drone)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return e.out.JSON(w)
				}
				showWhyDrone(e.out, w)
				return nil
			}
			args, err := positional(c, 1, 1, "one JOB, or --drone PEER")
			if err != nil {
				return err
			}
			w, err := client.Why(c.Context, args[0])
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(w)
			}
			showWhy(e.out, w)
			return nil
		},
	}
}

func showWhy(o render.Out, w view.Why) {
	o.Printf("%s: %s\n", o.Styled(render.Strong, render.Clean(w.CPV)), render.Clean(w.Sentence))
	for _, x := range w.WaitsFor {
		o.Printf("  waits for %s (%s)%s\n", render.Clean(x.CPV), x.State, about(x.LeftMS))
	}
	if w.HoldsUp > 0 {
		o.Printf("  holds up %d jobs\n", w.HoldsUp)
	}
	if wants := wants(w); wants != "" {
		o.Printf("  its build is expected to want %s\n", wants)
	}
	if len(w.Phases) > 0 {
		words := make([]string, 0, len(w.Phases))
		for _, p := range w.Phases {
			words = append(words, render.Clean(p.Name)+" "+render.Duration(time.Duration(p.Millis)*time.Millisecond))
		}
		o.Printf("  took: %s\n", strings.Join(words, ", "))
	}
	if w.Differs != "" {
		o.Labeled(render.Warn, "  differs:", render.Clean(w.Differs))
	}
	if w.Next != "" {
		o.Printf("  next: %s%s\n", render.Clean(w.Next), about(w.NextMS))
	}
	o.Printf("\n")
	t := o.NewTable("DRONE", "COULD", "REASON")
	for _, d := range w.Drones {
		could := render.Cell(render.Dim, "no")
		if d.Could {
			could = render.Cell(render.Good, "yes")
		}
		t.Row(d.Nick, could, d.Reason)
	}
	t.Flush()
	if w.Do != "" {
		o.Printf("\nNEXT ACTION: %s\n", o.Styled(render.Strong, render.Clean(w.Do)))
	}
}

// wants says what a build is expected to want; "" if that is not known.
func wants(w view.Why) string {
	var parts []string
	if w.MemoryMiB > 0 {
		parts = append(parts, fmt.Sprintf("%d MiB of memory", w.MemoryMiB))
	}
	if w.DiskMiB > 0 {
		parts = append(parts, fmt.Sprintf("%d MiB of disk to work in", w.DiskMiB))
	}
	return strings.Join(parts, " and ")
}

func showWhyDrone(o render.Out, w view.DroneWhy) {
	o.Printf("%s: %s\n", o.Styled(render.Strong, render.Clean(w.Nick)), render.Clean(w.Sentence))
	for i, j := range w.Jobs {
		if i == 10 {
			o.Printf("  and %d more\n", len(w.Jobs)-i)
			break
		}
		o.Printf("  the plan has %s for it%s\n", render.Clean(j.CPV), about(j.LeftMS))
	}
	for _, u := range w.Unfit {
		o.Printf("  not for it: %s: %s\n", render.Clean(u.CPV), render.Clean(u.Reason))
	}
}

func about(ms int64) string {
	if ms <= 0 {
		return ""
	}
	return ", in about " + render.Duration(time.Duration(ms)*time.Millisecond)
}

// orderWords describes one command that gives an order.
type orderWords struct {
	name, use, args string
	low, high       int // arguments
	verbs           []string
	off             bool
	done            string // with the name of what it is about
}

// orderCmds are the commands that put a directive on the board, and the one
// that lets the page do so.
func orderCmds(e *env) []*cli.Command {
	out := []*cli.Command{webCmd(e)}
	for _, w := range []orderWords{
		{"unblock", "forget the failures of a job, or of all", "JOB|all", 1, 1, []string{"unblock"}, false, "forgot the failures of %s"},
		{"cancel", "end a round: what only it asks for is built no more", "ROUND", 1, 1, []string{"cancel"}, false, "%s is cancelled"},
		{"bump", "put a job or a round first", "JOB|ROUND", 1, 1, []string{"bump"}, false, "%s goes first now"},
		{"pause", "let a drone, or all, take no new jobs", "[PEER]", 0, 1, []string{"pause"}, false, "%s takes no new jobs; swarm resume lifts it"},
		{"drain", "let a drone finish what it builds and take no more", "[PEER]", 0, 1, []string{"drain"}, false, "%s finishes what it builds and takes no more; swarm resume lifts it"},
		{"resume", "lift pause and drain", "[PEER]", 0, 1, []string{"pause", "drain"}, true, "%s takes jobs again"},
		{"balance", "give back what is claimed and not begun, and plan anew", "", 0, 0, []string{"balance"}, false, "%s gives back what is not begun"},
		{"reset", "forget the claims, failures and rounds of a target; what is built stays", "TARGET", 1, 1, []string{"reset"}, false, "%s starts afresh; what is built stays"},
	} {
		flags := orderFlags()
		if w.verbs[0] == "pause" {
			flags = append(flags, hereFlags(w.off)...)
		}
		out = append(out, &cli.Command{
			Name: w.name, Usage: w.use, ArgsUsage: w.args + " ", Flags: flags, Before: settings(flags),
			Action: func(c *cli.Context) error { return runOrder(c, e, w) },
		})
	}
	return out
}

func orderFlags() []cli.Flag {
	return clientFlags(jsonFlag(), &cli.StringFlag{Name: "reason", Usage: "a `TEXT` that is shown with the order"})
}

func runOrder(c *cli.Context, e *env, w orderWords) error {
	if w.verbs[0] == "pause" && (c.Bool("here") || !w.off && c.IsSet("for")) {
		return pauseHere(c, e, w.off)
	}
	args, err := positional(c, w.low, w.high, w.args)
	if err != nil {
		return err
	}
	scope := control.All
	if len(args) == 1 {
		scope = args[0]
	}
	client := control.NewClient(c.String("socket"))
	var last control.OrderReply
	for _, v := range w.verbs {
		if last, err = client.Order(c.Context, control.Order{Verb: v, Scope: scope, Off: w.off, Reason: c.String("reason")}); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return e.out.JSON(last)
	}
	e.out.Printf(w.done+"\n", render.Clean(last.Name))
	if w.name == "ban" {
		showBuilt(e.out, last.Built)
	}
	return nil
}
