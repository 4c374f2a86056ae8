package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// peer is one process of the swarm with its own directory.
type peer struct {
	name   string
	state  string
	socket string
	logs   string
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	client *control.Client
	info   control.Info
}

// environment of a process: nothing of ours that could be a setting.
func environment() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SWARM_") {
			out = append(out, kv)
		}
	}
	return out
}

// swarm runs a command of this binary to its end and returns what it printed.
func swarm(ctx context.Context, self string, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("swarm %s: %w: %s", args[0], err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// start starts a daemon and waits until its control socket answers.
func (d *demo) start(ctx context.Context, p *peer, extra ...string) error {
	log, err := os.Create(p.logs)
	if err != nil {
		return fmt.Errorf("make the log of %s: %w", p.name, err)
	}
	defer log.Close()
	args := append([]string{"run", "--config", os.DevNull, "--state", p.state, "--socket", p.socket, "--nick", p.name,
		"--listen", "/ip4/127.0.0.1/tcp/0", "--gateway", "127.0.0.1:0", "--direct", "127.0.0.1:0", "--jobs", "1", "--keep-builds", "0", "--mdns=false", "--target", d.target}, extra...)
	cmd := exec.Command(d.self, args...)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that an interrupt at the terminal reaches this
	// program first and it ends the swarm in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.ended, p.client = cmd, make(chan struct{}), control.NewClient(p.socket)
	ended := p.ended
	go func() {
		// How it ended is for the log; that it ended is what counts here.
		_ = cmd.Wait()
		close(ended)
	}()
	for {
		if p.info, err = p.client.Info(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return fmt.Errorf("%s did not start: %s", p.name, lastLine(p.logs))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "swarm: error") {
			return l
		}
	}
	return lines[len(lines)-1]
}

// explain says when a peer does not answer since its process has ended.
func (p *peer) explain(err error) error {
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Kind != control.KindUnreachable {
		return err
	}
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended, and should not have: %s", p.name, lastLine(p.logs))
	case <-time.After(time.Second):
		return fmt.Errorf("%s does not answer: %s", p.name, e.Message)
	}
}

// running reports whether the process is there.
func (p *peer) running() bool {
	if p.ended == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *peer) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// kill is a power cut: SIGKILL, no farewell. What the process had started dies
// with it.
func (p *peer) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.ended
	return nil
}

// stopTime is how long a daemon may take to end, twice what it should.
const stopTime = 10 * time.Second

// stop asks all processes to end, at once, and kills those that do not.
func stop(peers []*peer) {
	for _, p := range peers {
		if p.running() {
			// The process may end by itself between the look and the signal.
			_ = p.signal(syscall.SIGTERM)
		}
	}
	late := time.After(stopTime)
	for _, p := range peers {
		if p.ended == nil {
			continue
		}
		select {
		case <-p.ended:
		case <-late:
			late = closed() // those behind it had their time, too
			_ = p.signal(syscall.SIGKILL)
			<-p.ended
		}
	}
}

func closed() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}
