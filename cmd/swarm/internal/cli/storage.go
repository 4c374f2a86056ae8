package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// storageCmds look after the blobs of this peer.
func storageCmds(e *env) []*cli.Command {
	return []*cli.Command{fsckCmd(e), gcCmd(e), pinCmd(e, "pin", "keep a package, a release or a blob whatever happens", false), pinCmd(e, "unpin", "lift a pin", true), exportCmd(e)}
}

func fsckCmd(e *env) *cli.Command {
	flags := clientFlags(stateFlag(), jsonFlag())
	return &cli.Command{
		Name: "fsck", Usage: "read every stored blob and mend what is damaged", Flags: flags, Before: settings(flags),
		Description: "Each blob is read and held against its name. A damaged one is moved to quarantine and\n" +
			"fetched again from the peers that hold it. Without a running daemon the store in --state is\n" +
			"checked and nothing is fetched.\n\n" +
			"Exit code: 0 when every blob is sound now, 3 when some are lost to this machine, 1 when it\n" +
			"could not be checked.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			ctx, end := e.waiting(c.Context)
			var last control.FsckStep
			tell := func(s control.FsckStep) error {
				last = s
				if !s.Done {
					progress.Tell(ctx, fsckStep(s))
				}
				return nil
			}
			err := control.NewClient(c.String("socket")).Fsck(ctx, tell)
			if ce, ok := errors.AsType[*control.Error](err); ok && ce.Kind == control.KindUnreachable {
				err = offlineFsck(ctx, e, c.String("state"), ce, tell)
			}
			end()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				if err := e.out.JSON(last); err != nil {
					return err
				}
			} else {
				showFsck(e.out, last)
			}
			if len(last.Lost)+len(last.Unread) > 0 {
				return errPartial
			}
			return nil
		},
	}
}

// offlineFsck checks the store itself. asked is why the daemon does not.
func offlineFsck(ctx context.Context, e *env, state string, asked *control.Error, tell func(control.FsckStep) error) error {
	e.note("swarm: %s; checking the store in %s itself", asked.Message, state)
	err := daemon.OfflineFsck(ctx, state, tell)
	if errors.Is(err, daemon.ErrStoreInUse) {
		return failure("give its control socket with --socket", "a daemon has the store open, and %s", asked.Message)
	}
	if err != nil && ctx.Err() == nil {
		return failure("give the state directory with --state", "%v", err)
	}
	return err
}

func showFsck(o render.Out, s control.FsckStep) {
	list := func(style render.Style, what string, all []control.Damage) {
		for _, d := range all {
			name := d.Name
			if name == "" {
				name = "blob"
			}
			more := ""
			if d.Reason != "" {
				more = ": " + d.Reason
			}
			o.Labeled(style, what, fmt.Sprintf("%s, %s (%s)%s", name, render.Bytes(d.Size), d.CID, more))
		}
	}
	list(render.Warn, "mended:", s.Mended)
	list(render.Bad, "lost here:", s.Lost)
	list(render.Bad, "unreadable:", s.Unread)
	o.Printf("%d blobs, %s: ", s.Checked, render.Bytes(s.CheckedBytes))
	switch {
	case len(s.Lost)+len(s.Unread) > 0:
		o.Printf("%d lost here, %d unreadable, %d mended\n", len(s.Lost), len(s.Unread), len(s.Mended))
	case len(s.Mended) > 0:
		o.Printf("%d were damaged and are mended; look at this disk's health\n", len(s.Mended))
	default:
		o.Printf("all sound\n")
	}
}

func gcCmd(e *env) *cli.Command {
	flags := clientFlags(&cli.BoolFlag{Name: "dry-run", Usage: "say what would go, and drop nothing"}, jsonFlag())
	return &cli.Command{
		Name: "gc", Usage: "drop what nothing refers to any more", Flags: flags, Before: settings(flags),
		Description: "Kept are releases, pins, open rounds and what each target's newest round wanted. What\n" +
			"nothing has referred to for a day goes, once every peer that holds it agrees; that takes a\n" +
			"minute. It also happens by itself, every quarter of an hour.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			client := control.NewClient(c.String("socket"))
			reply, err := client.GC(c.Context, true)
			if err != nil {
				return err
			}
			if !c.Bool("dry-run") && due(reply) > 0 {
				e.note("asking the other holders of %d blobs; this takes a minute", due(reply))
				ctx, end := e.waiting(c.Context)
				reply, err = client.GC(ctx, false)
				end()
				if err != nil {
					return err
				}
			}
			reply.DryRun = c.Bool("dry-run")
			if c.Bool("json") {
				return e.out.JSON(reply)
			}
			showGC(e.out, reply)
			return nil
		},
	}
}

func due(r control.GCReply) (n int) {
	for _, g := range r.Garbage {
		if g.Due {
			n++
		}
	}
	return n
}

func showGC(o render.Out, r control.GCReply) {
	var gone, left, surplus int64
	garbage, extra := 0, 0
	if len(r.Garbage) > 0 {
		t := o.NewTable("SIZE", "WHAT", "WHY", "NOW")
		for _, g := range r.Garbage {
			name := g.Name
			if name == "" {
				name = g.CID
			}
			why, now := g.Why, render.Cell(render.Dim, "kept: another holder still wants it, or could not be asked")
			if g.ForMS > 0 {
				why += ", for " + render.Duration(time.Duration(g.ForMS)*time.Millisecond)
			}
			if g.Surplus {
				extra, surplus = extra+1, surplus+g.Size
			} else {
				garbage, left = garbage+1, left+g.Size
			}
			switch {
			case g.Dropped:
				now = render.Cell(render.Good, "dropped")
				gone += g.Size
			case !g.Due:
				now = render.Cell(render.Dim, "kept until it is a day")
			case r.DryRun:
				now = render.Cell(render.Warn, "would be dropped")
			}
			t.Row(render.Bytes(g.Size), name, why, now)
		}
		t.Flush()
		o.Printf("\n")
	}
	o.Printf("%d blobs are referred to, %s; %d are not, %s\n", r.Kept, render.Bytes(r.KeptB), garbage, render.Bytes(left))
	if extra > 0 {
		o.Printf("of %d this peer need not keep its copy, %s\n", extra, render.Bytes(surplus))
	}
	if gone > 0 {
		o.Printf("dropped %s\n", render.Bytes(gone))
	}
}

func pinCmd(e *env, name, use string, off bool) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: name, Usage: use, ArgsUsage: "WHAT", Flags: flags, Before: settings(flags),
		Description: "WHAT is a built package (category/name, or with its version), a target or target/channel\n" +
			"(the release that it shows now), TARGET/NUMBER (a release of swarm releases), or a CID. The pin stands on the board: every peer keeps it.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "one package, release or CID")
			if err != nil {
				return err
			}
			reply, err := control.NewClient(c.String("socket")).Order(c.Context, control.Order{Verb: "pin", Scope: args[0], Off: off})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(reply)
			}
			if off {
				e.out.Printf("%s is not pinned any more\n", render.Clean(reply.Name))
			} else {
				e.out.Printf("%s is kept until swarm unpin %s\n", render.Clean(reply.Name), reply.Scope)
			}
			return nil
		},
	}
}
