package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"
	"github.com/urfave/cli/v2/altsrc"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v = "devel-" + s.Value[:12]
			}
		}
	}
	return v
}

// places are where a peer keeps its things: the system's for root, the XDG
// directories for an ordinary user.
type places struct{ state, socket, config string }

// system are root's, and those of a daemon that the system starts as another user.
var system = places{"/var/lib/swarm", "/run/swarm/control.sock", "/etc/swarm/swarm.toml"}

func defaultPlaces() places {
	if os.Geteuid() == 0 {
		return system
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	dir := func(name, fallback string) string {
		if d := os.Getenv(name); filepath.IsAbs(d) {
			return d
		}
		return filepath.Join(home, fallback)
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	state := filepath.Join(dir("XDG_STATE_HOME", ".local/state"), "swarm")
	if !filepath.IsAbs(run) {
		run = state
	} else {
		run = filepath.Join(run, "swarm")
	}
	return places{state, filepath.Join(run, "control.sock"), filepath.Join(dir("XDG_CONFIG_HOME", ".config"), "swarm", "swarm.toml")}
}

// Each setting is a flag, SWARM_NAME, and a line of the TOML file.
func stringFlag(name, value, use string) cli.Flag {
	return altsrc.NewStringFlag(&cli.StringFlag{Name: name, Value: value, Usage: use, EnvVars: []string{envName(name)}})
}

func listFlag(name, use string, value ...string) cli.Flag {
	return altsrc.NewStringSliceFlag(&cli.StringSliceFlag{Name: name, Value: cli.NewStringSlice(value...), Usage: use, EnvVars: []string{envName(name)}})
}

func intFlag(name string, value int, use string) cli.Flag {
	return altsrc.NewIntFlag(&cli.IntFlag{Name: name, Value: value, Usage: use, EnvVars: []string{envName(name)}})
}

func boolFlag(name string, value bool, use string) cli.Flag {
	return altsrc.NewBoolFlag(&cli.BoolFlag{Name: name, Value: value, Usage: use, EnvVars: []string{envName(name)}})
}

func envName(flag string) string {
	b := []byte("SWARM_" + flag)
	for i, c := range b {
		switch {
		case c == '-':
			b[i] = '_'
		case c >= 'a' && c <= 'z':
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Value: defaultPlaces().config, Usage: "TOML `FILE` of settings; flags and SWARM_* come first", EnvVars: []string{"SWARM_CONFIG"}}
}

func stateFlag() cli.Flag {
	return stringFlag("state", defaultPlaces().state, "`DIR` of the identity, the keys, the board and the packages")
}

func socketFlag() cli.Flag {
	return stringFlag("socket", defaultPlaces().socket, "control socket of the daemon, a `FILE`")
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "one JSON document"} }

// clientFlags are those of every command that asks the daemon.
func clientFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{configFlag(), socketFlag()}, more...)
}

// settings fills a command's flags from the TOML file: a Before hook. A file
// that is not there is none, unless somebody named it and it is not the system's,
// which a service names for a user that is not root. The file is one for all
// commands, so a command takes what it knows; what no command knows is an
// error, since a misspelt setting would be ignored without a word.
func settings(flags []cli.Flag) cli.BeforeFunc {
	return func(c *cli.Context) error {
		path := c.String("config")
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && (!c.IsSet("config") || path == system.config) {
			return nil
		}
		if err != nil {
			return failure("see --config", "read settings: %v", err)
		}
		if err := knownSettings(path, string(text)); err != nil {
			return err
		}
		src, err := altsrc.NewTomlSourceFromFile(path)
		if err == nil {
			err = altsrc.ApplyInputSourceValues(c, src, flags)
		}
		if err != nil {
			return failure("mend "+path, "settings %s: %v", path, err)
		}
		return nil
	}
}

// knownSettings refuses what is no setting of any command.
func knownSettings(path, text string) error {
	var got map[string]any
	if _, err := toml.Decode(text, &got); err != nil {
		if at, ok := errors.AsType[toml.ParseError](err); ok {
			return failure("mend "+path, "settings %s, line %d: %s", path, at.Position.Line, at.Message)
		}
		return failure("mend "+path, "settings %s: %v", path, err)
	}
	var known []string
	for _, f := range runFlags() {
		known = append(known, f.Names()...)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if slices.Contains(known, name) && name != "config" {
			continue
		}
		hint := "swarm run --help lists the settings"
		if best := control.Nearest(name, known); best != "" {
			hint = "did you mean: " + best
		}
		return failure(hint, "settings %s: there is no setting %q", path, name)
	}
	return nil
}

func logger(c *cli.Context, e *env) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage("swarm run --log-level debug, info, warn or error", "there is no log level %q", c.String("log-level"))
	}
	return slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level})), nil
}

// defaultGateway is where the binhost listens unless it is told otherwise.
const defaultGateway = "127.0.0.1:8090"

