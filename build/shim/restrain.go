package shim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/guest"
)

// restrain gives a build what its level allows.
func (x *process) restrain(l guest.Level) error {
	if x.ended(0) || l == x.level {
		return nil
	}
	was := x.level
	x.level = l
	var err error
	if x.cgroup != "" {
		err = shapeCgroup(x.cgroup, l)
	}
	if x.cgroup == "" || !hasCPU(x.cgroup) {
		// Also before it stops: stopping a tree of processes takes a moment.
		if l > guest.Full && was == guest.Full || l == guest.Full {
			err = errors.Join(err, x.schedule(l))
		}
	}
	if x.cgroup == "" {
		switch {
		case l == guest.Frozen:
			_, serr := x.stop()
			err = errors.Join(err, serr)
		case was == guest.Frozen:
			err = errors.Join(err, x.goOn())
		}
	}
	if err != nil {
		return fmt.Errorf("hold back the build in %s (%s): %w", x.dir, l, err)
	}
	return nil
}

// goOn lets a stopped tree run, children first.
func (x *process) goOn() error {
	tree, err := x.tree()
	for n := len(tree) - 1; n >= 0; n-- {
		_ = syscall.Kill(tree[n], syscall.SIGCONT) // gone is fine
	}
	return err
}

const (
	ioprioWhoProcess = 1
	ioprioClassShift = 13
	ioprioBestEffort = 2
	ioprioIdle       = 3
)

// schedule gives every thread of the build the scheduling class of its level:
// SCHED_IDLE and the idle I/O class, or the ordinary ones. Threads that begin
// later inherit it.
func (x *process) schedule(l guest.Level) error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: niceness}
	prio := ioprioBestEffort<<ioprioClassShift | 7
	if l > guest.Full {
		attr.Policy, prio = unix.SCHED_IDLE, ioprioIdle<<ioprioClassShift
	}
	seen := map[int]bool{}
	for range 5 { // until nothing is new: a thread may start another meanwhile
		tree, err := x.tree()
		if err != nil {
			return err
		}
		news := false
		for _, pid := range tree {
			tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
			if err != nil {
				continue // gone
			}
			for _, t := range tasks {
				tid, err := strconv.Atoi(t.Name())
				if err != nil || seen[tid] {
					continue
				}
				seen[tid], news = true, true
				if err := unix.SchedSetAttr(tid, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("set the scheduling class of thread %d: %w", tid, err)
				}
				_, _, _ = syscall.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(prio)) // a disk without classes is fine
			}
		}
		if !news {
			break
		}
	}
	return nil
}
