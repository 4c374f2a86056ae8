package emerge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// termGrace is how long emerge has to end its phases after SIGTERM; it
	// needs about one second.
	termGrace = 2 * time.Second
	// maxLog bounds what one build may write into its log.
	maxLog = 64 << 20
	// maxTail is how much of the end of the output is kept to tell why.
	maxTail = 512 << 10
)

// usage is what a run cost, its children included.
type usage struct {
	cpu     time.Duration
	peakMiB int64
}

// run starts a program in a process group of its own, feeds its output to out,
// and returns when it and everything it started is gone. dir is the job's
// directory: whatever process has it in its environment or works below it
// belongs to the run, in whichever session it hides.
func run(ctx context.Context, dir string, env, args []string, out io.Writer) (usage, error) {
	// The death signal is tied to the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		return usage{}, fmt.Errorf("start %s: %w", args[0], err)
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = env, dir
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = termGrace
	err = cmd.Start()
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return usage{}, fmt.Errorf("start %s: %w", args[0], err)
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, r)
		copied <- err
	}()
	err = cmd.Wait()
	if kerr := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
		err = errors.Join(err, fmt.Errorf("kill what %s left: %w", args[0], kerr))
	}
	if serr := Sweep(dir); serr != nil {
		err = errors.Join(err, serr)
	}
	// Whoever held the output is gone; a process that hid from the sweep may
	// not hold up the build.
	if derr := r.SetReadDeadline(time.Now().Add(termGrace)); derr != nil {
		err = errors.Join(err, derr)
	}
	if cerr := <-copied; cerr != nil && !errors.Is(cerr, os.ErrDeadlineExceeded) {
		err = errors.Join(err, fmt.Errorf("read output of %s: %w", args[0], cerr))
	}
	u := usage{}
	if st := cmd.ProcessState; st != nil {
		u.cpu = st.UserTime() + st.SystemTime()
		if r, ok := st.SysUsage().(*syscall.Rusage); ok {
			u.peakMiB = int64(r.Maxrss) >> 10
		}
	}
	return u, err
}

// Sweep kills every process that has dir in its environment or works below
// it, until there is none: the phases of a build run in sessions of their own
// and survive emerge. dir must be a job's own directory. It takes at most ten
// seconds; a process in an uninterruptible sleep is an error.
func Sweep(dir string) error {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) || len(dir) < 4 {
		return fmt.Errorf("sweep %q: not a directory of a job", dir)
	}
	deadline := time.Now().Add(10 * time.Second)
	pause := time.Millisecond
	for {
		pids, err := belonging(dir)
		if err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sweep %s: process %d does not end", dir, pids[0])
		}
		for _, pid := range pids {
			kill(pid, dir)
		}
		timer := time.NewTimer(pause)
		<-timer.C
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// kill ends one process, through a handle that cannot come to mean another.
func kill(pid int, dir string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if !errors.Is(err, unix.ESRCH) && belongs(pid, dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // an old kernel; gone is fine
		}
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if belongs(pid, dir) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // the next round looks again
	}
}

func belonging(dir string) ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []int
	self := os.Getpid()
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err == nil && pid != self && belongs(pid, dir) {
			out = append(out, pid)
		}
	}
	return out, nil
}

// belongs reports whether a process is one of the job's. A process that ended
// or belongs to somebody else is not.
func belongs(pid int, dir string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if cwd, err := os.Readlink(proc + "/cwd"); err == nil && below(cwd, dir) {
		return true
	}
	f, err := os.Open(proc + "/environ")
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return false
	}
	for _, kv := range bytes.Split(b, []byte{0}) {
		if i := bytes.IndexByte(kv, '='); i > 0 && below(string(kv[i+1:]), dir) {
			return true
		}
	}
	return false
}

func below(path, dir string) bool {
	return path == dir || len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}

// output receives what emerge prints: it strips escapes, writes the log as it
// comes, tells phases, and keeps the end.
type output struct {
	log   io.Writer
	phase func(string)
	line  []byte
	tail  bytes.Buffer
	wrote int64
	err   error // of the log; the build goes on
}

func (o *output) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			o.line = append(o.line, b...)
			if len(o.line) > 16<<10 { // a progress bar: no reason to hoard it
				o.flush()
			}
			break
		}
		o.line = append(o.line, b[:i+1]...)
		o.flush()
		b = b[i+1:]
	}
	return n, nil
}

func (o *output) flush() {
	l := stripANSI(o.line)
	o.line = o.line[:0]
	if o.phase != nil {
		if p := phaseOf(l); p != "" {
			o.phase(p)
		}
	}
	o.tail.Write(l)
	if o.tail.Len() > 2*maxTail {
		o.tail.Next(o.tail.Len() - maxTail)
	}
	if o.log == nil || o.wrote > maxLog {
		return
	}
	o.wrote += int64(len(l))
	if o.wrote > maxLog {
		l = []byte("[the log is longer than 64 MiB: the rest is left out]\n")
	}
	if _, err := o.log.Write(l); err != nil && o.err == nil {
		o.err = fmt.Errorf("write build log: %w", err)
	}
}

// reset forgets the kept end, for the next run of the same build.
func (o *output) reset() { o.tail.Reset() }

func (o *output) say(format string, args ...any) { fmt.Fprintf(o, ">>> swarm: "+format+"\n", args...) }
