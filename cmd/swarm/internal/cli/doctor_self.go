package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/guest/watch"
	"github.com/build-swarm/swarm/build/shim"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/machine"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
	"github.com/build-swarm/swarm/p2p"
)

// finding is one line of `swarm doctor --self`.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, note (works, with less), bad
	Note  string `json:"note"`
	Do    string `json:"do"` // what mends it; "" when there is nothing to do
}

const (
	wellFound = "ok"
	lessFound = "note"
	badFound  = "bad"
)

// errUnwell is returned when something is bad: the list has said what.
var errUnwell = errors.New("something here is not as it has to be")

// doctorSelfCmd looks at this machine's own daemon and what it stands on.
func doctorSelfCmd(e *env) *cli.Command {
	flags := append(runFlags(), jsonFlag(), &cli.BoolFlag{Name: "self", Usage: "this machine's daemon and what it stands on"})
	return &cli.Command{
		Name: "doctor", Usage: "look at this machine, and say what is wrong and what mends it", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			if c.Bool("self") {
				return selfDoctor(c, e)
			}
			return consumerDoctor(c, e)
		},
	}
}

// selfDoctor is `swarm doctor --self`.
func selfDoctor(c *cli.Context, e *env) error {
	var list []finding
	client := control.NewClient(c.String("socket"))
	info, absent := client.Info(c.Context)
	running := absent == nil
	list = append(list, lookState(c.String("state"))...)
	list = append(list, lookDaemon(c.String("socket"), info, absent))
	list = append(list, lookPorts(c, running)...)
	list = append(list, lookClock(c.Context, client, running)...)
	list = append(list, lookNetwork(c.Bool("mdns")))
	list = append(list, lookBuilds(c)...)
	var err error
	if c.Bool("json") {
		err = e.out.JSON(struct {
			Schema int       `json:"schema"`
			Checks []finding `json:"checks"`
		}{1, list})
	} else {
		showFindings(e.out, list)
	}
	for _, f := range list {
		if f.State == badFound && err == nil {
			err = errUnwell
		}
	}
	return err
}

func showFindings(o render.Out, list []finding) {
	t := o.NewTable("CHECK", "STATE", "WHAT IS SO")
	for _, f := range list {
		style := map[string]render.Style{wellFound: render.Good, lessFound: render.Warn, badFound: render.Bad}[f.State]
		t.Row(f.Check, render.Cell(style, f.State), f.Note)
	}
	t.Flush()
	for _, f := range list {
		if f.Do != "" {
			o.Labeled(render.Strong, f.Check+":", f.Do)
		}
	}
}

// lookState looks at the state directory.
func lookState(state string) []finding {
	st, err := os.Stat(state)
	if err != nil {
		return []finding{{"state", badFound, fmt.Sprintf("%s: %v", state, err), "swarm init makes a new swarm, swarm join enters one"}}
	}
	out := finding{"state", wellFound, state, ""}
	if st.Mode().Perm()&0o066 != 0 { // builds in place may pass through (daemon.StateMode)
		out = finding{"state", lessFound, fmt.Sprintf("%s may be read by others (mode %03o); its keys may not", state, st.Mode().Perm()), "chmod go-rw " + state}
	}
	list := []finding{out}
	if _, err := p2p.ReadSwarmKey(filepath.Join(state, p2p.SwarmKeyFile)); err != nil {
		list = append(list, finding{"swarm key", badFound, err.Error(), "swarm init makes a new swarm, swarm join enters one; or restore the file"})
	}
	const little, enough = 2 << 30, 10 << 30
	free, err := machine.FreeDisk(state)
	disk := finding{"disk", wellFound, render.Bytes(free) + " free", ""}
	switch {
	case err != nil:
		disk = finding{"disk", badFound, err.Error(), ""}
	case free < little:
		disk = finding{"disk", badFound, render.Bytes(free) + " free: hardly a build fits", "free some, or choose another --state; --quota bounds the packages kept"}
	case free < enough:
		disk = finding{"disk", lessFound, render.Bytes(free) + " free: large builds do not fit", "--quota bounds the packages kept"}
	}
	return append(list, disk)
}

func lookDaemon(socket string, info control.Info, err error) finding {
	if err != nil {
		return finding{"daemon", lessFound, err.Error(), "rc-service swarm start, systemctl start swarm, or swarm run"}
	}
	return finding{"daemon", wellFound, fmt.Sprintf("%s, process %d, answers on %s", info.Version, info.PID, socket), ""}
}

