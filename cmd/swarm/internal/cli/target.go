package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// targetCmds are the commands about targets, and the one that plans for them.
func targetCmds(e *env) []*cli.Command {
	return []*cli.Command{freshCmd(e), {
		Name: "target", Usage: "the configurations that packages are built for",
		Subcommands: []*cli.Command{targetAddCmd(e), targetListCmd(e), targetShowCmd(e), targetDiffCmd(e), targetRemoveCmd(e)},
	}}
}

func targetAddCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(),
		&cli.StringFlag{Name: "from", Usage: "evaluate the configuration below `DIR`; else the daemon's own"},
		&cli.StringFlag{Name: "base", Usage: "builds start from the base `NAME`; none = in place, on the drone's own root"},
		&cli.StringFlag{Name: "rebuild", Usage: "`WHEN` a package is built anew: portage (as emerge would) or strict (also for eclasses and the exact toolchain)"})
	return &cli.Command{
		Name: "add", Usage: "evaluate this machine's configuration as a target, or its new version", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Description: "Portage itself evaluates make.conf, the profile and package.*; -march=native is written out. What does not travel (credentials, mirrors, INSTALL_MASK, how you like emerge to work) is listed with its reason, and so are the drones whose processor cannot run it.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "one NAME")
			if err != nil {
				return err
			}
			how := build.Rebuild(c.String("rebuild"))
			if how != "" && how != build.RebuildPortage && how != build.RebuildStrict {
				return usage("swarm target add --rebuild portage, or strict", "--rebuild %s: want portage or strict", how)
			}
			reply, err := control.NewClient(c.String("socket")).AddTarget(c.Context, control.TargetRequest{
				Name: args[0], From: c.String("from"), Base: c.String("base"), Rebuild: how,
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(reply)
			}
			showAdded(e, reply)
			return nil
		},
	}
}

func showAdded(e *env, r control.TargetReply) {
	o := e.out
	switch {
	case r.New:
		o.Labeled(render.Good, "target "+r.Name+" is new:", fmt.Sprintf("%s, %s", render.Clean(r.Profile), r.CHOST))
	case r.Changed:
		o.Labeled(render.Good, fmt.Sprintf("target %s is now version %d:", r.Name, r.Version), tallyChanges(r.Changes))
	default:
		o.Labeled(render.Strong, fmt.Sprintf("target %s stays version %d:", r.Name, r.Version), "nothing changed")
	}
	showConfigChanges(o, r.Changes)
	showBundleFacts(o, r)
	showLeft(o, r.Bundle.Left)
	if r.New {
		e.note("next: swarm fresh --target %s", r.Name)
	}
}

func tallyChanges(cs []build.Change) string {
	if len(cs) == 0 {
		return "the base or the policy changed"
	}
	return plural(len(cs), "difference")
}

func showConfigChanges(o render.Out, cs []build.Change) {
	for _, c := range cs {
		o.Printf("  %s: %s -> %s\n", render.Clean(c.What), shortValue(c.Old), shortValue(c.New))
	}
}

// shortValue writes a value of a configuration on one line.
func shortValue(v string) string {
	const most = 70
	v = render.Clean(build.OneLine(v, 400))
	switch {
	case v == "":
		return "(none)"
	case len(v) > most:
		return strings.ToValidUTF8(v[:most], "") + "..."
	}
	return v
}

func showBundleFacts(o render.Out, r control.TargetReply) {
	names := make([]string, 0, len(r.Bundle.Repos))
	for _, repo := range r.Bundle.Repos {
		names = append(names, repo.Name)
	}
	base := "none: builds happen on the drone's own root"
	if !r.Base.IsZero() {
		base = r.Base.Name + " (" + r.Base.Digest[:8] + ")"
	}
	o.Printf("repositories: %s\n", render.Clean(strings.Join(names, " ")))
	o.Printf("base: %s\n", render.Clean(base))
	if len(r.CPU) > 0 {
		o.Printf("a drone's processor must know: %s\n", render.Clean(strings.Join(r.CPU, " ")))
	}
	for _, x := range r.Excluded {
		o.Labeled(render.Warn, "excluded drone "+render.Clean(x.Nick)+":", render.Clean(x.Reason))
	}
}

func showLeft(o render.Out, left []build.Note) {
	if len(left) == 0 {
		return
	}
	o.Printf("not part of the target:\n")
	for _, n := range left {
		o.Printf("  %s: %s\n", render.Clean(n.Atom), render.Clean(n.Reason))
	}
}

func targetListCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "ls", Usage: "list the targets", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			list, err := control.NewClient(c.String("socket")).Targets(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(struct {
					Schema  int                  `json:"schema"`
					Targets []control.TargetLine `json:"targets"`
				}{1, list})
			}
			if len(list) == 0 {
				e.note("no targets yet: swarm target add NAME makes one of this machine's configuration")
				return nil
			}
			for _, t := range list {
				base := "in place"
				if !t.Base.IsZero() {
					base = "base " + t.Base.Name
				}
				line := fmt.Sprintf("version %d, %s, %s, by %s %s", t.Version, render.Clean(t.Profile), base, render.Clean(t.By), time.UnixMilli(t.StampMS).Format("2006-01-02 15:04"))
				if n := len(t.Excluded); n > 0 {
					line += fmt.Sprintf(", excludes %s", plural(n, "drone"))
				}
				e.out.Labeled(render.Strong, t.Name+":", line)
			}
			return nil
		},
	}
}

func targetShowCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "show", Usage: "show a target's configuration, and what is not part of it", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "one NAME")
			if err != nil {
				return err
			}
			r, err := control.NewClient(c.String("socket")).ShowTarget(c.Context, args[0])
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(r)
			}
			o := e.out
			o.Labeled(render.Strong, "target "+r.Name+":", fmt.Sprintf("version %d by %s, %s, %s", r.Version, render.Clean(r.By), render.Clean(r.Profile), r.CHOST))
			showBundleFacts(o, r)
			for _, p := range r.Bundle.MakeConf {
				o.Printf("%s=%q\n", p.Name, render.Clean(p.Value))
			}
			for _, s := range r.Bundle.Selections {
				o.Printf("%s: %s\n", render.Clean(s.Name), render.Clean(s.Value))
			}
			for _, f := range r.Bundle.Files {
				o.Printf("%s: %s\n", render.Clean(f.Path), plural(strings.Count(string(f.Data), "\n"), "line"))
			}
			showLeft(o, r.Bundle.Left)
			return nil
		},
	}
}

func targetDiffCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "diff", Usage: "compare a target with another, or with this machine's configuration now", ArgsUsage: "NAME [OTHER]", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 2, "a NAME, and another one if it is not this machine that is compared")
			if err != nil {
				return err
			}
			other := ""
			if len(args) == 2 {
				other = args[1]
			}
			r, err := control.NewClient(c.String("socket")).DiffTarget(c.Context, args[0], other)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(r)
			}
			if len(r.Changes) == 0 {
				e.out.Printf("%s and %s are the same\n", r.From, r.To)
				return nil
			}
			e.out.Labeled(render.Strong, fmt.Sprintf("%s -> %s:", r.From, r.To), plural(len(r.Changes), "difference"))
			showConfigChanges(e.out, r.Changes)
			return nil
		},
	}
}

func targetRemoveCmd(e *env) *cli.Command {
	flags := clientFlags()
	return &cli.Command{
		Name: "rm", Usage: "remove a target; its releases stay", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "one NAME")
			if err != nil {
				return err
			}
			t, err := control.NewClient(c.String("socket")).RemoveTarget(c.Context, args[0])
			if err != nil {
				return err
			}
			e.out.Printf("target %s (version %d) is removed; what is released for it stays\n", t.Name, t.Version)
			return nil
		},
	}
}

func freshCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag(),
		&cli.StringFlag{Name: "for", Usage: "plan for the machine `PEER`, of what it has published of itself"},
		&cli.BoolFlag{Name: "full", Usage: "all of @system and @world with everything that builds need: the only release that installs into an empty root"},
		&cli.BoolFlag{Name: "dry-run", Usage: "show what would be asked for, and ask for nothing"},
		&cli.BoolFlag{Name: "wait", Usage: "wait until the round has ended and show how it goes"})
	return &cli.Command{
		Name: "fresh", Usage: "have the swarm build whatever this machine needs to be up to date", ArgsUsage: "[SET|ATOM...]", Flags: flags, Before: settings(flags),
		Description: "Without a set or atom it is @world, as emerge -uDN would update it with your default options. Portage is asked twice: for what you need, and for what building that needs. With a --target whose configuration is not this machine's it is planned for the machine whose target it is: with its configuration and what it has published of its packages, its world and its default options (swarm portage setup).",
		Action: func(c *cli.Context) error {
			atoms, err := positional(c, 0, -1, "")
			if err != nil {
				return err
			}
			return runFresh(c, e, atoms)
		},
	}
}

func runFresh(c *cli.Context, e *env, atoms []string) error {
	client := control.NewClient(c.String("socket"))
	words := append([]string{"swarm fresh"}, atoms...)
	if c.Bool("full") {
		words = append(words, "--full")
	}
	if c.String("for") != "" {
		words = append(words, "--for "+c.String("for"))
	}
	req := control.FreshRequest{Target: c.String("target"), For: c.String("for"), Atoms: atoms, Full: c.Bool("full"), DryRun: c.Bool("dry-run"), Command: strings.Join(words, " ")}
	ctx, end := e.waiting(c.Context)
	reply, err := client.Fresh(ctx, req, func(s control.FreshStep) { showStep(e, s) })
	end()
	if err != nil {
		return err
	}
	e.noteOmitted(reply.BuildReply)
	switch {
	case c.Bool("wait") && reply.Round != "":
		err = waitRound(c, e, client, reply.BuildReply)
	case c.Bool("json"):
		err = e.out.JSON(reply)
	case reply.Round != "":
		e.out.Labeled(render.Strong, "round "+reply.Round+":", fmt.Sprintf("%s needed, %s, %d of them the swarm has", plural(reply.Needed, "package"), plural(reply.Jobs, "job"), reply.Have))
		e.note("watch it: swarm monitor, or: swarm status --watch")
	}
	if err == nil && len(reply.Missing)+len(reply.Dropped) > 0 {
		return errPartial
	}
	return err
}

// showStep writes one line of the checklist, on stderr: the data is the round.
func showStep(e *env, s control.FreshStep) {
	mark := map[string]string{"doing": "...", "done": "[ok]", "warn": "[!]"}[s.State]
	e.note("%5s %s: %s", mark, render.Clean(s.Name), render.Clean(s.Text))
}
