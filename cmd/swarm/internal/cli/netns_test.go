package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// networks is for machines on which a minute does not matter, and root.
var networks = flag.Bool("networks", false, "test over network namespaces, as root")

// lab is a set of machines as network namespaces, with wires between them.
type lab struct {
	t    *testing.T
	dir  string
	tag  string
	n    int
	seen map[string]bool
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if !*networks {
		t.Skip("wants -networks: it takes half a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces want root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip (iproute2) here")
	}
	l := &lab{t: t, dir: t.TempDir(), tag: fmt.Sprintf("sw%d", os.Getpid()), seen: map[string]bool{}}
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", l.tag+"-try").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v: %s", err, out)
	}
	l.ip("netns", "del", l.tag+"-try")
	return l
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.CommandContext(context.Background(), "ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// machine makes a namespace.
func (l *lab) machine(name string) string {
	l.t.Helper()
	ns := l.tag + "-" + name
	l.ip("netns", "add", ns)
	l.t.Cleanup(func() { l.ip("netns", "del", ns) })
	l.ip("-n", ns, "link", "set", "lo", "up")
	return ns
}

// wire joins two machines, without multicast.
func (l *lab) wire(a, addrA, b, addrB string) {
	l.t.Helper()
	l.n++
	x, y := fmt.Sprintf("%sa%d", l.tag, l.n), fmt.Sprintf("%sb%d", l.tag, l.n)
	l.ip("link", "add", x, "netns", a, "type", "veth", "peer", "name", y, "netns", b)
	for _, e := range [][3]string{{a, x, addrA}, {b, y, addrB}} {
		l.ip("-n", e[0], "addr", "add", e[2], "dev", e[1])
		l.ip("-n", e[0], "link", "set", e[1], "up", "multicast", "off")
	}
}

// peer is a daemon in a namespace.
func (l *lab) peer(ns, name string, args ...string) *real {
	l.t.Helper()
	r := &real{t: l.t, ns: ns, dir: filepath.Join(l.dir, name), env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir},
		args: append([]string{"--nick", name, "--mdns=true", "--dht=true", "--listen", "/ip4/0.0.0.0/tcp/4747"}, args...)}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (r *real) state() string  { return filepath.Join(r.dir, "state") }
func (r *real) socket() string { return filepath.Join(r.dir, "s") }

// join makes peers of one swarm: the first begins it, the others join with the
// code of the one before them.
func (l *lab) join(peers ...*real) {
	l.t.Helper()
	peers[0].run("init", "--config", os.DevNull, "--state", peers[0].state())
	peers[0].start()
	l.t.Cleanup(func() { peers[0].stop(os.Interrupt) })
	for i, p := range peers[1:] {
		code := filepath.Join(p.dir, "code")
		if err := os.WriteFile(code, []byte(peers[i].run("invite", "--config", os.DevNull, "--socket", peers[i].socket())), 0o600); err != nil {
			l.t.Fatal(err)
		}
		p.run("join", "--config", os.DevNull, "--state", p.state(), "--file", code)
		p.start()
		l.t.Cleanup(func() { p.stop(os.Interrupt) })
	}
}

// reach waits until a peer is connected to another in a way.
func (r *real) reach(other, via string) control.Peer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testPatience)
	defer cancel()
	var found control.Peer
	err := poll(ctx, func() error {
		list, err := r.client.Peers(ctx)
		if err != nil {
			return err
		}
		var seen []string
		for _, p := range list {
			if seen = append(seen, fmt.Sprintf("%s %q %v %s", p.Nick, p.Via, p.Connected, p.Problem)); p.Nick == other && p.Via == via {
				found = p
				return nil
			}
		}
		return fmt.Errorf("%s is not reached by %s: %s", other, via, strings.Join(seen, "; "))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// builds has a peer ask for a package, and waits until this one serves it.
func (r *real) builds(served *real) {
	r.t.Helper()
	r.run("build", "--config", os.DevNull, "--socket", r.socket(), "--wait", "sample-doc")
	ctx, cancel := context.WithTimeout(context.Background(), 2*testPatience)
	defer cancel()
	if err := poll(ctx, func() error {
		s, err := served.client.Status(ctx)
		if err == nil && len(s.Releases) == 0 {
			err = fmt.Errorf("%s has no release", served.dir)
		}
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
}

func TestTwoSubnetsJoinedByARouterWithoutMulticastAreOneSwarm(t *testing.T) {
	l := newLab(t)
	a, router, b := l.machine("a"), l.machine("r"), l.machine("b")
	l.wire(a, "10.71.1.2/24", router, "10.71.1.1/24")
	l.wire(b, "10.71.2.2/24", router, "10.71.2.1/24")
	l.ip("netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	l.ip("-n", a, "route", "add", "default", "via", "10.71.1.1")
	l.ip("-n", b, "route", "add", "default", "via", "10.71.2.1")
	nas, laptop := l.peer(a, "nas"), l.peer(b, "laptop", "--slots", "0")
	l.join(nas, laptop)
	laptop.reach("nas", "LAN")
	nas.reach("laptop", "LAN")
	laptop.builds(nas)
}

func TestAnAddressThatChangesUnderARunningDaemonIsLearnt(t *testing.T) {
	l := newLab(t)
	a, b := l.machine("a"), l.machine("b")
	l.wire(a, "10.72.1.1/24", b, "10.72.1.2/24")
	nas, laptop := l.peer(a, "nas"), l.peer(b, "laptop", "--slots", "0")
	l.join(nas, laptop)
	nas.reach("laptop", "LAN")
	// The nas gets another address, as from its router; without multicast nobody
	// is told but by the nas itself.
	dev := fmt.Sprintf("%sa%d", l.tag, l.n)
	l.ip("-n", a, "addr", "del", "10.72.1.1/24", "dev", dev)
	l.ip("-n", a, "addr", "add", "10.72.1.9/24", "dev", dev)
	ctx, cancel := context.WithTimeout(context.Background(), 3*testPatience)
	defer cancel()
	err := poll(ctx, func() error {
		list, err := laptop.client.Peers(ctx)
		if err != nil {
			return err
		}
		for _, p := range list {
			if p.Nick == "nas" && p.Connected {
				for _, addr := range p.Addrs {
					if strings.Contains(addr, "10.72.1.9") {
						return nil
					}
				}
				return fmt.Errorf("connected, at %v", p.Addrs)
			}
		}
		return fmt.Errorf("not connected: %+v", list)
	})
	if err != nil {
		t.Fatal(err)
	}
	laptop.builds(nas)
}

func TestAPeerBehindAnotherMemberJoinsBuildsAndServes(t *testing.T) {
	l := newLab(t)
	a, middle, b := l.machine("a"), l.machine("m"), l.machine("b")
	l.wire(a, "10.74.1.2/24", middle, "10.74.1.1/24")
	l.wire(b, "10.74.2.2/24", middle, "10.74.2.1/24")
	// Nothing is forwarded: a and b reach the one in the middle alone.
	laptop, nas, drone := l.peer(a, "laptop", "--slots", "0"), l.peer(middle, "nas", "--slots", "0"), l.peer(b, "drone")
	l.join(laptop, nas, drone)
	laptop.reach("nas", "LAN")
	if p := laptop.reach("drone", "relay"); p.RTTMicros == 0 {
		t.Logf("not yet measured: %+v", p)
	}
	laptop.builds(drone)
}

// star makes a machine in the middle that forwards between the others.
func (l *lab) star(middle string, others ...string) (hub string, ends []string) {
	l.t.Helper()
	hub = l.machine(middle)
	l.ip("netns", "exec", hub, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	for i, name := range others {
		end := l.machine(name)
		l.wire(end, fmt.Sprintf("10.75.%d.2/24", i), hub, fmt.Sprintf("10.75.%d.1/24", i))
		l.ip("-n", end, "route", "add", "default", "via", fmt.Sprintf("10.75.%d.1", i))
		ends = append(ends, end)
	}
	return hub, ends
}

// says waits until a command of a peer prints something, or prints it no more.
func (r *real) says(want bool, text string, command ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testPatience)
	defer cancel()
	var out string
	err := poll(ctx, func() error {
		out = r.run(append(command, "--config", os.DevNull, "--socket", r.socket())...)
		if strings.Contains(out, text) != want {
			return fmt.Errorf("%s says %q: want %v\n%s", r.dir, text, want, out)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func TestAStrangerIsSeenAndABanShutsItOutEverywhere(t *testing.T) {
	l := newLab(t)
	hub, ends := l.star("m", "a", "b")
	nas, desktop, stranger := l.peer(hub, "nas", "--slots", "0"), l.peer(ends[0], "desktop", "--slots", "0"), l.peer(ends[1], "stranger")
	l.join(nas, desktop, stranger)
	for _, r := range []*real{nas, desktop} {
		r.says(true, "stranger (", "status") // new here:
	}
	stranger.builds(nas)
	for _, r := range []*real{nas, desktop} { // none is told by the other whom to know
		r.run("peers", "ack", "--config", os.DevNull, "--socket", r.socket())
		r.says(false, "new here:", "status")
	}

	began := time.Now()
	said := desktop.run("peers", "ban", "--config", os.DevNull, "--socket", desktop.socket(), "stranger")
	if !strings.Contains(said, "dev-util/sample-doc-1.0\t") {
		t.Errorf("the ban does not list what it built:\n%s", said)
	}
	for _, r := range []*real{nas, desktop} {
		r.says(true, "stranger\tbanned\t-\t", "peers")
	}
	took := time.Since(began)
	t.Logf("shut out on every peer after %.1f s", took.Seconds())
	if took > 10*time.Second {
		t.Errorf("it took %v to shut it out; want 10 s at the most", took)
	}
	// It comes back, and stays out; so it does after the others' restart.
	stranger.stop(os.Interrupt)
	nas.stop(os.Interrupt)
	nas.start()
	stranger.start()
	nas.reach("desktop", "LAN")
	list, err := nas.client.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.Nick == "stranger" && p.Connected {
			t.Errorf("a banned peer is connected again: %+v", p)
		}
	}
}

func TestRekeyMovesThreeMachinesWithOneCommandAndOneRestartEach(t *testing.T) {
	l := newLab(t)
	hub, ends := l.star("m", "a", "b")
	nas, desktop, laptop := l.peer(hub, "nas"), l.peer(ends[0], "desktop", "--slots", "0"), l.peer(ends[1], "laptop", "--slots", "0")
	peers := []*real{nas, desktop, laptop}
	l.join(peers...)
	laptop.builds(nas)
	for _, r := range []*real{desktop, laptop} {
		r.reach("nas", "LAN")
	}
	code := filepath.Join(l.dir, "newcode")
	if err := os.WriteFile(code, []byte(nas.run("rekey", "--config", os.DevNull, "--socket", nas.socket())), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*real{desktop, laptop} {
		r.run("join", "--config", os.DevNull, "--state", r.state(), "--rekeyed", "--file", code)
	}
	for _, r := range peers {
		r.stop(os.Interrupt)
		r.start()
	}
	for _, r := range peers {
		for _, other := range []string{"nas", "desktop", "laptop"} {
			if filepath.Base(r.dir) != other {
				r.reach(other, "LAN")
			}
		}
		// Its board is the one that it had.
		r.says(true, `"packages": 1,`, "releases", "--json")
	}
}
