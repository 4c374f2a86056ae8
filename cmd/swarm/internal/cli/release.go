package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// releaseCmds are the commands that make releases and look at them.
func releaseCmds(e *env) []*cli.Command {
	return []*cli.Command{finalizeCmd(e), rollbackCmd(e), releasesCmd(e), diffCmd(e), updateCmd(e)}
}

func targetFlag() cli.Flag {
	return stringFlag("target", "default", "`NAME` of the target")
}

func finalizeCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag(),
		&cli.StringSliceFlag{Name: "without", Usage: "an `ATOM` to keep out, with all that needs it; may be given more than once"},
		&cli.BoolFlag{Name: "dry-run", Usage: "show what would be released (staging), and release nothing"})
	return &cli.Command{
		Name: "finalize", Usage: "release what is built: every binhost of the swarm moves to it", Flags: flags, Before: settings(flags),
		Description: "What goes in is the largest set that leaves no consumer to compile; what stays out is listed with its reason. Rounds are released by themselves when they end, unless auto-release = false.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			ctx, end := e.waiting(c.Context)
			reply, err := control.NewClient(c.String("socket")).Finalize(ctx, control.FinalizeRequest{
				Target: c.String("target"), Without: c.StringSlice("without"), Try: c.Bool("dry-run"),
			})
			end()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = e.out.JSON(reply)
			} else {
				showFinalize(e, reply, c.Bool("dry-run"))
			}
			if reply.Refused != "" {
				return failure("swarm finalize --without ATOM keeps a package out; swarm finalize --dry-run shows what is staged", "not released: %s", reply.Refused)
			}
			return err
		},
	}
}

func showFinalize(e *env, r control.FinalizeReply, dry bool) {
	o := e.out
	channel := r.Target + "/" + release.Stable
	sum := fmt.Sprintf("%s (%s), %s", plural(r.Packages, "package"), render.Bytes(r.Bytes), tally(r.Changes))
	switch {
	case r.Released:
		o.Labeled(render.Good, fmt.Sprintf("released %s %d:", channel, r.Number), sum)
	case r.Refused != "":
		o.Labeled(render.Bad, fmt.Sprintf("not released, %s stays:", channel), sum)
	case len(r.Changes) == 0:
		o.Labeled(render.Strong, "nothing to release:", fmt.Sprintf("%s shows all that is built and can go in", channel))
	case dry:
		o.Labeled(render.Strong, fmt.Sprintf("would release %s:", channel), sum)
	}
	if dry {
		showChanges(o, r.Changes)
	}
	showHeld(o, "held back", r.Held)
	if len(r.Consumers) > 0 {
		o.Printf("looked at what is installed on: %s\n", render.Clean(strings.Join(r.Consumers, ", ")))
	}
	if r.InstallTest != "" {
		o.Printf("install test: %s\n", render.Clean(r.InstallTest))
	}
	if r.RolledBack {
		o.Printf("it was rolled back: what is built next waits for swarm finalize, too\n")
	}
	if r.Released {
		o.Printf("\nNEXT ACTION: %s\n", o.Styled(render.Strong, "swarm update, on each machine that installs from it"))
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// tally counts changes: "12 new, 3 changed, 1 gone".
func tally(cs []control.Change) string {
	n := map[string]int{}
	for _, c := range cs {
		n[c.Kind]++
	}
	return fmt.Sprintf("%d new, %d changed, %d gone", n[string(release.Added)], n[string(release.Replaced)], n[string(release.Gone)])
}

func showChanges(o render.Out, cs []control.Change) {
	if len(cs) == 0 {
		return
	}
	t := o.NewTable("CHANGE", "PACKAGE", "SIZE", "USE")
	for _, c := range cs {
		style := render.Good
		switch c.Kind {
		case string(release.Replaced):
			style = render.Warn
		case string(release.Gone):
			style = render.Bad
		}
		t.Row(render.Cell(style, c.Kind), c.CPV, render.Bytes(c.Size), strings.Join(c.USE, " "))
	}
	t.Flush()
}

func showHeld(o render.Out, title string, hs []control.Held) {
	if len(hs) == 0 {
		return
	}
	o.Printf("%s: %d\n", title, len(hs))
	t := o.NewTable("PACKAGE", "REASON")
	for _, h := range hs {
		t.Row(h.CPV, h.Reason)
	}
	t.Flush()
}

func rollbackCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag(), &cli.BoolFlag{Name: "dry-run", Usage: "say which packages would go down, and move nothing"})
	return &cli.Command{
		Name: "rollback", Usage: "show an earlier release again, packages and tree as one", ArgsUsage: "[RELEASE]", Flags: flags, Before: settings(flags),
		Description: "RELEASE is a number or the end of a CID, from swarm releases; without one it is the release before. Machines follow with swarm update. glibc never goes down.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 0, 1, "one RELEASE, or none")
			if err != nil {
				return err
			}
			req := control.RollbackRequest{Target: c.String("target"), Try: c.Bool("dry-run")}
			if len(args) == 1 {
				req.Release = args[0]
			}
			reply, err := control.NewClient(c.String("socket")).Rollback(c.Context, req)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(reply)
			}
			showRollback(e.out, reply)
			return nil
		},
	}
}

