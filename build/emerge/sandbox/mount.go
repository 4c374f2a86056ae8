package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// assemble puts the root together and makes it this process's own. Everything
// from outside is opened (open_tree) before the root changes, and put into its
// place afterwards: no path of a hostile root is ever followed outside.
func assemble(o *order) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountRoot(o); err != nil {
		return err
	}
	proc, err := fileSystem("proc")
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	trees := make([]int, len(o.Binds))
	for i, b := range o.Binds {
		if trees[i], err = tree(b.Source, b.Write); err != nil {
			return fmt.Errorf("bind %s: %w", b.Source, err)
		}
	}
	nodes := map[string]int{}
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if nodes[n], err = unix.OpenTree(unix.AT_FDCWD, "/dev/"+n, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", n, err)
		}
	}
	if err := enter(o.Mount); err != nil {
		return err
	}
	if err := attach(proc, "/proc", true); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := devices(nodes); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64m"); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount /run: %w", err)
	}
	for i, b := range o.Binds {
		info, err := os.Stat("/proc/self/fd/" + strconv.Itoa(trees[i]))
		if err == nil {
			err = attach(trees[i], b.Target, info.IsDir())
		}
		if err != nil {
			return fmt.Errorf("bind %s: %w", b.Target, err)
		}
	}
	return coverProc(o.PIDMax)
}

// mountRoot mounts the overlay. Directories are named by descriptors: their
// names may hold what separates mount options.
func mountRoot(o *order) error {
	opts := []string{"index=off", "metacopy=off", "xino=off", "volatile"}
	if o.User {
		opts = append(opts, "userxattr") // and with it no redirects, which it forbids to name
	} else {
		opts = append(opts, "redirect_dir=off")
	}
	if o.Machine != nil {
		host, err := mountMachine(o.Mount, o.Machine)
		if err != nil {
			return err
		}
		o.Lower = append(o.Lower, host)
	}
	var lower []string
	open := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("open %s: %w", dir, err)
		}
		return "/proc/self/fd/" + strconv.Itoa(fd), nil // closed when the program ends
	}
	for _, l := range o.Lower {
		d, err := open(l)
		if err != nil {
			return err
		}
		lower = append(lower, d)
	}
	upper, err := open(o.Upper)
	if err != nil {
		return err
	}
	work, err := open(o.Work)
	if err != nil {
		return err
	}
	opts = append(opts, "lowerdir="+strings.Join(lower, ":"), "upperdir="+upper, "workdir="+work)
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("mount overlay: %d layers are too many", len(o.Lower))
	}
	if err := unix.Mount("overlay", o.Mount, "overlay", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return errors.New("mount overlay: the kernel has no overlayfs")
		}
		return fmt.Errorf("mount overlay on %s: %w (is the directory on a file system that can hold one?)", o.Upper, err)
	}
	return nil
}

// fileSystem makes a mount that stands nowhere yet.
func fileSystem(kind string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// tree takes a directory or file of the machine as a mount of its own.
func tree(source string, write bool) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return 0, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if !write {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return 0, fmt.Errorf("set mount attributes: %w", err)
	}
	return fd, nil
}

// enter makes dir the root, and lets go of the old one.
func enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// The old root lands on top of the new one, and is taken off again.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	return nil
}

// attach puts a mount into its place, which is made if it is not there. What
// stands there and is no directory or file (a link of resolv.conf, say) is
// replaced.
func attach(fd int, target string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(target)
	switch {
	case err == nil && (dir && !info.IsDir() || !dir && !info.Mode().IsRegular()):
		if err := os.Remove(target); err != nil {
			return err
		}
		fallthrough
	case err != nil:
		if dir {
			err = os.Mkdir(target, 0o755)
		} else {
			err = os.WriteFile(target, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	err = unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return errors.Join(err, unix.Close(fd))
}

// devices makes /dev.
func devices(nodes map[string]int) error {
	if err := os.MkdirAll("/dev", 0o755); err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for n, fd := range nodes {
		if err := attach(fd, "/dev/"+n, false); err != nil {
			return fmt.Errorf("make /dev/%s: %w", n, err)
		}
	}
	for _, d := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,max=64"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=25%"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	for link, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, "/dev/"+link); err != nil {
			return fmt.Errorf("make /dev: %w", err)
		}
	}
	return nil
}

// What of /proc speaks to the kernel rather than of processes.
var (
	readOnlyProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger", "acpi", "mtrr"}
	coveredProc  = []string{"kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi", "kmsg", "kpagecount", "kpageflags", "vmallocinfo", "kallsyms"}
)

// coverProc sets the bound on processes and makes the rest of the kernel's
// settings read-only.
func coverProc(pidMax int64) error {
	if pidMax > 0 {
		// Of this namespace since Linux 6.14. On an older kernel the file is the
		// machine's: confine bounds processes in another way there.
		if ownPIDMax() {
			if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.FormatInt(pidMax, 10)), 0); err != nil {
				return fmt.Errorf("bound the number of processes: %w", err)
			}
		}
	}
	for _, p := range readOnlyProc {
		p = "/proc/" + p
		fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
		}
		if err == nil {
			err = errors.Join(unix.MoveMount(fd, "", unix.AT_FDCWD, p, unix.MOVE_MOUNT_F_EMPTY_PATH), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	for _, p := range coveredProc {
		p = "/proc/" + p
		info, err := os.Lstat(p)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
		case info.IsDir():
			err = unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "size=0")
		default:
			err = unix.Mount("/dev/null", p, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("cover %s: %w", p, err)
		}
	}
	return nil
}

// ownPIDMax reports whether the kernel keeps pid_max for each namespace.
func ownPIDMax() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	parts := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.TrimRightFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' }))
	return err1 == nil && err2 == nil && (major > 6 || major == 6 && minor >= 14)
}
