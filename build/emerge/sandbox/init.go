package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Op is an operation that Do runs with the ids of sandboxes. It reads in and
// writes out; its error is told on out by the caller's convention.
type Op func(ctx context.Context, arg string, in io.Reader, out io.Writer) error

// Main is what a program calls before anything else, with os.Args: it reports
// whether this process was started to be init of a sandbox, and if so does that
// and returns the exit code to end with.
func Main(args []string, ops map[string]Op) (code int, hidden bool) {
	if len(args) == 0 || args[0] != name {
		return 0, false
	}
	// Threads have capabilities and securebits of their own: everything below
	// happens on one.
	runtime.LockOSThread()
	if len(args) > 1 && args[1] == firstStage {
		return becomeRoot(), true
	}
	r, err := serve(ops)
	if err != nil {
		r = report{Error: oneLine(err.Error())}
	}
	if err := tell(r); err != nil {
		return 1, true // nobody is there to be told
	}
	return 0, true
}

// becomeRoot waits until the caller has mapped the ids, takes the first of
// them, and executes itself again, since only that gives the rights that go
// with it in this user namespace.
func becomeRoot() int {
	fds := []unix.PollFd{{Fd: orderFD, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	err := errors.Join(syscall.Setresgid(0, 0, 0), syscall.Setgroups(nil), syscall.Setresuid(0, 0, 0))
	if err == nil {
		for _, fd := range []int{orderFD, lifeFD, reportFD} {
			if _, ferr := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); ferr != nil {
				err = ferr
			}
		}
		err = syscall.Exec(self, []string{name}, []string{})
	}
	if terr := tell(report{Error: "become root of a user namespace: " + err.Error()}); terr != nil {
		return 1
	}
	return 0
}

func tell(r report) error {
	f := os.NewFile(reportFD, "report")
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func serve(ops map[string]Op) (report, error) {
	for _, fd := range []int{orderFD, lifeFD, reportFD} {
		unix.CloseOnExec(fd)
	}
	var o order
	f := os.NewFile(orderFD, "order")
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&o); err != nil {
		return report{}, fmt.Errorf("read order: %w", err)
	}
	_ = f.Close() // read to its end
	// Nobody but the kernel looks into init: not its environment, not its
	// files, not the program it runs.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return report{}, fmt.Errorf("hide init: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	gone := make(chan struct{})
	go func() {
		// Ends with an error or without, when the caller's end is closed.
		_, _ = io.Copy(io.Discard, os.NewFile(lifeFD, "life"))
		cancel()
		close(gone)
	}()
	if o.Op != "" {
		op := ops[o.Op]
		if op == nil {
			return report{}, fmt.Errorf("there is no operation %q", o.Op)
		}
		return report{}, op(ctx, o.Op1, os.Stdin, os.NewFile(1, "out"))
	}
	if err := assemble(&o); err != nil {
		return report{}, err
	}
	if err := confine(&o); err != nil {
		return report{}, err
	}
	return supervise(ctx, gone, &o)
}

// reserveThreads makes threads that stay for later: a program that takes every
// process id there is must not leave init without one when it wants to wait.
func reserveThreads(n int) {
	up, release := make(chan struct{}), make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			up <- struct{}{}
			<-release
			runtime.UnlockOSThread()
		}()
	}
	for range n {
		<-up
	}
	close(release)
}

// supervise runs the program and ends when it and all it started is gone.
func supervise(ctx context.Context, gone <-chan struct{}, o *order) (report, error) {
	reserveThreads(24)
	dir := o.Dir
	if dir == "" {
		dir = "/"
	}
	pid, err := syscall.ForkExec(o.Args[0], o.Args, &syscall.ProcAttr{
		Dir: dir, Env: o.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return report{}, fmt.Errorf("start %s: %w", o.Args[0], err)
	}
	var r report
	ended := make(chan struct{})
	go func() {
		r.reap(pid)
		close(ended)
	}()
	crowded := make(chan struct{})
	if o.PIDMax > 0 {
		go func() {
			if crowd(ctx, o.perUser()) {
				close(crowded)
			}
		}()
	}
	select {
	case <-ended:
	case <-crowded:
		// Who retries to fork would do so for minutes.
		r.Crowded = true
		_ = unix.Kill(-1, unix.SIGKILL)
		<-ended
		r.reap(-1)
		return r, nil
	case <-gone: // the kernel does the rest when this process ends
		return report{}, errors.New("the caller is gone")
	case <-ctx.Done():
		// The caller kills this process when it takes too long.
		_ = syscall.Kill(pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-gone:
			return report{}, errors.New("the caller is gone")
		}
	}
	r.Left = leftovers()
	_ = unix.Kill(-1, unix.SIGKILL) // there may be none
	r.reap(-1)
	return r, nil
}

// crowd reports, when it is so, that for some seconds there have been as many
// processes as there may be; false when ctx ends.
func crowd(ctx context.Context, most int64) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for full := 0; ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err == nil && int64(len(dirs)) >= most {
			if full++; full >= 5 {
				return true
			}
		} else {
			full = 0
		}
	}
}

// reap waits for processes, adding up what they cost, until pid has ended, or
// with -1 until there are none.
func (r *report) reap(pid int) {
	for {
		var ws unix.WaitStatus
		var ru unix.Rusage
		got, err := unix.Wait4(-1, &ws, 0, &ru)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // no children any more
		}
		r.CPUms += (ru.Utime.Nano() + ru.Stime.Nano()) / int64(time.Millisecond)
		r.PeakMi = max(r.PeakMi, int64(ru.Maxrss)>>10) //nolint:unconvert // it has 32 bits on some machines
		if got == pid {
			if r.Exit = ws.ExitStatus(); ws.Signaled() {
				r.Exit = 128 + int(ws.Signal())
			}
			return
		}
	}
}

// leftovers names the processes that are still there a moment after the
// program has ended: what only takes a moment to end is not left.
func leftovers() []string {
	var names []string
	for range 20 {
		names = running()
		if len(names) == 0 {
			return nil
		}
		t := time.NewTimer(10 * time.Millisecond)
		<-t.C
	}
	return names
}

func running() []string {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var names []string
	for _, d := range dirs {
		if d == "/proc/1" {
			continue
		}
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		s := string(b)
		i, j := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		if i < 0 || j < i || strings.HasPrefix(s[j+1:], " Z") {
			continue
		}
		names = append(names, oneLine(strings.ToValidUTF8(s[i+1:j], "?")))
	}
	slices.Sort(names)
	if len(names) > 20 {
		names = append(names[:20], "and "+strconv.Itoa(len(names)-20)+" more")
	}
	return names
}
