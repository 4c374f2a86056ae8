package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

// The bars of a takeover, from the moment a drone is gone to the moment at
// which another has its build.
const (
	killedBar = 40 * time.Second
	leaveBar  = 3 * time.Second
)

// BenchmarkTakeover runs a swarm of three real processes under production
// settings, ends one of them in the first seconds of a build, and asks another
// peer who has that build. No option shortens a lease for it.
func BenchmarkTakeover(b *testing.B) {
	dir := b.TempDir()
	self := filepath.Join(dir, "swarm")
	if out, err := exec.Command("go", "build", "-o", self, "github.com/build-swarm/swarm/cmd/swarm").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	// Each drone has slots to spare, so that a build which is free again waits
	// for nothing but the news.
	spare := filepath.Join(dir, "spare")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = run ] && set -- \"$@\" --slots 4\nexec %s \"$@\"\n", self)
	if err := os.WriteFile(spare, []byte(script), 0o755); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		bar  time.Duration
	}{{"killed", syscall.SIGKILL, killedBar}, {"leave", syscall.SIGTERM, leaveBar}} {
		b.Run(c.name, func(b *testing.B) {
			var sum, invested time.Duration
			for b.Loop() {
				d, i := takeover(b, spare, c.sig)
				sum, invested = sum+d, invested+i
			}
			n := float64(b.N)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(sum.Seconds()/n, "s")
			b.ReportMetric(sum.Seconds()/n/c.bar.Seconds(), "x-bar")
			b.ReportMetric(invested.Seconds()/n, "invested-s")
		})
	}
}

// takeover tries until a run has a build to interrupt: in some, the only long
// ones fall to the peer that is asked.
func takeover(b *testing.B, self string, sig syscall.Signal) (took, invested time.Duration) {
	b.Helper()
	for range 10 {
		if took, invested, ok := takeoverOnce(b, self, sig); ok {
			return took, invested
		}
	}
	b.Fatal("no build to interrupt in ten runs")
	return 0, 0
}

func takeoverOnce(b *testing.B, self string, sig syscall.Signal) (took, invested time.Duration, ok bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	d := &demo{opt: Options{Show: NewShow(io.Discard)}, self: self, dir: b.TempDir(), target: "demo", began: time.Now(), history: newHistory()}
	defer func() { stop(d.peers) }()
	for _, step := range []func(context.Context) error{d.form, d.ask} {
		if err := step(ctx); err != nil {
			b.Fatal(err)
		}
	}
	victim, job := d.takeable(ctx, b)
	if victim == nil {
		return 0, 0, false
	}
	began := time.Now()
	if err := victim.signal(sig); err != nil {
		b.Fatal(err)
	}
	d.victim = victim
	for {
		s, err := d.peers[0].client.Status(ctx)
		if err != nil {
			b.Fatalf("%s after it: %v", time.Since(began), err)
		}
		if elsewhere(s, job.Key, victim.info.ID) {
			return time.Since(began), time.Duration(job.InvestedMS) * time.Millisecond, true
		}
		select {
		case <-ctx.Done():
			b.Fatalf("%s after it nobody else has %s", time.Since(began), job.CPV)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// takeable waits until the second or third peer compiles, and all it has built
// has a second copy: what had none would be waited for as long as its holder may
// come back. It returns nil when the round ends before.
func (d *demo) takeable(ctx context.Context, b *testing.B) (*peer, view.Build) {
	b.Helper()
	for {
		p, job, err := d.interruptible(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if p == nil {
			return nil, job // the round is over
		}
		copied, err := d.copied(ctx, p)
		if err != nil {
			b.Fatal(err)
		}
		if copied {
			return p, job
		}
		select {
		case <-ctx.Done():
			b.Fatal(ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// elsewhere reports whether a peer other than victim has a build.
func elsewhere(s view.Snapshot, k build.Key, victim string) bool {
	for _, q := range s.Peers {
		for _, j := range q.Doing {
			if j.Key == k && q.ID != victim {
				return true
			}
		}
	}
	return false
}
