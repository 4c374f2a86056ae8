package cli

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/demo"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func demoCmd(e *env) *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "a whole swarm on this machine: build, lose a peer, serve; no configuration, no root",
		Flags: []cli.Flag{jsonFlag(),
			&cli.BoolFlag{Name: "keep", Usage: "leave the swarm running"},
			&cli.BoolFlag{Name: "portage", Usage: "build real ebuilds with the emerge on PATH"}},
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			opt := demo.Options{Self: self, Keep: c.Bool("keep"), Portage: c.Bool("portage"), Show: demo.NewShow(e.err)}
			if opt.Portage {
				if t := daemon.LookAround(c.Context, version()); t.Portage == "" {
					return failure("put emerge on PATH, or run swarm demo without --portage", "%s", t.PortageWhy)
				}
			}
			r, err := demo.Run(c.Context, opt)
			if c.Bool("json") {
				if jerr := e.out.JSON(r); jerr != nil {
					return jerr
				}
			} else if r.Counted() {
				showDemo(e.out, r)
			}
			return err
		},
	}
}

// showDemo says in ten lines what happened.
func showDemo(o render.Out, r *demo.Result) {
	o.Printf("\n")
	row := func(name string, good bool, format string, args ...any) {
		mark := o.Styled(render.Good, "ok ")
		if !good {
			mark = o.Styled(render.Bad, "BAD")
		}
		o.Printf("%s %-14s %s\n", mark, name, fmt.Sprintf(format, args...))
	}
	killed := "no peer was lost"
	if r.Killed != "" {
		killed = r.Killed + " was killed in the middle of a build"
	}
	row("peers", r.Peers == 4, "%d found one another; %s", r.Peers, killed)
	row("built", r.Built == r.Jobs, "%d of %d packages, in %.0f s in all", r.Built, r.Jobs, r.Seconds)
	row("built twice", r.BuiltTwice == 0, "%d", r.BuiltTwice)
	row("taken over", r.TakenOver > 0 || r.Killed == "", "%d of the lost peer's jobs, under production leases", r.TakenOver)
	row("copies", r.ReplicasMin >= 2, "%d or more of each package on the survivors' disks, re-hashed", r.ReplicasMin)
	row("served", r.Served == r.Built, "%d files, %s: SIZE, SHA1, MD5 and CID agree", r.Served, render.Bytes(r.Bytes))
	for _, why := range r.LeftOutWhy() {
		row("left out", true, "%s", why)
	}
	if r.Dir != "" {
		row("goes on", true, "swarm status --socket %s", r.Sockets[0])
		row("to end it", true, "kill %s; rm -r %s", strings.Trim(fmt.Sprint(r.PIDs), "[]"), r.Dir)
	}
	if u, err := url.Parse(r.IndexURL); err == nil && r.Example != "" {
		o.Printf("\nA Gentoo machine with this peer on it would type:\n  swarm portage setup --target %s --gateway %s\n  emerge --ask --getbinpkgonly %s\n",
			strings.Split(u.Path+"//", "/")[1], u.Host, r.Example)
	}
}
