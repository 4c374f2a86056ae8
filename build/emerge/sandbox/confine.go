package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// kept are the rights that installing files as root takes. Everything else is
// out of reach, also for whatever the program becomes root by.
var kept = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETFCAP, unix.CAP_SYS_CHROOT, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP,
}

// confine takes from this thread, and so from what it starts, what a build has
// no use for.
func confine(o *order) error {
	if err := unix.Sethostname([]byte("swarm")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if !o.Network {
		if err := loopback(); err != nil {
			return fmt.Errorf("bring up the loopback: %w", err)
		}
	}
	limits := map[int]uint64{unix.RLIMIT_CORE: 0}
	if o.MaxOpen > 0 {
		limits[unix.RLIMIT_NOFILE] = o.MaxOpen
	}
	if o.PIDMax > 0 {
		limits[unix.RLIMIT_NPROC] = uint64(o.perUser()) // root itself is exempt
	}
	for what, to := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(what, &now); err != nil {
			return fmt.Errorf("read limits: %w", err)
		}
		to = min(to, now.Max)
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: to, Max: to}); err != nil {
			return fmt.Errorf("set limits: %w", err)
		}
	}
	// Where memory runs out, builds go first. It may only be raised, so that a
	// refusal means that it is high already.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("800"), 0)
	for c := uintptr(0); ; c++ {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // beyond the last that the kernel knows
		}
		if err == nil && set == 1 && !slices.Contains(kept, c) {
			err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
		if err != nil {
			return fmt.Errorf("give up rights: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up rights: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new rights: %w", err)
	}
	unix.Umask(0o022)
	return nil
}

// loopback brings up lo, which packages' own tests talk over.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
