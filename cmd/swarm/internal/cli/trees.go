package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// treeCmds are the commands about ebuild repositories.
func treeCmds(e *env) []*cli.Command {
	verify, sync := clientFlags(jsonFlag()), clientFlags(jsonFlag(), &cli.BoolFlag{Name: "here", Usage: "spread this machine's trees as they are, without emerge --sync"})
	return []*cli.Command{{
		Name: "sync-verify", Usage: "compare the ebuild repositories of all peers with this machine's", Flags: verify, Before: settings(verify),
		Description: "A line for each peer and repository. The exit code is 1 when some repository is not the same everywhere.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			ctx, end := e.waiting(c.Context)
			reply, err := control.NewClient(c.String("socket")).VerifyTrees(ctx)
			end()
			return showTrees(c, e, reply, err)
		},
	}, {
		Name: "sync", Usage: "sync the ebuild repositories here, and bring all peers to that revision", Flags: sync, Before: settings(sync),
		Description: "Portage syncs this machine; every peer then takes over the result as a checked snapshot. A repository that is a checkout of git is left to its owner, and named.",
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			ctx, end := e.waiting(c.Context)
			reply, err := control.NewClient(c.String("socket")).SyncTrees(ctx, control.SyncRequest{Here: c.Bool("here")})
			end()
			return showTrees(c, e, reply, err)
		},
	}}
}

func showTrees(c *cli.Context, e *env, r control.TreesReply, err error) error {
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = e.out.JSON(r)
	} else {
		for _, l := range r.Lines {
			showTree(e.out, l, time.Now())
		}
	}
	if r.Drift {
		return errors.Join(err, failure("swarm sync brings all peers to this machine's revision", "the ebuild repositories are not the same everywhere"))
	}
	return err
}

func showTree(o render.Out, l control.TreeLine, now time.Time) {
	mark, style := map[string]string{"ok": "ok", "drift": "STALE", "missing": "MISSING", "unknown": "?", "none": "-"}[l.State], render.Good
	switch l.State {
	case "drift", "missing", "unknown":
		style = render.Bad
	case "none":
		style = render.Dim
	}
	what := l.Repo
	if l.Digest != "" {
		what += " " + l.Digest[:min(8, len(l.Digest))]
	}
	if l.Revision != "" {
		what += " (" + l.Revision[:min(10, len(l.Revision))] + ")"
	}
	if l.Stamp > 0 {
		t := time.Unix(l.Stamp, 0)
		what += fmt.Sprintf(" of %s, %s old", t.UTC().Format("2006-01-02 15:04"), now.Sub(t).Round(time.Hour).String())
	}
	if l.Note != "" {
		what += ": " + l.Note
	}
	o.Labeled(style, mark+"\t"+render.Clean(l.Nick)+"\t", render.Clean(what))
}
