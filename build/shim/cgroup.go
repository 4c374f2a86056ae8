package shim

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

// group is a directory of cgroups, one for each build. It is there while one of
// these is.
type group struct{ base, dir string }

// controllers that are given to builds where they can be had.
var controllers = []string{"cpu", "io", "memory", "pids"}

// findGroup makes the group of a work directory below this process's own cgroup.
// Where it cannot, or not wholly, lacks says what that means.
func findGroup(work string) (g *group, lacks string) {
	const otherwise = "builds are stopped with SIGSTOP, and shrunk by nice and SCHED_IDLE alone"
	mount, own, err := ownCgroup()
	if err != nil {
		return nil, fmt.Sprintf("no cgroup v2 (%v): %s", err, otherwise)
	}
	base := filepath.Join(mount, own)
	if filepath.Base(base) == "daemon" { // systemd's DelegateSubgroup
		base = filepath.Dir(base)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(work)) // never fails, by its contract
	g = &group{base, filepath.Join(base, fmt.Sprintf("swarm-%08x", uint32(h.Sum64())))}
	if err := g.open(); err != nil {
		return nil, fmt.Sprintf("no cgroup v2 is delegated to this daemon (%v): %s", err, otherwise)
	}
	defer g.close()
	if b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.subtree_control")); err != nil || !strings.Contains(" "+string(b), " cpu") {
		return g, "the cpu controller is not delegated to this daemon: builds are frozen by their cgroup, and shrunk by nice and SCHED_IDLE alone"
	}
	return g, ""
}

// open makes the directory.
func (g *group) open() error {
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	for _, c := range controllers {
		for _, dir := range []string{g.base, g.dir} {
			// What is refused is seen in the file.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
	}
	return nil
}

// close removes the directory, unless a build has its cgroup in it.
func (g *group) close() { _ = os.Remove(g.dir) }

// ownCgroup finds where cgroup v2 is mounted and where this process is in it.
func ownCgroup() (mount, own string, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", err
	}
	own = "-"
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "0::"); ok {
			own = strings.TrimSuffix(rest, "\n")
		}
	}
	if own == "-" || strings.Contains(own, "/..") {
		return "", "", errors.New("this process is in none")
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], own, nil
		}
	}
	return "", "", errors.Join(errors.New("it is not mounted"), sc.Err())
}

// make makes the cgroup of one build, and opens it for the start of a process.
func (g *group) make(k build.Key) (string, *os.File, error) {
	if err := g.open(); err != nil {
		return "", nil, err
	}
	dir := filepath.Join(g.dir, string(k[:16]))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil, fmt.Errorf("make a cgroup: %w", err)
	}
	if err := shapeCgroup(dir, guest.Full); err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, f, nil
}

// of is the cgroup of an adopted process, if it is one of the group's.
func (g *group) of(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "0::"); ok {
			dir := filepath.Join(g.dir, filepath.Base(strings.TrimSuffix(rest, "\n")))
			if _, err := os.Stat(dir); err == nil {
				return dir
			}
		}
	}
	return ""
}

// clean removes cgroups that nobody is in.
func (g *group) clean() {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = removeTree(filepath.Join(g.dir, e.Name())) // busy ones stay
		}
	}
	g.close()
}

// removeTree removes an empty cgroup and those below it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}

func hasCPU(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cpu.max"))
	return err == nil
}

// shapeCgroup writes what a level means for a cgroup. Files of controllers that
// are not there are passed over.
func shapeCgroup(dir string, l guest.Level) error {
	const period = 100_000 // microseconds
	idle, limit, io := "0", "max "+strconv.Itoa(period), "50"
	if l > guest.Full {
		// A tenth of the machine even when nobody else wants it: fans are heard, too.
		idle, limit, io = "1", fmt.Sprintf("%d %d", max(10_000, runtime.NumCPU()*period/10), period), "1"
	}
	files := [][2]string{{"cpu.idle", idle}, {"cpu.max", limit}, {"io.weight", io}, {"cgroup.freeze", "0"}}
	if l == guest.Full {
		files = append(files, [2]string{"cpu.weight", "20"})
	}
	if l == guest.Frozen {
		files[3][1] = "1"
	}
	for _, f := range files {
		err := os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0)
		if err != nil && (f[0] == "cgroup.freeze" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EOPNOTSUPP)) {
			return fmt.Errorf("write %s: %w", f[0], err)
		}
	}
	return nil
}

// cgroupProcs lists the processes of a cgroup and those below it.
func cgroupProcs(dir string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for s := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(s); err == nil {
				out = append(out, pid)
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return out, nil
	}
	return out, err
}

func cgroupCPU(dir string) (time.Duration, bool) {
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, false
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil
		}
	}
	return 0, false
}

// killCgroup kills whatever is in a cgroup, frozen or not.
func killCgroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) { // Linux before 5.14, or it is gone
		for range 50 {
			pids, perr := cgroupProcs(dir)
			if perr != nil || len(pids) == 0 {
				return perr
			}
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL) // gone is fine
			}
			pause()
		}
		return fmt.Errorf("kill what is in %s: it does not end", dir)
	}
	if err != nil {
		return fmt.Errorf("kill what is in %s: %w", dir, err)
	}
	for range 200 {
		pids, err := cgroupProcs(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		pause()
	}
	return fmt.Errorf("kill what is in %s: it does not end", dir)
}

// dropCgroup removes the build's own.
func (x *process) dropCgroup() error {
	if x.cgroup == "" {
		return nil
	}
	var err error
	for range 100 { // the last exit is counted a moment after the process is gone
		if err = removeTree(x.cgroup); err == nil || errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Dir(x.cgroup)) // the last one takes the group along
			return nil
		}
		pause()
	}
	return fmt.Errorf("remove a build's cgroup: %w", err)
}