// lookPorts tries to listen where the daemon would.
func lookPorts(c *cli.Context, running bool) (list []finding) {
	if running {
		return nil // it has them
	}
	ctx := c.Context
	var addrs []string
	for _, a := range noEmpty(c.StringSlice("listen")) {
		w := strings.Split(a, "/") // /ip4/0.0.0.0/tcp/4747
		if len(w) == 5 {
			addrs = append(addrs, net.JoinHostPort(w[2], w[4]))
		}
	}
	for _, a := range append(addrs, noEmpty(c.StringSlice("gateway"))...) {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a)
		if err == nil {
			err = ln.Close()
		}
		if err != nil {
			list = append(list, finding{"port", badFound, fmt.Sprintf("%s: %v", a, err), "end what has it (ss -tlnp), or choose another with --listen or --gateway"})
		}
	}
	if len(list) == 0 {
		list = []finding{{"ports", wellFound, strings.Join(append(addrs, noEmpty(c.StringSlice("gateway"))...), ", ") + " are free", ""}}
	}
	return list
}

// lookClock asks the kernel whether somebody sets its clock, and compares it with
// the peers'.
func lookClock(ctx context.Context, client *control.Client, running bool) []finding {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	f := finding{"clock", wellFound, fmt.Sprintf("set by a time service, to within %d ms", tx.Maxerror/1000), ""}
	const unsynchronised = 5 // TIME_ERROR
	if err != nil || state == unsynchronised {
		f = finding{"clock", lessFound, "no time service sets it; a clock that is 30 s ahead is believed by nobody", "install and start chrony or ntpd"}
	}
	list := []finding{f}
	if !running {
		return list
	}
	s, err := client.Status(ctx)
	if err != nil {
		return append(list, finding{"peers", badFound, err.Error(), ""})
	}
	for _, w := range s.Warnings {
		if strings.Contains(w, "clock") {
			list = append(list, finding{"drift", badFound, w, "chronyc makestep"})
		}
	}
	return list
}

// lookNetwork looks for an interface that mDNS can use.
func lookNetwork(mdns bool) finding {
	all, err := net.Interfaces()
	if err != nil {
		return finding{"network", badFound, err.Error(), ""}
	}
	var multi, single []string
	for _, i := range all {
		switch {
		case i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0:
		case i.Flags&net.FlagMulticast != 0:
			multi = append(multi, i.Name)
		default:
			single = append(single, i.Name)
		}
	}
	switch {
	case len(multi) > 0 && mdns:
		return finding{"network", wellFound, "peers are found by mDNS on " + strings.Join(multi, ", "), ""}
	case len(multi)+len(single) == 0:
		return finding{"network", badFound, "no interface but loopback is up", "bring one up"}
	case !mdns:
		return finding{"network", lessFound, "mDNS is off: peers are found by their addresses alone", "swarm invite on a peer, swarm join here"}
	}
	return finding{"network", lessFound, strings.Join(single, ", ") + " has no multicast: peers are found by their addresses alone", "swarm invite on a peer, swarm join here"}
}

// lookRights says by what builds are shut in.
func lookRights(root bool, lacks error) finding {
	switch {
	case root:
		return finding{"rights", wellFound, "root: a drone's daemon makes its builds' namespaces and mounts itself (swarm.service)", ""}
	case lacks != nil:
		return finding{"rights", lessFound, "an ordinary user without ids for builds: they have no root, network or users of their own: " + lacks.Error(), "see rootless.conf beside the unit, or run it as root with the unit that is installed"}
	}
	return finding{"rights", wellFound, "an ordinary user: builds run in user namespaces, whose ids newuidmap and newgidmap give; nothing else has a privilege (rootless.conf)", ""}
}

// lookBuilds looks at what builds need, and whether one could begin now.
func lookBuilds(c *cli.Context) []finding {
	if c.Int("slots") == 0 {
		return []finding{{"builds", lessFound, "this peer builds nothing (slots = 0)", ""}}
	}
	var list []finding
	t := daemon.LookAround(c.Context, version())
	if t.Portage != "" {
		list = append(list, finding{"portage", wellFound, t.Portage + " (" + t.Emerge + ")", ""})
	} else {
		list = append(list, finding{"portage", lessFound, "none: " + t.PortageWhy, "put emerge on PATH, or name it with --builder /PATH/emerge"})
	}
	list = append(list, lookRights(os.Geteuid() == 0, sandbox.Rights()))
	if lacks := shim.Missing(c.String("state")); lacks != "" {
		list = append(list, finding{"cgroups", lessFound, lacks, "start it by its systemd or OpenRC unit; the kernel wants CONFIG_CGROUPS and cgroup v2 alone"})
	} else {
		list = append(list, finding{"cgroups", wellFound, "builds are frozen and weighed by cgroups of their own", ""})
	}
	cfg, _ := guestPolicy(c)
	r, lacks := watch.Look(watch.Config{})
	for _, l := range lacks {
		list = append(list, finding{"sensors", lessFound, l, "start elogind or systemd-logind, and dbus"})
	}
	g := guest.Guest{Policy: cfg}
	v := g.Step(guest.Now{Wall: time.Now(), Boot: 1}, r, nil)
	kind := "a server: it builds at any time"
	if !v.Steady {
		kind = "somebody's machine: it builds when nobody uses it"
	}
	if !v.May {
		return append(list, finding{"builds", lessFound, kind + "; not now: " + v.Why, ""})
	}
	return append(list, finding{"builds", wellFound, kind, ""})
}
