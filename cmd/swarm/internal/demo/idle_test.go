package demo

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The bars of a peer that has nothing to do, in a swarm of idlePeers.
const (
	idlePeers   = 20
	idleRSSMiB  = 60
	idleCPU     = 0.3 // percent of a core
	idleWakeups = 50  // a second, the voluntary context switches of all its threads
	idleSettles = 60 * time.Second
	idleWatched = 2 * time.Minute // two Beats, four comparisons
)

// BenchmarkIdlePeer runs a swarm of twenty real processes with one slot each and
// nothing to build, and takes from /proc what each costs: the median and the
// worst. Nobody asks them anything meanwhile.
func BenchmarkIdlePeer(b *testing.B) {
	if _, err := usageOf(os.Getpid()); err != nil {
		b.Skip("no /proc to read: ", err)
	}
	dir := b.TempDir()
	self := filepath.Join(dir, "swarm")
	if out, err := exec.Command("go", "build", "-o", self, "github.com/build-swarm/swarm/cmd/swarm").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	d := &demo{opt: Options{Show: NewShow(io.Discard)}, self: self, dir: dir, target: "demo", began: time.Now(), history: newHistory()}
	defer func() { stop(d.peers) }()
	if err := d.formIdle(ctx, idlePeers); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		pass(ctx, idleSettles) // what starting left behind is not what an idle peer costs
		before := d.usage(b)
		began := time.Now()
		pass(ctx, idleWatched)
		after, passed := d.usage(b), time.Since(began).Seconds()
		var rss, cpu, wakeups []float64
		for i := range after {
			rss = append(rss, after[i].rssMiB)
			cpu = append(cpu, 100*(after[i].cpu-before[i].cpu).Seconds()/passed)
			wakeups = append(wakeups, float64(after[i].switches-before[i].switches)/passed)
		}
		for _, f := range []struct {
			unit string
			list []float64
			bar  float64
		}{{"RSS-MiB", rss, idleRSSMiB}, {"core-%", cpu, idleCPU}, {"wakeups/s", wakeups, idleWakeups}} {
			slices.Sort(f.list)
			b.ReportMetric(f.list[len(f.list)/2], f.unit)
			b.ReportMetric(f.list[len(f.list)-1], "worst-"+f.unit)
			b.ReportMetric(f.list[len(f.list)-1]/f.bar, "worst-"+f.unit+"-x-bar")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// pass lets time go by, which is all that an idle peer has to do.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// formIdle starts n peers, each joined with the code of the first, and waits
// until every one knows all.
func (d *demo) formIdle(ctx context.Context, n int) error {
	first := d.newPeer("peer0")
	if _, err := swarm(ctx, d.self, "", "init", "--state", first.state); err != nil {
		return err
	}
	if err := d.start(ctx, first, "--builder", "sample", "--slots", "1"); err != nil {
		return err
	}
	code, err := first.client.Invite(ctx)
	if err != nil {
		return err
	}
	for i := 1; i < n; i++ {
		p := d.newPeer(fmt.Sprintf("peer%d", i))
		if _, err := swarm(ctx, d.self, code, "join", "--state", p.state); err != nil {
			return err
		}
		if err := d.start(ctx, p, "--builder", "sample", "--slots", "1"); err != nil {
			return err
		}
	}
	for _, p := range d.peers {
		for known := 0; known < n; {
			s, err := p.client.Status(ctx)
			if err != nil {
				return p.explain(err)
			}
			known = 0
			for _, q := range s.Peers {
				if q.State == "idle" {
					known++
				}
			}
			if known < n {
				select {
				case <-ctx.Done():
					return fmt.Errorf("%s knows %d of %d peers: %w", p.name, known, n, ctx.Err())
				case <-time.After(pollEvery):
				}
			}
		}
	}
	return nil
}

// usage is what a process has used so far.
type usage struct {
	rssMiB   float64
	cpu      time.Duration
	switches int64 // voluntary, of all its threads
}

func (d *demo) usage(b *testing.B) []usage {
	b.Helper()
	var out []usage
	for _, p := range d.peers {
		u, err := usageOf(p.cmd.Process.Pid)
		if err != nil {
			b.Fatal(p.explain(err))
		}
		out = append(out, u)
	}
	return out
}

// usageOf reads the files status and schedstat of a process and its threads
// (proc(5)): the latter tells CPU time in nanoseconds.
func usageOf(pid int) (usage, error) {
	var u usage
	dir := fmt.Sprintf("/proc/%d", pid)
	kib, err := statusField(filepath.Join(dir, "status"), "VmRSS")
	if err != nil {
		return u, err
	}
	u.rssMiB = float64(kib) / 1024
	tasks, err := filepath.Glob(filepath.Join(dir, "task", "*"))
	if err != nil {
		return u, err
	}
	for _, t := range tasks {
		n, err := statusField(filepath.Join(t, "status"), "voluntary_ctxt_switches")
		if err != nil {
			return u, err
		}
		raw, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, err
		}
		ran, _, _ := strings.Cut(string(raw), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return u, fmt.Errorf("read the CPU time of %s: %w", t, err)
		}
		u.switches += n
		u.cpu += time.Duration(ns)
	}
	return u, nil
}

func statusField(path, name string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(raw)); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), name+":"); ok {
			return strconv.ParseInt(strings.Fields(v)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
