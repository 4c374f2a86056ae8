package emerge

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script runs a shell script as a job's program would run.
func script(ctx context.Context, t *testing.T, dir, text string, out *output) error {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	_, err = run(ctx, dir, []string{"PATH=/usr/bin:/bin", "PORTAGE_TMPDIR=" + dir + "/tmp"}, []string{sh, "-c", text}, out)
	return err
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := belonging(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("processes left: %v %v", left, err)
	}
}

// TestNothingOutlivesARun starts what builds have left behind: a daemon in a
// session of its own that holds the output open, with another parent.
func TestNothingOutlivesARun(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("no setsid")
	}
	for name, text := range map[string]string{
		"it ends well":     "setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & wait' & echo done",
		"it fails":         "setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & wait' & exit 1",
		"with clean hands": "cd \"$PORTAGE_TMPDIR/..\"; env -i setsid /bin/sleep 1000 & echo done",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var log bytes.Buffer
			o := &output{log: &log}
			err := script(t.Context(), t, dir, "mkdir tmp; "+text, o)
			var exit *exec.ExitError
			if strings.Contains(text, "exit 1") != errors.As(err, &exit) {
				t.Errorf("ended with %v", err)
			}
			nothingLeft(t, dir)
		})
	}
}

func TestCancelEndsTheTree(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := &output{phase: func(string) { cancel() }}
	begin := time.Now()
	err := script(ctx, t, dir, "trap '' TERM; (trap '' TERM; sleep 1000) & echo '>>> Compiling source in x'; wait; sleep 1000", o)
	if err == nil {
		t.Error("a cancelled run ended well")
	}
	if took := time.Since(begin); took > 10*termGrace {
		t.Errorf("it took %v", took) // not a measurement: it did not hang
	}
	nothingLeft(t, dir)
}

func TestSweepSparesStrangers(t *testing.T) {
	dir := t.TempDir()
	mine, other := filepath.Join(dir, "job"), filepath.Join(dir, "job2")
	for _, d := range []string{mine, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.Dir = other
	cmd.Env = []string{"T=" + other + "/tmp"}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := Sweep(mine); err != nil {
		t.Fatal(err)
	}
	if left, err := belonging(other); err != nil || len(left) != 1 {
		t.Errorf("the neighbour's processes: %v %v", left, err)
	}
	for _, bad := range []string{"", "/", "relative", "/x"} {
		if err := Sweep(bad); err == nil {
			t.Errorf("sweep %q: no error", bad)
		}
	}
}

func TestEnvironmentIsNotTheCallers(t *testing.T) {
	t.Setenv("AWS_SECRET", "x")
	t.Setenv("CFLAGS", "-O9")
	p := &Portage{who: identity{uid: 1000, gid: 1000, user: "u", group: "g"}}
	env := strings.Join(p.environment("/c", "/e"), "\n")
	for _, bad := range []string{"AWS_SECRET", "CFLAGS"} {
		if strings.Contains(env, bad) {
			t.Errorf("%s leaks into builds", bad)
		}
	}
	for _, want := range []string{"PORTAGE_CONFIGROOT=/c", "EPREFIX=/e", "PATH=/e/usr/sbin:", "PORTAGE_USERNAME=u"} {
		if !strings.Contains(env, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestDetectSaysWhyNot(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"absent":         {"", ErrNoPortage},
		"not Python":     {"#!/bin/sh\necho Portage 3\n", ErrUnusable},
		"broken":         {"#!/bin/sh\necho no module named portage >&2\nexit 1\n", ErrUnusable},
		"without output": {"#!/bin/sh\n", ErrUnusable},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "emerge")
			if c.text != "" {
				if err := os.WriteFile(file, []byte(c.text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Detect(t.Context(), Config{Emerge: file})
			if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
}

// Root's state directory is often closed to others, and the user portage is one.
func TestADirectoryThatPortagesUserMayNotEnterIsNamed(t *testing.T) {
	top := t.TempDir()
	if shut := shutTo(filepath.Dir(top)); shut != "" && shut != filepath.Dir(top) {
		t.Skipf("%s is shut to others itself", shut)
	}
	if err := os.Chmod(filepath.Dir(top), 0o711); err != nil { // of this test alone
		t.Fatal(err)
	}
	state, job := filepath.Join(top, "state"), filepath.Join(top, "state/work/job")
	if err := os.MkdirAll(job, 0o755); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{0o755: "", 0o711: "", 0o700: state} {
		if err := os.Chmod(state, mode); err != nil {
			t.Fatal(err)
		}
		if got := shutTo(filepath.Join(job, "build")); got != want {
			t.Errorf("mode %o: %q, want %q", mode, got, want)
		}
	}
}
