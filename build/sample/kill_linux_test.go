package sample

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// helperDir names the directory of a child that only runs a recipe; see
// TestMain.
const helperDir = "SWARM_SAMPLE_TEST_DIR"

// TestMain lets the test binary play a daemon that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		// As Build does it, with a recipe that would never end.
		_, _ = runGroup(context.Background(), command{dir: dir, env: baseEnv(dir), path: "/bin/sh",
			args: []string{"-c", "echo started; while :; do read -r x < fifo; done"}, out: os.Stdout})
		return
	}
	os.Exit(m.Run())
}

// TestAKilledDaemonLeavesNoBuildBehind: SIGKILL gives no chance to clean up, so
// the recipe has to die by itself.
func TestAKilledDaemonLeavesNoBuildBehind(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "fifo")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(self)
	daemon.Env = append(os.Environ(), helperDir+"="+dir)
	said, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(said, make([]byte, len("started"))); err != nil {
		t.Fatalf("the recipe did not start: %v", err)
	}
	if len(processesIn(t, dir)) == 0 {
		t.Fatal("no process runs the recipe")
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := processesIn(t, dir)
		if len(left) == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("processes %v outlived their daemon", left)
		case <-tick.C:
		}
	}
}
