package sample

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build"
)

// command is a program to run as a process group of its own.
type command struct {
	dir  string
	env  []string
	path string
	args []string
	out  io.Writer
}

// cost is what processes used up.
type cost struct {
	cpu     time.Duration
	peakKiB int64 // of the largest process
}

func (c *cost) add(d cost) {
	c.cpu += d.cpu
	c.peakKiB = max(c.peakKiB, d.peakKiB)
}

// runGroup runs c until it ends; when ctx ends first, the whole process group
// is killed. On Linux the program also dies with the thread that called this,
// so that a killed daemon leaves no compiler behind.
func runGroup(ctx context.Context, c command) (cost, error) {
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.SysProcAttr = groupAttr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A process that left the group could hold the log open; it is not waited
	// for.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		// What the script left running in its group must not outlive it. (While
		// a member is left, no other group can have this number.)
		if kerr := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) && err == nil {
			err = fmt.Errorf("end the process group: %w", kerr)
		}
	}
	var used cost
	if st := cmd.ProcessState; st != nil {
		used.cpu = st.UserTime() + st.SystemTime()
		if ru, ok := st.SysUsage().(*syscall.Rusage); ok {
			used.peakKiB = int64(ru.Maxrss)
		}
	}
	return used, err
}

// logScanner passes a build's output on and remembers the line that tells why
// it failed. It is written by one goroutine at a time (os/exec's).
type logScanner struct {
	w       *stickyWriter
	line    []byte // the line under way, cut at maxLine
	first   string // first line that names an error
	last    string // last line that is not empty
	machine string // first line that blames the machine
}

// stickyWriter keeps on accepting after w has failed: a build is not stopped by
// a pipe that nobody reads any more, the error is told at the end.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(p []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(p)
	}
	return len(p), nil
}

const maxLine = 1000

func (l *logScanner) Write(p []byte) (int, error) {
	if _, err := l.w.Write(p); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		l.line = append(l.line, line[:min(len(line), maxLine-len(l.line))]...)
		if ended {
			l.endLine()
		}
		rest = after
	}
	return len(p), nil
}

func (l *logScanner) endLine() {
	s := build.OneLine(string(l.line), maxReason)
	l.line = l.line[:0]
	if s == "" {
		return
	}
	l.last = s
	low := strings.ToLower(s)
	if l.first == "" && (strings.Contains(low, "error:") || strings.Contains(low, "error -") ||
		strings.Contains(low, "undefined reference") || strings.Contains(low, "not found")) {
		l.first = s
	}
	if l.machine == "" && blamesMachine(low) {
		l.machine = s
	}
}

// blamesMachine reports whether a line of output, in lower case, says that the
// machine and not the package is at fault: space, memory, an instruction that
// this CPU lacks, a compiler that crashed or was killed.
func blamesMachine(low string) bool {
	for _, s := range []string{
		"no space left on device", "disk quota exceeded", "cannot allocate memory", "out of memory",
		"virtual memory exhausted", "killed signal terminated program", "cannot fork", "resource temporarily unavailable",
		"illegal instruction", "input/output error", "read-only file system", "too many open files", "bus error",
	} {
		if strings.Contains(low, s) {
			return true
		}
	}
	return false
}

// failure turns the end of a recipe into whose fault it is.
func (l *logScanner) failure(err error) error {
	l.endLine()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run the recipe: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &build.Failure{Class: build.BadMachine, Reason: fmt.Sprintf("the recipe was ended by signal %d (%v)", ws.Signal(), ws.Signal())}
	}
	if l.machine != "" {
		return &build.Failure{Class: build.BadMachine, Reason: l.machine}
	}
	reason := l.first
	if reason == "" {
		reason = l.last
	}
	if reason == "" {
		reason = err.Error()
	}
	return &build.Failure{Class: build.BadPackage, Reason: reason}
}
