package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
	"github.com/urfave/cli/v2/altsrc"
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

func defaultPlaces() places {
	if os.Geteuid() == 0 {
		return places{"/var/lib/swarm", "/run/swarm/control.sock", "/etc/swarm/swarm.toml"}
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
	return &cli.StringFlag{Name: "config", Value: defaultPlaces().config, Usage: "TOML file of settings; flags and SWARM_* come first", EnvVars: []string{"SWARM_CONFIG"}}
}

func stateFlag() cli.Flag {
	return stringFlag("state", defaultPlaces().state, "directory of the identity, the keys, the board and the packages")
}

func socketFlag() cli.Flag {
	return stringFlag("socket", defaultPlaces().socket, "control socket of the daemon")
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "one JSON document"} }

// clientFlags are those of every command that asks the daemon.
func clientFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{configFlag(), socketFlag()}, more...)
}

// settings fills a command's flags from the TOML file: a Before hook. A file
// that is not there is none, unless somebody named it.
func settings(flags []cli.Flag) cli.BeforeFunc {
	return func(c *cli.Context) error {
		path := c.String("config")
		if _, err := os.Stat(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) && !c.IsSet("config") {
				return nil
			}
			return failure("see --config", "read settings: %v", err)
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

func logger(c *cli.Context, e *env) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage("--log-level debug|info|warn|error", "log level %q", c.String("log-level"))
	}
	return slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level})), nil
}

// runFlags are the settings of a peer.
func runFlags() []cli.Flag {
	return []cli.Flag{
		configFlag(), stateFlag(), socketFlag(),
		stringFlag("nick", "", "name for people; the host name if empty"),
		listFlag("listen", "TCP addresses for peers, as multiaddrs", "/ip4/0.0.0.0/tcp/4747", "/ip6/::/tcp/4747"),
		listFlag("peer", "peers to stay connected to, as multiaddrs that end in /p2p/ID"),
		listFlag("gateway", "addresses of the binhost, host:port", "127.0.0.1:8090"),
		listFlag("gateway-host", "further host names that the binhost answers to"),
		intFlag("slots", 1, "builds at once; 0 builds nothing here"),
		intFlag("jobs", runtime.NumCPU(), "parallel jobs of one build (make -j)"),
		boolFlag("store", true, "keep copies of packages for others"),
		stringFlag("quota", "0", "most bytes of packages kept, as 50G or 500M; 0 leaves it to the disk"),
		stringFlag("site", "", "machines of one site are lost together; copies go to several sites"),
		stringFlag("target", "default", "name of the target that packages built here are for"),
		stringFlag("builder", "auto", "what `swarm build` plans with: portage, sample, or auto"),
		stringFlag("emerge", "", "the emerge to build with; empty looks on PATH"),
		stringFlag("portage-config", "", "directory that holds etc/portage, if not the machine's own"),
		boolFlag("mdns", true, "find peers of the swarm on the local network"),
		boolFlag("dht", true, "find peers of the swarm through one another"),
		stringFlag("log-level", "info", "debug, info, warn or error"),
	}
}

// parseSize reads 50G, 500M, 1024.
func parseSize(s string) (int64, error) {
	var n int64
	var unit string
	if _, err := fmt.Sscanf(s+" ", "%d%s", &n, &unit); err != nil && n == 0 && s != "0" {
		return 0, fmt.Errorf("size %q: want a number with K, M, G or T", s)
	}
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	if !ok || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("size %q: want a number with K, M, G or T", s)
	}
	return n << shift, nil
}
