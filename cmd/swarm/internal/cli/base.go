package cli

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// baseCmd looks after the root directories that builds start from.
func baseCmd(e *env) *cli.Command {
	return &cli.Command{
		Name: "base", Usage: "the root directories that builds start from",
		Subcommands: []*cli.Command{baseAddCmd(e), baseLsCmd(e), baseShowCmd(e), baseUpdateCmd(e), baseRmCmd(e)},
	}
}

func baseAddCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(),
		&cli.StringFlag{Name: "stage3", Usage: "make it of a stage archive, a `FILE` from Gentoo's mirrors, with its .asc beside it"},
		&cli.StringFlag{Name: "signature", Usage: "the detached signature of the archive, if not `FILE` with .asc or .sig"},
		&cli.StringFlag{Name: "keyring", Usage: "`FILE` of the OpenPGP keys that may have signed it", Value: base.Keyring},
		&cli.BoolFlag{Name: "unsigned", Usage: "take the archive without a signature"},
		&cli.StringFlag{Name: "from", Usage: "make it of the packages of @system of this machine: `/`"},
		&cli.BoolFlag{Name: "host", Usage: "let it be this machine's own root, as it is; what is built on it is marked provisional"},
	)
	return &cli.Command{
		Name: "add", Usage: "make a base; other drones fetch it", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Description: "A base is immutable and named by its content. It carries its own Portage, so that drones need\n" +
			"none. A stage archive is unpacked only if the signature beside it holds.\n\n" +
			"   swarm base add --stage3 stage3-amd64-openrc-20261115T164556Z.tar.xz amd64\n" +
			"   swarm base add --from / desktop",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "a NAME for the base")
			if err != nil {
				return err
			}
			req := control.BaseRequest{Name: args[0], Stage3: c.String("stage3"), Signature: c.String("signature"), Keyring: c.String("keyring"), Unsigned: c.Bool("unsigned"), From: c.String("from"), Host: c.Bool("host")}
			ways := 0
			for _, set := range []bool{req.Stage3 != "", req.From != "", req.Host} {
				if set {
					ways++
				}
			}
			switch {
			case ways != 1:
				return usage("swarm base add "+args[0]+" --stage3 FILE", "a base is made from one of --stage3 FILE, --from / and --host")
			case req.From != "" && req.From != "/":
				return usage("swarm base add "+args[0]+" --from /", "--from %s: only / is known", req.From)
			case req.Unsigned && req.Stage3 == "":
				return usage("", "--unsigned goes with --stage3")
			}
			// The daemon reads the files, and stands elsewhere.
			for _, p := range []*string{&req.Stage3, &req.Signature, &req.Keyring} {
				if *p == "" {
					continue
				}
				if *p, err = filepath.Abs(*p); err != nil {
					return err
				}
			}
			if req.From != "" {
				e.note("packing @system and installing it into an empty root: some seconds for each package")
			}
			ctx, end := e.waiting(c.Context)
			info, err := control.NewClient(c.String("socket")).AddBase(ctx, req)
			end()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(info)
			}
			showBase(e.out, info)
			if info.Provisional {
				e.note("what is built on it is provisional: nothing keeps this machine's root from changing under a build")
			}
			e.note("next: swarm target add --base %s NAME", info.Name)
			return nil
		},
	}
}

func baseLsCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "ls", Usage: "list the bases that have a name here", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			list, err := control.NewClient(c.String("socket")).ListBases(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(list)
			}
			if len(list.Bases) == 0 {
				e.note("no bases here: swarm base add --stage3 FILE NAME")
				return nil
			}
			for _, b := range list.Bases {
				kind := string(b.Kind)
				if b.Provisional {
					kind += ", provisional"
				}
				e.out.Printf("%-16s %s  generation %d  %s  %s  %s\n", b.Name, b.Digest[:12], b.Generation, kind, b.Arch, render.Bytes(b.Bytes))
			}
			return nil
		},
	}
}

func baseShowCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "show", Usage: "say what a base is and what it holds", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "the NAME of a base")
			if err != nil {
				return err
			}
			info, err := control.NewClient(c.String("socket")).ShowBase(c.Context, args[0])
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(info)
			}
			showBase(e.out, info)
			for _, p := range info.Packages {
				line := p.CPV.String() + ":" + p.Slot
				if len(p.USE) > 0 {
					line += "  " + strings.Join(p.USE, " ")
				}
				e.out.Printf("  %s\n", line)
			}
			return nil
		},
	}
}

func showBase(out render.Out, b control.BaseInfo) {
	kind := string(b.Kind)
	if b.Provisional {
		kind += ", provisional"
	}
	out.Printf("base %s: %s, %s, generation %d\n", b.Name, kind, b.Arch, b.Generation)
	out.Printf("digest:   %s\n", b.Digest)
	out.Printf("made of:  %s, %s\n", b.Source, b.Added.Local().Format(time.DateTime))
	portage := b.Portage
	if portage == "" {
		portage = "none in its package database"
	}
	out.Printf("portage:  %s\n", portage)
	out.Printf("packages: %d, %s of archives\n", len(b.Packages), render.Bytes(b.Bytes))
	for i, digest := range b.Earlier {
		if i == 0 {
			out.Printf("earlier:  ")
		} else {
			out.Printf("          ")
		}
		out.Printf("%s\n", digest)
	}
	if len(b.Targets) > 0 {
		out.Printf("targets:  %s\n", strings.Join(b.Targets, ", "))
	}
}

func baseUpdateCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag(), targetFlag(),
		&cli.BoolFlag{Name: "depclean", Usage: "take away what @system no longer needs, as emerge --depclean does, to run or to be built"},
		&cli.BoolFlag{Name: "dry-run", Usage: "show what would be built, and build nothing"})
	return &cli.Command{
		Name: "update", Usage: "have the swarm build the next generation of a base", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Description: "Portage inside of the base works out what emerge -uDN @system would do there, from this machine's\n" +
			"repositories and the target's configuration. The toolchain is built and installed first, the rest with it. It\n" +
			"may be broken off and typed again: what is built counts. Targets keep the generation that they have until\n" +
			"you give them the new one.",
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "the NAME of a base")
			if err != nil {
				return err
			}
			req := control.BaseUpdate{Name: args[0], Target: c.String("target"), Depclean: c.Bool("depclean"), DryRun: c.Bool("dry-run"), Command: "swarm base update --target " + c.String("target") + " " + args[0]}
			ctx, end := e.waiting(c.Context)
			info, err := control.NewClient(c.String("socket")).UpdateBase(ctx, req, func(s control.FreshStep) { showStep(e, s) })
			end()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(info)
			}
			showBase(e.out, info)
			if !req.DryRun && len(info.Targets) == 0 {
				e.note("next: swarm target add --base %s %s lets its builds start from it", info.Name, req.Target)
			}
			return nil
		},
	}
}

func baseRmCmd(e *env) *cli.Command {
	flags := clientFlags()
	return &cli.Command{
		Name: "rm", Usage: "take a base's name away, and its unpacked files here", ArgsUsage: "NAME", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "the NAME of a base")
			if err != nil {
				return err
			}
			if err := control.NewClient(c.String("socket")).RemoveBase(c.Context, args[0]); err != nil {
				return err
			}
			e.note("the base %s is gone from here; its archives go when nothing refers to them (swarm gc)", args[0])
			return nil
		},
	}
}