func showRollback(o render.Out, r control.RollbackReply) {
	verb := "would go back"
	if r.Done {
		verb = "went back"
	}
	if r.To > r.From {
		verb = strings.Replace(verb, "back", "on", 1)
	}
	what := downs(len(r.Downs))
	if r.Unread {
		what = "what goes down is not known, no peer that is here has the list of what is shown"
	}
	o.Labeled(render.Good, fmt.Sprintf("%s/%s %s from release %d to %d:", r.Target, release.Stable, verb, r.From, r.To), what)
	if len(r.Downs) > 0 {
		t := o.NewTable("PACKAGE", "FROM", "TO")
		for _, d := range r.Downs {
			to := d.To
			if to == "" {
				to = "(not in that release)"
			}
			name := d.Package
			if d.Slot != "0" {
				name += ":" + d.Slot
			}
			t.Row(name, d.From, to)
		}
		t.Flush()
	}
	for _, x := range r.Repos {
		o.Printf("tree: %s at %.12s, which swarm update goes to\n", x.Name, x.Commit)
	}
	if len(r.Repos) == 0 {
		o.Printf("no tree is recorded with it: where the tree is newer, emerge does not go down by itself\n")
	}
	if r.Done {
		o.Printf("nothing is released by itself until swarm finalize\n")
		o.Printf("\nNEXT ACTION: %s\n", o.Styled(render.Strong, "swarm update, on each machine that installs from it"))
	}
}

func downs(n int) string {
	if n == 1 {
		return "1 package goes down"
	}
	return fmt.Sprintf("%d packages go down", n)
}

func releasesCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag())
	list := func(c *cli.Context) error {
		if c.Args().Present() {
			return unknown(c.Command.Subcommands, "swarm releases", c.Args().First())
		}
		reply, err := control.NewClient(c.String("socket")).Releases(c.Context, c.String("target"))
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return e.out.JSON(reply)
		}
		showReleases(e, reply)
		return nil
	}
	mark := func(name, use, done string, pin, prune bool) *cli.Command {
		flags := clientFlags(jsonFlag(), targetFlag())
		return &cli.Command{
			Name: name, Usage: use, ArgsUsage: "RELEASE...", Flags: flags, Before: settings(flags),
			Action: func(c *cli.Context) error {
				args, err := positional(c, 1, -1, "at least one RELEASE")
				if err != nil {
					return err
				}
				out := []control.Release{}
				for _, a := range args {
					r, err := control.NewClient(c.String("socket")).Mark(c.Context, control.MarkRequest{Target: c.String("target"), Release: a, Pin: pin, Prune: prune})
					if err != nil {
						return err
					}
					out = append(out, r)
					if !c.Bool("json") {
						e.out.Printf(done+"\n", r.Number)
					}
				}
				if c.Bool("json") {
					return e.out.JSON(map[string]any{"schema": 1, "releases": out})
				}
				return nil
			},
		}
	}
	return &cli.Command{
		Name: "releases", Usage: "list the releases of a target", Flags: flags, Before: settings(flags), Action: list,
		Subcommands: []*cli.Command{
			mark("keep", "keep releases whatever their age", "release %d is kept until it is pruned", true, false),
			mark("prune", "forget releases: their packages go where nothing else wants them", "release %d is pruned", false, true),
		},
	}
}

