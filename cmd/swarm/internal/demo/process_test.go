package demo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

func TestAPeerThatEndsByItselfIsNamedWithItsLastWord(t *testing.T) {
	dir := t.TempDir()
	p := &peer{name: "alpha", logs: filepath.Join(dir, "alpha.log"), ended: make(chan struct{}), client: control.NewClient(filepath.Join(dir, "none.sock"))}
	if err := os.WriteFile(p.logs, []byte("level=INFO msg=started\nswarm: error: no room\nswarm: hint: free some\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command("/bin/sh", "-c", "exit 1")
	if err := p.cmd.Run(); err == nil {
		t.Fatal("it did not fail")
	}
	close(p.ended)
	_, err := p.client.Info(context.Background())
	if got := p.explain(err); got == nil || got.Error() != "alpha has ended, and should not have: swarm: error: no room" {
		t.Errorf("got %v", got)
	}
	if p.running() {
		t.Error("it runs")
	}
	if err := p.kill(); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
	stop([]*peer{p, {name: "never started"}})
}

func TestNothingOfTheCallersSettingsReachesThePeers(t *testing.T) {
	t.Setenv("SWARM_STATE", "/somewhere")
	t.Setenv("HOME", "/home/x")
	env := strings.Join(environment(), "\n")
	if strings.Contains(env, "SWARM_") || !strings.Contains(env, "HOME=/home/x") {
		t.Error(env)
	}
}
