package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/alert"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/machine"
	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
	"github.com/build-swarm/swarm/p2p"
)

func runCmd(e *env) *cli.Command {
	flags := append(runFlags(), &cli.BoolFlag{Name: "check", Usage: "say whether it would start, and end"})
	return &cli.Command{
		Name: "run", Usage: "be a peer of the swarm: the daemon", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			return runDaemon(c, e)
		},
	}
}

func runDaemon(c *cli.Context, e *env) error {
	log, err := logger(c, e)
	if err != nil {
		return err
	}
	p2p.RedirectLibp2pLog(log.Handler())
	// Before anything else: a peer that cannot be made cleans up after itself,
	// and this path may be another's.
	if err := control.CheckPath(c.String("socket")); err != nil && !c.Bool("check") {
		return err
	}
	cfg, found, err := nodeConfig(c, log)
	if err != nil || c.Bool("check") {
		return err
	}
	if err := apart(c, &cfg, &found); err != nil {
		return err
	}
	if e.adjust != nil {
		e.adjust(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		return explainStart(err, cfg)
	}
	log.Info("peer started", "nick", cfg.Nick, "state", cfg.State, "socket", cfg.Socket, "version", cfg.Version)
	err = n.Run(c.Context)
	if errors.Is(err, node.ErrRestart) {
		return again()
	}
	if c.Context.Err() != nil {
		err = otherThanCanceled(err)
	}
	return err
}

// otherThanCanceled is what is left of joined errors when those go that only
// say that the daemon was told to end.
func otherThanCanceled(err error) error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var rest []error
		for _, e := range joined.Unwrap() {
			rest = append(rest, otherThanCanceled(e))
		}
		return errors.Join(rest...)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// explainStart says what to do about a daemon that does not start.
func explainStart(err error, cfg node.Config) error {
	switch {
	case errors.Is(err, agent.ErrInUse):
		return failure("stop it, or give this one its own --state, --socket, --listen and --gateway", "another swarm daemon runs on %s", cfg.State)
	case errors.Is(err, p2p.ErrPortInUse):
		return failure("choose another with --listen", "%v", err)
	case errors.Is(err, p2p.ErrSwarmKey), errors.Is(err, p2p.ErrIdentity):
		return failure("restore the file, or move the directory away and join again", "%v", err)
	case errors.Is(err, fs.ErrPermission):
		return failure("run it as the user whose files these are, or choose another --state", "%v", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return failure("stop it, or choose another port with --gateway", "%v: another program has that port", listenFailure(err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return failure("correct --gateway or --listen", "%v: this machine has no such address", listenFailure(err))
	}
	return err
}

// listenFailure is the part of an error that names the address.
func listenFailure(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		return op.Op + " on " + op.Addr.String()
	}
	return err.Error()
}

// nodeConfig checks the settings and finds what this machine can build.
func nodeConfig(c *cli.Context, log *slog.Logger) (node.Config, daemon.Builders, error) {
	state, err := filepath.Abs(c.String("state"))
	if err != nil {
		return node.Config{}, daemon.Builders{}, fmt.Errorf("find the state directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(state, p2p.SwarmKeyFile)); errors.Is(err, fs.ErrNotExist) {
		return node.Config{}, daemon.Builders{}, failure("swarm init makes a new swarm, swarm join enters one", "this machine belongs to no swarm yet (no %s)", filepath.Join(state, p2p.SwarmKeyFile))
	}
	quota, stores, err := parseQuota(c.String("quota"))
	if err != nil {
		return node.Config{}, daemon.Builders{}, usage("for example: swarm run --quota 50G, or none", "%v", err)
	}
	copyRate, metered, err := parseCopyRate(c.String("copy-rate"))
	if err != nil {
		return node.Config{}, daemon.Builders{}, usage("for example: swarm run --copy-rate 5M, or metered, or metered:5M", "%v", err)
	}
	target := c.String("target")
	if !build.ValidTarget(target) {
		return node.Config{}, daemon.Builders{}, usage("for example: swarm run --target desktop", "target %q: want a short word of a-z, 0-9, dot, dash", target)
	}
	if c.Int("slots") < 0 || c.Int("slots") > 64 || c.Int("jobs") < 1 {
		return node.Config{}, daemon.Builders{}, usage("swarm run --help", "--slots wants 0 to 64, --jobs 1 or more")
	}
	joined, err := joinedPeers(state)
	if err != nil {
		return node.Config{}, daemon.Builders{}, err
	}
	if err := os.MkdirAll(filepath.Dir(c.String("socket")), 0o755); err != nil {
		return node.Config{}, daemon.Builders{}, failure("choose another place with --socket", "make the control socket's directory: %v", err)
	}
	nick := c.String("nick")
	if nick == "" {
		nick = machine.Hostname()
	}
	listen, names := gatewayAddrs(c.StringSlice("gateway"))
	cfg := node.Config{
		State: state, Socket: c.String("socket"), Nick: build.OneLine(nick, 64), Listen: noEmpty(c.StringSlice("listen")),
		Peers: slices.Concat(c.StringSlice("peer"), joined), Direct: noEmpty(c.StringSlice("direct")), Gateway: listen, Hosts: names,
		Slots: c.Int("slots"), Jobs: c.Int("jobs"), Stores: stores, Manual: !c.Bool("auto-release"), Quota: quota, CopyRate: copyRate, Metered: metered, Site: c.String("site"),
		MDNS: c.Bool("mdns"), DHT: c.Bool("dht"), Version: version(), Log: log,
	}
	if err := guestConfig(c, &cfg); err != nil {
		return cfg, daemon.Builders{}, err
	}
	cfg.Alerts.To = noEmpty(c.StringSlice("alert"))
	if _, err := alert.Parse(cfg.Alerts.To); err != nil {
		return cfg, daemon.Builders{}, usage("for example: swarm run --alert ntfy+https://ntfy.sh/TOPIC", "%v", err)
	}
	want, program := c.String("builder"), ""
	if strings.Contains(want, "/") {
		want, program = string(build.BuilderPortage), want
	}
	found, err := daemon.Find(c.Context, daemon.Search{
		Want: want, Emerge: program, PortageConfig: c.String("portage-config"), Target: target, Log: log,
		State: state, InPlace: c.Bool("in-place"),
	})
	cfg.Builders, cfg.Planners, cfg.Default = found.Build, found.Plan, found.Default
	cfg.Ground = found.Ground
	return cfg, found, err
}

// noEmpty lets an empty value switch a list off.
func noEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSpace(s) == "" })
}

func versionCmd(e *env) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version, and what can be built here", Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			t := daemon.LookAround(c.Context, version())
			if c.Bool("json") {
				return e.out.JSON(t)
			}
			e.out.Printf("swarm %s\n", t.Version)
			if t.Compiler != "" {
				e.out.Printf("compiler: %s\n", t.Compiler)
			} else {
				e.out.Printf("compiler: none (%s): of the samples only the scripts are built\n", t.CompilerWhy)
			}
			if t.Portage != "" {
				e.out.Printf("portage: %s (%s)\n", t.Portage, t.Emerge)
			} else {
				e.out.Printf("portage: none (%s)\n", t.PortageWhy)
			}
			return nil
		},
	}
}
