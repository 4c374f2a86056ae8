package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// group is the control group of one run; nil where this process may make none.
type group struct {
	dir string
	fd  *os.File
}

// Control groups are made below the one that this process is in, so that
// whoever holds that one back or ends it reaches everything. Their names begin
// like this, so that a later process finds what an earlier one left.
const groupPrefix = "swarm-build-"

// newGroup makes a control group with limits. No right to make one is no error.
func newGroup(l Limits) (*group, error) {
	parent := groupParent()
	if parent == "" {
		return nil, nil
	}
	dir, err := os.MkdirTemp(parent, groupPrefix)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EAGAIN) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	g := &group{dir: dir}
	for file, v := range map[string]int64{"memory.max": l.MemoryBytes, "pids.max": l.Processes, "cpu.weight": l.Weight, "memory.oom.group": min(l.MemoryBytes, 1)} {
		if v <= 0 {
			continue
		}
		value := []byte(strconv.FormatInt(v, 10))
		err := os.WriteFile(filepath.Join(dir, file), value, 0)
		if errors.Is(err, fs.ErrNotExist) && l.Own {
			// A group with processes hands no controller down: the limit stands
			// at the group of this process, which is there for this run alone.
			err = os.WriteFile(filepath.Join(parent, file), value, 0)
		}
		// A controller that is not delegated has no file.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			g.remove()
			return nil, fmt.Errorf("limit control group: %w", err)
		}
	}
	if g.fd, err = os.Open(dir); err != nil {
		g.remove()
		return nil, fmt.Errorf("open control group: %w", err)
	}
	return g, nil
}

// groupParent is the directory that control groups are made in, "" if there is
// none.
func groupParent() string {
	mount, root := groupMount()
	if mount == "" {
		return ""
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			rel, err := filepath.Rel(root, own)
			if err != nil || strings.HasPrefix(rel, "..") {
				return ""
			}
			return filepath.Join(mount, rel)
		}
	}
	return ""
}

// groupMount finds where cgroup v2 is mounted, and which part of it.
func groupMount() (mount, root string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields, kind, _ := strings.Cut(s.Text(), " - ")
		w := strings.Fields(fields)
		if strings.HasPrefix(kind, "cgroup2 ") && len(w) > 5 && strings.HasPrefix(w[5], "rw") {
			return w[4], w[3]
		}
	}
	return "", ""
}

// Sweep removes control groups that earlier processes left, where this one would
// make its own. What is in use is left alone.
func Sweep() error {
	dir := groupParent()
	if dir == "" {
		return nil
	}
	return sweepGroups(dir)
}

// sweepGroups removes the groups of builds that nobody waits for any more.
func sweepGroups(parent string) error {
	left, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for control groups: %w", err)
	}
	for _, dir := range left {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.events")); err == nil && strings.Contains(string(b), "populated 1") {
			continue // another daemon's: its builds die with it, not by us
		}
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // about to be used, or gone
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove control group: %w", err)
		}
	}
	return nil
}

func (g *group) join(attr *syscall.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.fd.Fd())
	}
}

// kill ends whatever is in the group. After the namespace is gone nothing is.
func (g *group) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) // Linux 5.14; a second line of defence
	}
}

// account takes the group's own figures, which count what rusage cannot see.
func (g *group) account(res *Result) {
	if g == nil {
		return
	}
	if us := g.number("cpu.stat", "usage_usec"); us > 0 {
		res.CPU = time.Duration(us) * time.Microsecond
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, "memory.peak")); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			res.PeakMiB = n >> 20
		}
	}
	res.OutOfMemory = g.number("memory.events", "oom_kill") > 0
}

// number reads one line "name value" of a file.
func (g *group) number(file, name string) int64 {
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

func (g *group) remove() {
	if g == nil {
		return
	}
	if g.fd != nil {
		_ = g.fd.Close()
	}
	// The last process may still be on its way out; Settle finds the rest.
	for range 50 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		t := time.NewTimer(10 * time.Millisecond)
		<-t.C
	}
}
