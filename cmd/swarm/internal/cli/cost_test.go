package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
)

// The bars of what looking costs.
const (
	statusBar = 50 * time.Millisecond // CPU of a status of 3,000 jobs on 100 drones, on both sides
	pageShare = 1.0                   // percent of a core, of a page that is open
)

// boardDaemon answers for status from a board, as the daemon does.
type boardDaemon struct {
	control.Daemon
	swarm *viewtest.Swarm
}

func (d boardDaemon) Status(context.Context) (view.Snapshot, error) {
	s := view.Of(d.swarm.Replica, d.swarm.Now)
	in := daemon.Copies(d.swarm.Replica, d.swarm.Now, func([32]byte) (replication.Class, bool) { return replication.Wanted, true })
	s.Blobs.Classes = []view.BlobClass{{Class: "wanted", Total: len(replication.Count(in))}}
	return s, nil
}

func (boardDaemon) Asked() {}

// BenchmarkStatus is the CPU time of `swarm status` of a large round: the
// program, which starts for it, and the daemon's answer.
func BenchmarkStatus(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "s")
	s, err := control.NewServer(socket, boardDaemon{swarm: viewtest.New(viewtest.Options{Drones: 100, Jobs: 3000, Failures: 12, Away: 3})}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	defer func() { cancel(); <-served }()
	var client, daemon []time.Duration
	for b.Loop() {
		used := ownCPU(b)
		cmd := swarmCommand(b, "swarm", "status", "--config", os.DevNull, "--socket", socket)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil || !bytes.Contains(out, []byte("NEXT ACTION")) {
			b.Fatalf("%v: %s", err, errs.String()+string(out))
		}
		client = append(client, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		daemon = append(daemon, ownCPU(b)-used)
	}
	c, d := median(client), median(daemon)
	b.ReportMetric(ms(c), "client-cpu-ms")
	b.ReportMetric(ms(d), "daemon-cpu-ms")
	b.ReportMetric(float64(c+d)/float64(statusBar), "x-bar")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkOpenPage is what an open page costs a running daemon: three real
// processes in a round whose builds go on all the time; the CPU time of one of
// them with a reader of its page's stream, less that without.
func BenchmarkOpenPage(b *testing.B) {
	const watched = 30 * time.Second
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hold"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	run := func(stdin string, args ...string) string {
		cmd := swarmCommand(b, "swarm", args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			b.Fatalf("swarm %s: %v", args[0], err)
		}
		return string(out)
	}
	file := func(name string, n int) string { return filepath.Join(dir, fmt.Sprint(name, n)) }
	run("", "init", "--state", file("state", 0))
	var daemons []*exec.Cmd
	code := ""
	for n := range 3 {
		if n > 0 {
			run(code, "join", "--state", file("state", n))
		}
		cmd := swarmCommand(b, "gated", "run", "--config", os.DevNull, "--state", file("state", n), "--socket", file("s", n), "--nick", fmt.Sprint("peer", n),
			"--listen", "/ip4/127.0.0.1/tcp/0", "--gateway", "127.0.0.1:0", "--direct", "127.0.0.1:0", "--mdns=false", "--builder", "sample", "--slots", "2")
		cmd.Env = append(os.Environ(), "GATE="+dir)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		daemons = append(daemons, cmd)
		awaitStatus(b, file("s", n), "")
		if n == 0 {
			code = run("", "invite", "--socket", file("s", 0))
		}
	}
	run("", "build", "--socket", file("s", 0), "@samples")
	awaitStatus(b, file("s", 0), "building 6")
	info, err := control.NewClient(file("s", 0)).Info(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	pid := daemons[0].Process.Pid
	share := func() float64 {
		from, used := time.Now(), cpuOf(b, pid)
		pause(b.Context(), watched)
		return 100 * float64(cpuOf(b, pid)-used) / float64(time.Since(from))
	}
	var without, with []float64
	messages := 0
	for b.Loop() {
		without = append(without, share())
		ctx, cancel := context.WithCancel(b.Context())
		lines := readStream(ctx, b, "http://"+info.Gateway[0]+"/")
		with = append(with, share())
		cancel()
		for range lines {
			messages++
		}
	}
	if messages < 2 {
		b.Fatalf("the page got %d messages", messages)
	}
	slices.Sort(without)
	slices.Sort(with)
	cost := with[len(with)/2] - without[len(without)/2]
	b.ReportMetric(without[len(without)/2], "core-%-without")
	b.ReportMetric(with[len(with)/2], "core-%-with")
	b.ReportMetric(cost, "core-%-of-the-page")
	b.ReportMetric(cost/pageShare, "x-bar")
	b.ReportMetric(float64(messages)/float64(len(with)), "messages/op")
	b.ReportMetric(0, "ns/op")
}

// readStream follows a live page until ctx ends; the channel gets a value for
// each message, all of them to be read when it is closed.
func readStream(ctx context.Context, b *testing.B, url string) <-chan struct{} {
	b.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	out := make(chan struct{}, 4096)
	go func() {
		defer close(out)
		defer res.Body.Close()
		r := bufio.NewReader(res.Body)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(line, "event: sections") {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out
}

// swarmCommand runs this test binary under a name that it answers to.
func swarmCommand(b *testing.B, name string, args ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Args = append([]string{name}, args...)
	cmd.Stderr = io.Discard
	return cmd
}

// awaitStatus waits until a daemon's status says something.
func awaitStatus(b *testing.B, socket, want string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), testPatience)
	defer cancel()
	err := poll(ctx, func() error {
		out, err := swarmCommand(b, "swarm", "status", "--socket", socket).Output()
		if err == nil && !strings.Contains(string(out), want) {
			err = fmt.Errorf("status says: %s", out)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// pause lets time go by.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf reads the CPU time of a process's threads (proc(5), schedstat).
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Skip("no /proc to read CPU times from")
	}
	var sum time.Duration
	for _, t := range tasks {
		raw, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that has just ended
		}
		ran, _, _ := strings.Cut(string(raw), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func median(v []time.Duration) time.Duration { slices.Sort(v); return v[len(v)/2] }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
