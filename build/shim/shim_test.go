package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/worker"
)

// TestMain makes this test binary a shim where a Pool starts it.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "shim" {
		err := Main(context.Background(), os.Args[2], func(_ context.Context, _ build.Builder, tools []byte) (worker.Builder, error) {
			return script(tools), nil
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// script builds by running itself in a shell.
type script string

func (s script) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	req.Phase("compile")
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", string(s))
	cmd.Dir, cmd.Stdout, cmd.Stderr = req.Dir, req.Log, req.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return worker.Result{}, &build.Failure{Class: build.BadPackage, Reason: err.Error()}
	}
	return worker.Result{Path: filepath.Join(req.Dir, "p"), CoreMillis: 7, Inputs: strconv.Itoa(syscall.Getppid())}, nil
}

// bed is a pool and one job.
type bed struct {
	t    testing.TB
	pool *Pool
	req  worker.Request
	log  *bytes.Buffer
}

func newBed(t testing.TB, dir, text string, keep time.Duration) *bed {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, log: &bytes.Buffer{}}
	b.pool, err = NewPool(Config{Program: []string{self, "shim"}, Dir: dir, Keep: keep, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Tools: func(build.Builder) ([]byte, error) { return []byte(text), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.pool.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	key, err := build.KeyOf([]build.Facet{{Name: "t", Value: t.Name()}})
	if err != nil {
		t.Fatal(err)
	}
	b.req = worker.Request{Job: build.Job{Key: key, CPV: build.CPV{Category: "c", Name: "n", Version: "1"}, Root: build.NewRoot(build.RootEntry{Slot: "5"})},
		Dir: filepath.Join(dir, "job", "build"), LogPath: filepath.Join(dir, "log")}
	if err := os.MkdirAll(b.req.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// start builds on a goroutine; the result comes through the channel.
func (b *bed) start(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := b.pool.Builder(build.BuilderSample, nil).Build(ctx, b.req)
		ended <- err
	}()
	return ended
}

// until waits for something that another process does.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); pause() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// pid reads a number that the script wrote.
func (b *bed) pid(name string) (n int) {
	b.t.Helper()
	until(b.t, name+" is written", func() bool {
		text, err := os.ReadFile(filepath.Join(b.req.Dir, name))
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil
	})
	return n
}

func gone(pid int) bool {
	f, err := stat(pid)
	return err != nil || f[0] == "Z"
}

// without switches cgroups off, or skips where there are none.
func (b *bed) without(cgroups bool) {
	if !cgroups {
		b.pool.group = nil
	} else if b.pool.group == nil {
		b.t.Skip(b.pool.Missing())
	}
}

func TestABuildRunsInAProcessOfItsOwnAndItsResultComesBack(t *testing.T) {
	b := newBed(t, t.TempDir(), "echo hello; touch p", time.Minute)
	var phases []string
	b.req.Phase = func(p string) { phases = append(phases, p) }
	res, err := b.pool.Builder(build.BuilderSample, nil).Build(context.Background(), b.req)
	if err != nil || res.CoreMillis != 7 || res.Path != filepath.Join(b.req.Dir, "p") || res.Inputs != strconv.Itoa(os.Getpid()) {
		t.Errorf("%+v, %v", res, err)
	}
	if text, err := os.ReadFile(b.req.LogPath); err != nil || string(text) != "hello\n" {
		t.Errorf("log %q, %v", text, err)
	}
}

func TestAFailureComesBackAsWhatItIs(t *testing.T) {
	b := newBed(t, t.TempDir(), "exit 3", time.Minute)
	err := <-b.start(context.Background())
	if f, ok := errors.AsType[*build.Failure](err); !ok || f.Class != build.BadPackage || f.Reason != "exit status 3" {
		t.Errorf("%v", err)
	}
}

// A build that hides a process in a session of its own, beside one that spins.
const hiding = `setsid sh -c 'echo $$ >hidden.tmp; mv hidden.tmp hidden; exec sleep 1000' & sh -c 'echo $$ >spins.tmp; mv spins.tmp spins; while :; do :; done'`

func TestNothingOfABuildOutlivesItsEnd(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		for _, how := range []string{"cancelled", "frozen and cancelled", "its shim killed"} {
			t.Run(fmt.Sprintf("cgroups %v, %s", cgroups, how), func(t *testing.T) {
				b := newBed(t, t.TempDir(), hiding, time.Minute)
				b.without(cgroups)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				ended := b.start(ctx)
				pids := []int{b.pid("hidden"), b.pid("spins")}
				x, err := openProcess(filepath.Dir(b.req.Dir))
				if err != nil || x.pidfd < 0 {
					t.Fatal(x, err)
				}
				defer x.close()
				pids = append(pids, x.pid)
				switch how {
				case "frozen and cancelled":
					if err := b.pool.SetLevel(guest.Frozen); err != nil {
						t.Fatal(err)
					}
					cancel()
				case "its shim killed":
					if err := syscall.Kill(x.pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				default:
					cancel()
				}
				f, ok := errors.AsType[*build.Failure](<-ended)
				if !ok || f.Class != build.Cancelled && f.Class != build.BadMachine {
					t.Errorf("%v", f)
				}
				for _, pid := range pids {
					until(t, fmt.Sprintf("process %d is gone", pid), func() bool { return gone(pid) })
				}
				if b.pool.group != nil {
					if left, err := filepath.Glob(filepath.Join(b.pool.group.dir, "*", "cgroup.procs")); err != nil || len(left) > 0 {
						t.Errorf("cgroups left: %v, %v", left, err)
					}
				}
				if strings.Contains(b.log.String(), "left something") {
					t.Error(b.log.String())
				}
			})
		}
	}
}

func TestABuildOutlivesTheDaemonAndTheNextOneGetsItsResult(t *testing.T) {
	dir := t.TempDir()
	b := newBed(t, dir, `echo begin; echo $$ >shell.tmp; mv shell.tmp shell; while ! [ -e go ]; do sleep 0.01; done; echo end; touch p`, time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	ended := b.start(ctx)
	shell := b.pid("shell")
	b.pool.Detach()
	cancel()
	if err := <-ended; !errors.Is(err, worker.ErrDetached) {
		t.Fatalf("%v", err)
	}
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	next := newBed(t, dir, "exit 1", time.Minute)
	found, err := next.pool.Surviving()
	if err != nil || len(found) != 1 || found[0].Request.Job.Key != b.req.Job.Key || found[0].Request.Job.Root.Len() != 1 || found[0].Began.IsZero() {
		t.Fatalf("%+v, %v", found, err)
	}
	if gone(shell) {
		t.Fatal("the build did not go on")
	}
	if err := os.WriteFile(filepath.Join(b.req.Dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	resumer := next.pool.Builder(build.BuilderSample, nil).(worker.Resumer)
	res, err := resumer.Resume(context.Background(), found[0].Request)
	if err != nil || res.Path == "" {
		t.Errorf("%+v, %v", res, err)
	}
	if text, err := os.ReadFile(b.req.LogPath); err != nil || string(text) != "begin\nend\n" {
		t.Errorf("log %q, %v", text, err)
	}
	if found, err = next.pool.Surviving(); err != nil || len(found) != 1 {
		t.Errorf("its result is there until the worker removes it: %v, %v", found, err)
	}
}

func TestABuildWhoseDaemonStaysAwayEndsAndCleansUp(t *testing.T) {
	b := newBed(t, t.TempDir(), hiding, 20*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	ended := b.start(ctx)
	pids := []int{b.pid("hidden"), b.pid("spins")}
	b.pool.Detach()
	cancel()
	<-ended
	if err := b.pool.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		until(t, "the build is gone", func() bool { return gone(pid) })
	}
	until(t, "its directory is gone", func() bool {
		_, err := os.Stat(filepath.Dir(b.req.Dir))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestAFrozenBuildStandsStillAndAThawedOneGoesOn(t *testing.T) {
	for _, cgroups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups %v", cgroups), func(t *testing.T) {
			b := newBed(t, t.TempDir(), hiding, time.Minute)
			b.without(cgroups)
			ctx, cancel := context.WithCancel(context.Background())
			ended := b.start(ctx)
			defer func() { cancel(); <-ended }()
			pid := b.pid("spins")
			b.pid("hidden")
			for range 2 {
				for _, l := range []guest.Level{guest.Shrunk, guest.Frozen} {
					if err := b.pool.SetLevel(l); err != nil {
						t.Fatal(err)
					}
				}
				until(t, "it stands", func() bool {
					was := b.pool.CPU()
					for range 5 {
						pause()
					}
					return b.pool.CPU() == was
				})
				if policy := policyOf(t, pid); policy != 5 {
					t.Errorf("scheduling policy %d, want SCHED_IDLE", policy)
				}
				if err := b.pool.SetLevel(guest.Full); err != nil {
					t.Fatal(err)
				}
				was := b.pool.CPU()
				until(t, "it goes on", func() bool { return b.pool.CPU() > was })
				if policy := policyOf(t, pid); policy != 0 {
					t.Errorf("scheduling policy %d after the thaw, want SCHED_OTHER", policy)
				}
			}
		})
	}
}

// policyOf is a process's scheduling policy; one that its cgroup makes idle
// counts as that.
func policyOf(t *testing.T, pid int) int {
	t.Helper()
	f, err := stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(f[38])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
