package shim

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/guest"
)

// A kernel need not give the cpu controller to anybody: a directory stands for a
// cgroup that has it. What counts is what is written there (cgroup-v2.rst).
func TestALevelIsWrittenToTheFilesOfACgroup(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cpu.idle", "cpu.max", "cpu.weight", "io.weight", "cgroup.freeze"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Skip("no pidfd here: ", err)
	}
	defer unix.Close(self)
	shrunk := strconv.Itoa(max(10_000, runtime.NumCPU()*10_000)) + " 100000"
	for _, step := range []struct {
		level guest.Level
		want  map[string]string
	}{
		{guest.Full, map[string]string{"cpu.idle": "0", "cpu.max": "max 100000", "cpu.weight": "20", "io.weight": "50", "cgroup.freeze": "0"}},
		{guest.Shrunk, map[string]string{"cpu.idle": "1", "cpu.max": shrunk, "cpu.weight": "20", "io.weight": "1", "cgroup.freeze": "0"}},
		{guest.Frozen, map[string]string{"cpu.idle": "1", "cpu.max": shrunk, "cpu.weight": "20", "io.weight": "1", "cgroup.freeze": "1"}},
		{guest.Shrunk, map[string]string{"cpu.idle": "1", "cpu.max": shrunk, "cpu.weight": "20", "io.weight": "1", "cgroup.freeze": "0"}},
		{guest.Full, map[string]string{"cpu.idle": "0", "cpu.max": "max 100000", "cpu.weight": "20", "io.weight": "50", "cgroup.freeze": "0"}},
	} {
		x := &process{dir: dir, cgroup: dir, pidfd: self, level: guest.Level(-1)}
		if err := x.restrain(step.level); err != nil {
			t.Fatalf("%s: %v", step.level, err)
		}
		got := map[string]string{}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[f.Name()] = string(text)
		}
		if d := cmp.Diff(step.want, got); d != "" {
			t.Errorf("%s: %s", step.level, d)
		}
		if !hasCPU(dir) {
			t.Error("the cpu controller is not seen")
		}
	}
}

// A controller that is not delegated is no error, the freezer that is not there is.
func TestACgroupWithoutTheFreezerIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cgroup.freeze"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := shapeCgroup(dir, guest.Frozen); err == nil {
		t.Error("a build that does not freeze counts as frozen")
	}
}