// gatewayAddrs parts what --gateway names: where to listen, and further names.
func gatewayAddrs(list []string) (listen, names []string) {
	for _, s := range noEmpty(list) {
		if strings.Contains(s, ":") {
			listen = append(listen, s)
		} else {
			names = append(names, s)
		}
	}
	if len(listen) == 0 && len(names) > 0 {
		listen = []string{defaultGateway}
	}
	return listen, names
}

// parseCopyRate reads a size, "metered", or "metered:SIZE".
func parseCopyRate(s string) (rate int64, metered bool, err error) {
	size := s
	if rest, ok := strings.CutPrefix(s, "metered"); ok {
		metered, size = true, "0"
		if rest != "" {
			if size, ok = strings.CutPrefix(rest, ":"); !ok {
				size = s // which is none
			}
		}
	}
	rate, err = parseSize(size)
	return rate, metered, err
}

// parseQuota reads a size, or "none": no copies are kept for others.
func parseQuota(s string) (quota int64, stores bool, err error) {
	if s == "none" {
		return 0, false, nil
	}
	quota, err = parseSize(s)
	return quota, true, err
}

// maxSettings bounds what a person may have to read: who adds a setting finds
// another that it can go with.
const maxSettings = 25

// runFlags are the settings of a peer: maxSettings, and where the file of them is.
func runFlags() []cli.Flag {
	return []cli.Flag{
		configFlag(), stateFlag(), socketFlag(),
		stringFlag("nick", "", "`NAME` for people; the host name if empty"),
		listFlag("listen", "TCP `ADDRESS` for peers, as a multiaddr; may be given more than once", "/ip4/0.0.0.0/tcp/4747", "/ip6/::/tcp/4747"),
		listFlag("peer", "`ADDRESS` of a peer to stay connected to, a multiaddr that ends in /p2p/ID"),
		listFlag("direct", "`HOST:PORT` where peers fetch large packages, faster than over the private network; empty serves them there alone", ":4748"),
		listFlag("gateway", "`HOST:PORT` of the binhost, or without a port a further name that it answers to; may be given more than once, empty serves none", defaultGateway),
		intFlag("slots", 1, "builds at once, a `NUMBER`; 0 builds nothing here"),
		intFlag("jobs", runtime.NumCPU(), "`NUMBER` of parallel jobs in one build (make -j)"),
		stringFlag("build-when", "auto", "`WHEN` builds may run here: always, idle (nobody used the machine for 5 minutes, on AC), a duration as 10m (the same, for as long), or auto (idle on what has a battery or a lid)"),
		listFlag("hours", "`HOURS` in which builds may begin, as mon-fri 20:00-07:00; may be given more than once, none is any time"),
		stringFlag("drain-limit", "0s", "how long running builds may take to end when the daemon is told to stop, a `DURATION`; then they go back to the swarm"),
		stringFlag("keep-builds", "1m", "how long builds go on when the daemon is gone (a crash, an upgrade), a `DURATION`; 0 ends them with it"),
		stringFlag("quota", "0", "most bytes of packages kept, a `SIZE` as 50G or 500M; 0 leaves it to the disk, none keeps no copies for others"),
		stringFlag("copy-rate", "0", "most bytes per second that other peers take from here and that copies made here take, a `SIZE`; what a build or emerge here waits for is not slowed; metered says that this machine's link costs, so that only what would else be on one peer is copied; metered:SIZE is both"),
		stringFlag("site", "", "`NAME` of the place: machines of one site are lost together, so copies go to several"),
		stringFlag("target", "default", "`NAME` of the target that packages built here are for"),
		boolFlag("auto-release", true, "release what is asked for here when it is built; false leaves it to swarm finalize"),
		stringFlag("builder", "auto", "`WHAT` swarm build plans with: portage, sample, auto, or the path of the emerge to build with, if it is not on PATH"),
		boolFlag("in-place", false, "build in this machine's own root what comes without a base; such packages are marked provisional"),
		stringFlag("portage-config", "", "`DIR` that holds etc/portage, if not the machine's own; without one it gets that of the sample ebuilds"),
		boolFlag("mdns", true, "find peers of the swarm on the local network"),
		boolFlag("dht", true, "find peers of the swarm through one another"),
		listFlag("alert", "`WHERE` to tell of trouble: an https:// address (JSON, ntfy+https://HOST/TOPIC, or Uptime Kuma's push), or the path of a program; may be given more than once"),
		stringFlag("log-level", "info", "`LEVEL` of the log: debug, info, warn or error"),
	}
}

// parseSize reads 50G, 500M, 1024; binary units.
func parseSize(s string) (int64, error) {
	digits, shift := s, uint(0)
	if i := strings.IndexAny(s, "KMGT"); i >= 0 && i == len(s)-1 {
		digits, shift = s[:i], uint(10*(1+strings.IndexByte("KMGT", s[i])))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("size %q: want a number with K, M, G or T", s)
	}
	return n << shift, nil
}
