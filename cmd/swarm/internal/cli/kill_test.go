package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// real is one daemon as a process.
type real struct {
	t      testing.TB
	as     string // the name that it answers to; "" = swarm
	ns     string // network namespace; "" = this one
	inside int    // process whose root and mounts it has; 0 = this one
	dir    string // of its state, socket and log
	env    []string
	args   []string
	cmd    *exec.Cmd
	client *control.Client
}

// program is a command line that runs this test binary as swarm.
func (r *real) program(args ...string) *exec.Cmd {
	t := r.t
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := cmp.Or(r.as, "swarm")
	if r.ns != "" {
		// The shell gives the program the name that it answers to.
		args = append([]string{"netns", "exec", r.ns, "bash", "-c", "exec -a " + name + ` "$0" "$@"`, self}, args...)
		return exec.CommandContext(context.Background(), "ip", args...)
	}
	if r.inside != 0 {
		args = append([]string{"-t", strconv.Itoa(r.inside), "-m", "-r", "--wdns=/", "--", "bash", "-c", `exec -a swarm "$0" "$@"`, self}, args...)
		return exec.CommandContext(context.Background(), "nsenter", args...)
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Args = append([]string{name}, args...)
	return cmd
}

func (r *real) start() {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.cmd = r.program(append([]string{"run", "--config", os.DevNull, "--state", filepath.Join(r.dir, "state"), "--socket", filepath.Join(r.dir, "s"),
		"--gateway", "127.0.0.1:0", "--builder", "sample", "--jobs", "1", "--keep-builds", "20s"}, r.args...)...)
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = r.env, log, log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.client = control.NewClient(filepath.Join(r.dir, "s"))
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	if err := poll(ctx, func() error { _, err := r.client.Info(ctx); return err }); err != nil {
		text, _ := os.ReadFile(filepath.Join(r.dir, "log")) // the first error counts
		r.t.Fatalf("%v; its log: %s", err, text)
	}
}

func (r *real) stop(sig os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Error(err)
	}
	_ = r.cmd.Wait() // how it ended is known
}

// run runs a command of swarm to its end.
func (r *real) run(args ...string) string {
	r.t.Helper()
	cmd := r.program(args...)
	cmd.Env = r.env
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("swarm %s: %v: %s", args[0], err, errs.String())
	}
	return string(out)
}

// A compiler that takes its time, so that builds are there to be interrupted.
const slowly = "#!/bin/sh\nsleep 0.4\nexec %s \"$@\"\n"

// kills is how often; ten took three minutes on two busy cores.
var kills = flag.Int("kills", 1, "how often a daemon is killed in the middle of its builds")

func TestADaemonThatIsKilledLosesNoBuildAndLeavesNothing(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler here")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	err = os.Mkdir(bin, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "cc"), fmt.Appendf(nil, slowly, cc), 0o755) //nolint:gosec // a program
	}
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	near := []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--mdns=false", "--dht=false"}
	a := &real{t: t, dir: filepath.Join(dir, "a"), env: env, args: near}
	b := &real{t: t, dir: filepath.Join(dir, "b"), env: env, args: append([]string{"--slots", "0"}, near...)}
	for _, r := range []*real{a, b} {
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a.run("init", "--config", os.DevNull, "--state", filepath.Join(a.dir, "state"))
	a.start()
	code := filepath.Join(dir, "code")
	if err := os.WriteFile(code, []byte(a.run("invite", "--config", os.DevNull, "--socket", filepath.Join(a.dir, "s"))), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("join", "--config", os.DevNull, "--state", filepath.Join(b.dir, "state"), "--file", code)
	b.start()
	defer b.stop(os.Interrupt)
	atom := "sample-greet"
	if *kills > 1 {
		atom = "@samples"
	}
	a.run("build", "--config", os.DevNull, "--socket", filepath.Join(a.dir, "s"), atom)
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for range *kills {
		wait := time.After(time.Duration(200+rng.IntN(1500)) * time.Millisecond)
		<-wait
		a.stop(os.Kill)
		a.start()
	}
	done := func() error {
		s, err := a.client.Status(t.Context())
		if err != nil {
			return err
		}
		for _, r := range s.Rounds {
			if r.Done == r.Jobs {
				return nil
			}
			err = fmt.Errorf("%d of %d built", r.Done, r.Jobs)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := poll(ctx, done); err != nil {
		t.Fatal(err)
	}
	a.stop(os.Interrupt)
	log, err := os.ReadFile(filepath.Join(a.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "build stopped") { // the only drone there is has no reason to
		t.Errorf("a build that outlived its daemon was stopped and done again; the log: %s", log)
	}
	t.Logf("builds that went on after a kill: %d", strings.Count(string(log), "a build of the last run goes on"))
	a.leftNothing()
}

// leftNothing looks for processes, directories and cgroups of a daemon that ended.
func (r *real) leftNothing() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	err := poll(ctx, func() error {
		links, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			return err
		}
		for _, l := range links {
			if at, err := os.Readlink(l); err == nil && strings.HasPrefix(at, r.dir) {
				return fmt.Errorf("process %s works in %s", filepath.Base(filepath.Dir(l)), at)
			}
		}
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
	err = filepath.WalkDir(filepath.Join(r.dir, "state", "work"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fmt.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Error(err)
	}
}
