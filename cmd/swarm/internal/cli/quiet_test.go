package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// feel has a daemon read the sensors of an emulated machine.
func feel(cfg *node.Config) { cfg.Sensors.Root = os.Getenv("SENSORS") }

// bare is a libp2p host with nothing on it: it writes its address, and ends with
// its input.
func bare() int {
	h, addr, err := p2ptest.BareHost(context.Background(), "bare", os.Args[1:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(addr)
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that it is for
	if err := h.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// bareHost starts one as a process and returns it with its address.
func bareHost(b *testing.B, dial ...string) (pid int, addr string) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Args = append([]string{"bare"}, dial...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // how it ends is not the matter
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// laptop is the emulated machine: a battery, a lid, a plug.
type laptop struct {
	b    *testing.B
	root string
}

func (l laptop) write(path, text string) {
	l.b.Helper()
	path = filepath.Join(l.root, path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text+"\n"), 0o600)
	}
	if err != nil {
		l.b.Fatal(err)
	}
}

func newLaptop(b *testing.B) laptop {
	l := laptop{b, b.TempDir()}
	l.write("sys/class/power_supply/BAT0/type", "Battery")
	l.write("sys/class/power_supply/BAT0/capacity", "64")
	l.write("sys/class/power_supply/AC/type", "Mains")
	if err := syscall.Mkfifo(filepath.Join(l.root, "uevents"), 0o600); err != nil {
		b.Fatal(err)
	}
	l.write("proc/acpi/button/lid/LID0/state", "state: open")
	l.plug(false)
	return l
}

func (l laptop) plug(in bool) {
	l.b.Helper()
	state := map[bool][2]string{true: {"Charging", "1"}, false: {"Discharging", "0"}}[in]
	l.write("sys/class/power_supply/BAT0/status", state[0])
	l.write("sys/class/power_supply/AC/online", state[1])
}

// wakeups is how often the threads of a process gave up the processor of
// themselves, since it began (proc(5)).
func wakeups(b *testing.B, pid int) (n int64) {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("process %d: %v, %d threads", pid, err, len(tasks))
	}
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that has ended
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				k, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				n += k
			}
		}
	}
	return n
}

// The bars of a peer on battery that builds nothing.
const (
	quietWakeups = 12              // a second
	quietRatio   = 1.5             // of a bare host with two connections
	quietSettles = 4 * time.Minute // it is awake for two after the last question
	quietWatched = 3 * time.Minute // three comparisons
)

// BenchmarkQuietPeer runs a swarm of real processes, one of them on a laptop on
// battery, beside a bare libp2p host with two connections, and takes from /proc
// how often each wakes up, over the same minutes. QUIET_PEERS is how many; 20.
func BenchmarkQuietPeer(b *testing.B) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		b.Skip("no /proc to read: ", err)
	}
	n, err := strconv.Atoi(os.Getenv("QUIET_PEERS"))
	if err != nil {
		n = 20
	}
	dir := b.TempDir()
	_, addr1 := bareHost(b)
	_, addr2 := bareHost(b)
	bare, _ := bareHost(b, addr1, addr2)
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	near := []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--mdns=false"}
	var peers []*real
	for i := range n {
		r := &real{t: b, dir: filepath.Join(dir, fmt.Sprint("p", i)), env: env, args: append([]string{"--nick", fmt.Sprint("p", i)}, near...)}
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			b.Fatal(err)
		}
		peers = append(peers, r)
	}
	l := newLaptop(b)
	last := peers[n-1]
	last.as, last.env = "sensed", append([]string{"SENSORS=" + l.root}, env...)
	joinAll(b, dir, peers)
	for b.Loop() {
		pass(b, quietSettles)
		began, quiet0, bare0, other0 := time.Now(), wakeups(b, last.cmd.Process.Pid), wakeups(b, bare), wakeups(b, peers[1].cmd.Process.Pid)
		pass(b, quietWatched)
		passed := time.Since(began).Seconds()
		quiet, other := float64(wakeups(b, last.cmd.Process.Pid)-quiet0)/passed, float64(wakeups(b, peers[1].cmd.Process.Pid)-other0)/passed
		beside := float64(wakeups(b, bare)-bare0) / passed
		b.ReportMetric(quiet, "wakeups/s")
		b.ReportMetric(quiet/quietWakeups, "wakeups-x-bar")
		b.ReportMetric(beside, "bare-wakeups/s")
		b.ReportMetric(quiet/beside, "x-bare")
		b.ReportMetric(quiet/beside/quietRatio, "x-bare-x-bar")
		b.ReportMetric(other, "other-peer-wakeups/s")
	}
	b.ReportMetric(0, "ns/op")
}

// pass lets time go by, which is all that a quiet peer has to do.
func pass(b *testing.B, d time.Duration) {
	select {
	case <-b.Context().Done():
	case <-time.After(d):
	}
}

// joinAll makes peers of one swarm: the first begins it, the others join with its
// code.
func joinAll(b *testing.B, dir string, peers []*real) {
	b.Helper()
	peers[0].run("init", "--config", os.DevNull, "--state", peers[0].state())
	peers[0].start()
	b.Cleanup(func() { peers[0].stop(os.Interrupt) })
	code := filepath.Join(dir, "code")
	if err := os.WriteFile(code, []byte(peers[0].run("invite", "--config", os.DevNull, "--socket", peers[0].socket())), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, p := range peers[1:] {
		p.run("join", "--config", os.DevNull, "--state", p.state(), "--file", code)
		p.start()
		b.Cleanup(func() { p.stop(os.Interrupt) })
	}
}