func showReleases(e *env, r control.ReleasesReply) {
	if len(r.Releases) == 0 {
		e.note("nothing is released yet for %s: swarm finalize releases what is built", r.Target)
		return
	}
	t := e.out.NewTable("RELEASE", "MADE", "PACKAGES", "SIZE", "CHANGES", "BY", "ID", "")
	if e.out.TTY { // there is no room for all of it
		t = e.out.NewTable("RELEASE", "MADE", "PACKAGES", "CHANGES", "BY", "")
	}
	for _, l := range r.Releases {
		if e.out.TTY {
			t.Row(l.Number, time.Unix(l.Created, 0).Local().Format("2006-01-02 15:04"), l.Packages, fmt.Sprintf("+%d ~%d -%d", l.New, l.Changed, l.Gone), l.By, markers(l, r))
			continue
		}
		t.Row(l.Number, time.Unix(l.Created, 0).UTC().Format("2006-01-02 15:04:05"), l.Packages, render.Bytes(l.Bytes),
			fmt.Sprintf("+%d ~%d -%d", l.New, l.Changed, l.Gone), l.By, l.Release[max(0, len(l.Release)-10):], markers(l, r))
	}
	t.Flush()
	if r.RolledBack {
		e.out.Printf("rolled back: nothing is released by itself until swarm finalize\n")
	}
	if len(r.Held) > 0 {
		showHeld(e.out, "held back by what was tried at "+time.Unix(r.HeldAt, 0).Local().Format("2006-01-02 15:04"), r.Held)
	}
	for _, c := range r.Consumers {
		e.out.Printf("consumer: %s, %s installed\n", render.Clean(c.Nick), plural(c.Packages, "package"))
	}
}

func markers(l control.Release, r control.ReleasesReply) any {
	var out []string
	style := render.Dim
	if l.Shown {
		style = render.Good
		out = append(out, "shown")
	}
	if l.Before {
		out = append(out, "swarm rollback goes here")
	}
	if l.Pin {
		out = append(out, "kept")
	}
	if l.State == release.Pruned {
		out = append(out, "pruned")
	}
	if l.Contested {
		style = render.Warn
		out = append(out, fmt.Sprintf("one of %d made at once", count(r.Releases, l.Number)))
	}
	return render.Cell(style, strings.Join(out, ", "))
}

func count(rs []control.Release, number uint64) int {
	n := 0
	for _, r := range rs {
		if r.Number == number && r.Contested {
			n++
		}
	}
	return n
}

func diffCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag())
	return &cli.Command{
		Name: "diff", Usage: "compare two releases, or what is shown with what is staged", ArgsUsage: "[A [B]]", Flags: flags, Before: settings(flags),
		Description: "A and B are numbers or ends of CIDs from swarm releases, or the word staging. Without B it is staging, without A what is shown.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 0, 2, "two releases at the most")
			if err != nil {
				return err
			}
			args = slices.Concat(args, []string{"", ""})
			reply, err := control.NewClient(c.String("socket")).Diff(c.Context, c.String("target"), args[0], args[1])
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(reply)
			}
			e.out.Labeled(render.Strong, fmt.Sprintf("from %s to %s:", reply.From, reply.To), tally(reply.Changes))
			showChanges(e.out, reply.Changes)
			showHeld(e.out, "held back", reply.Held)
			showHeld(e.out, "newly failing", reply.Failing)
			return nil
		},
	}
}
