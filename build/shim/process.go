package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

// process is one shim, as the daemon sees it.
type process struct {
	key    build.Key
	dir    string // the job's
	pid    int
	pidfd  int    // -1: it has ended
	cgroup string // directory; "" = none of its own
	level  guest.Level
}

func writeIdentity(dir string) error {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, pidFile), &identity{pid, start, bootID()})
}

// openProcess finds the shim of a job's directory; one that is gone has pidfd
// -1. A shim that has not yet written its identity is found a moment later.
func openProcess(dir string) (*process, error) {
	x := &process{dir: dir, pidfd: -1}
	var id identity
	err := readFile(filepath.Join(dir, pidFile), &id)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, err
	}
	x.pid = id.PID
	if id.Boot != bootID() {
		return x, nil
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return x, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the build in %s: %w", dir, err)
	}
	// The handle came first: what it means cannot change any more.
	if start, err := startTime(id.PID); err != nil || start != id.Start {
		return x, unix.Close(fd)
	}
	x.pidfd = fd
	return x, nil
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// stat returns the fields of /proc/PID/stat after the name.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	at := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[at+1:]))
	if at < 0 || len(f) < 20 {
		return nil, fmt.Errorf("read /proc/%d/stat: %q", pid, b)
	}
	return f, nil
}

func startTime(pid int) (uint64, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// ended waits for at most d and reports whether the shim has ended.
func (x *process) ended(d time.Duration) bool {
	if x.pidfd < 0 {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(x.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if err != nil || n == 0 {
		return false
	}
	// Reap it if it is this process's child; an adopted one is another's.
	_ = unix.Waitid(unix.P_PIDFD, x.pidfd, nil, unix.WEXITED|unix.WNOHANG, nil)
	return true
}

func (x *process) close() {
	if x.pidfd >= 0 {
		_ = unix.Close(x.pidfd) // nothing depends on it any more
		x.pidfd = -1
	}
}

// end has the shim end its build, which cleans up after itself, and kills what
// does not. A frozen build is killed at once: it could not hear.
func (x *process) end() error {
	if x.level != guest.Frozen && x.pidfd >= 0 {
		err := unix.PidfdSendSignal(x.pidfd, unix.SIGTERM, nil, 0)
		if err == nil && x.ended(endTime) || errors.Is(err, unix.ESRCH) {
			return nil
		}
	}
	err := x.killTree()
	if !x.ended(endTime) {
		err = errors.Join(err, fmt.Errorf("process %d does not end", x.pid))
	}
	return err
}

// killTree kills every process of the build.
func (x *process) killTree() error {
	if x.cgroup != "" {
		return killCgroup(x.cgroup)
	}
	if x.ended(0) {
		return sweep(x.dir)
	}
	// Stopped first, or a parent could start another while its children die.
	tree, err := x.stop()
	for _, pid := range slices.Backward(tree) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone is fine
	}
	return err
}

// sweep kills what works below a job's directory: a shim that was killed itself
// leaves its build to init.
func sweep(dir string) error {
	for range 50 {
		links, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			return err
		}
		left := 0
		for _, l := range links {
			at, err := os.Readlink(l)
			if err != nil || at != dir && !strings.HasPrefix(at, dir+"/") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l))); err == nil && pid != os.Getpid() {
				left++
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone is fine
			}
		}
		if left == 0 {
			return nil
		}
		pause()
	}
	return fmt.Errorf("kill what works in %s: it does not end", dir)
}

// tree lists the shim and all its descendants, parents first.
func (x *process) tree() ([]int, error) {
	if x.cgroup != "" {
		return cgroupProcs(x.cgroup)
	}
	if x.ended(0) {
		return nil, nil
	}
	return descendants(x.pid)
}

// descendants lists a process and all below it, parents first.
func descendants(pid int) ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if f, err := stat(pid); err == nil && f[0] != "Z" {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	out := []int{pid}
	for n := 0; n < len(out); n++ {
		out = append(out, children[out[n]]...)
	}
	return out, nil
}

// killBelow kills all descendants of this process, until there are none.
func killBelow() error {
	for range 50 {
		tree, err := descendants(os.Getpid())
		if err != nil || len(tree) == 1 {
			return err
		}
		for _, pid := range tree[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone is fine
		}
		pause()
	}
	return errors.New("end what the build left: it does not end")
}

// stop stops the tree, until a look finds no process that was not stopped.
func (x *process) stop() (all []int, err error) {
	stopped := map[int]bool{}
	for range 50 {
		tree, err := x.tree()
		if err != nil {
			return all, err
		}
		news := false
		for _, pid := range tree {
			if !stopped[pid] {
				stopped[pid], news = true, true
				all = append(all, pid)
				_ = syscall.Kill(pid, syscall.SIGSTOP) // gone is fine
			}
		}
		if !news {
			return all, nil
		}
	}
	return all, fmt.Errorf("stop the build in %s: it starts processes faster than they are found", x.dir)
}

// cpu is what the build has used so far.
func (x *process) cpu() time.Duration {
	if x.cgroup != "" {
		if d, ok := cgroupCPU(x.cgroup); ok {
			return d
		}
	}
	pids, err := x.tree()
	if err != nil {
		return 0
	}
	var ticks int64
	for _, pid := range pids {
		f, err := stat(pid)
		if err != nil {
			continue
		}
		for _, s := range f[11:15] { // utime, stime, and those of reaped children
			n, _ := strconv.ParseInt(s, 10, 64) // the kernel writes numbers
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
}

// resident is what the build has in memory, in bytes; shared pages count twice.
func (x *process) resident() int64 {
	pids, err := x.tree()
	if err != nil {
		return 0
	}
	var pages int64
	for _, pid := range pids {
		if f, err := stat(pid); err == nil {
			n, _ := strconv.ParseInt(f[21], 10, 64) // the kernel writes numbers
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}

// pause is between two looks at something that ends in a moment.
func pause() { <-time.After(10 * time.Millisecond) }
