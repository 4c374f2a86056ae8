package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// self is the program that is executed again, and name what it is called then.
const (
	self = "/proc/self/exe"
	name = "swarm-sandbox"
	// firstStage has no ids yet: see becomeRoot.
	firstStage = "map"
)

// Descriptors that init is given, after the standard three.
const (
	orderFD  = 3 // what to do
	lifeFD   = 4 // closed when the caller is gone
	reportFD = 5 // what came of it
)

// grace is how long a program has to end after SIGTERM.
const grace = 2 * time.Second

// Streams are a program's standard input and output; each may be nil, and Err
// is Out then.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Run runs a program in a sandbox and returns when it and everything it started
// is gone. Errors wrap ErrSetup where nothing ran; the
// program's own failure is in Result.Exit. When ctx ends the program is told
// (SIGTERM), then killed, and the error is the context's.
func Run(ctx context.Context, s Spec, io Streams) (Result, error) {
	if err := s.check(); err != nil {
		return Result{}, err
	}
	o := order{Spec: s, User: rootless(), MaxOpen: 1 << 16}
	if s.Limits.Processes > 0 {
		o.PIDMax = max(s.Limits.Processes, 400)
	}
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if !s.Network {
		flags |= unix.CLONE_NEWNET
	}
	return start(ctx, o, flags, io)
}

// Do runs one of Main's operations with the ids that sandboxes have: what an
// ordinary user's builds left belongs to ids that he cannot touch himself. As
// root it runs the operation in a process of its own all the same.
func Do(ctx context.Context, op, arg string, in io.Reader, out io.Writer) error {
	o := order{Op: op, Op1: arg, User: rootless()}
	_, err := start(ctx, o, unix.CLONE_NEWPID, Streams{In: in, Out: out})
	return err
}

// rootless reports that namespaces take a user namespace here.
func rootless() bool { return os.Geteuid() != 0 }

func start(ctx context.Context, o order, flags uintptr, std Streams) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if std.Out == nil {
		std.Out = io.Discard
	}
	var p pipes
	defer p.close()
	if err := p.open(); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	group, err := newGroup(o.Limits)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	defer group.remove()
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = []string{name}
	if o.User {
		cmd.Args = append(cmd.Args, firstStage)
	}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = std.In, p.outW, p.outW
	if std.Err != nil {
		cmd.Stderr = p.errW
	}
	cmd.ExtraFiles = []*os.File{p.orderR, p.lifeR, p.reportW}
	attr := &syscall.SysProcAttr{Setpgid: true, Cloneflags: flags}
	if o.User {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.AmbientCaps = []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}
	}
	group.join(attr)
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	if err := launch(cmd); err != nil {
		return Result{}, fmt.Errorf("%w: make namespaces: %w", ErrSetup, explain(err))
	}
	p.closeTheirs()
	copied := make(chan error, 2)
	for r, w := range map[*os.File]io.Writer{p.outR: std.Out, p.errR: std.Err} {
		go func() {
			if w == nil {
				w = io.Discard
			}
			_, err := io.Copy(w, r)
			copied <- err
		}()
	}
	told := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(p.reportR, 1<<20)) // what is missing shows as a report that does not parse
		told <- b
	}()
	sendErr := give(ctx, &o, cmd.Process.Pid, p.orderW)
	if sendErr != nil {
		_ = cmd.Process.Kill() // it waits for an order that does not come
	}
	waitErr := cmd.Wait()
	group.kill()
	// Everything in the namespace is gone, so that the pipes end; a process
	// that somehow kept one may not hold up the caller.
	deadline := time.Now().Add(grace)
	_ = p.outR.SetReadDeadline(deadline)
	_ = p.errR.SetReadDeadline(deadline)
	_ = p.reportR.SetReadDeadline(deadline)
	copyErr := errors.Join(<-copied, <-copied)
	var r report
	parseErr := json.Unmarshal(<-told, &r)
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	switch {
	case sendErr != nil:
		return Result{}, fmt.Errorf("%w: %w", ErrSetup, sendErr)
	case parseErr != nil:
		return Result{}, fmt.Errorf("init of the sandbox ended without a word: %w", errors.Join(waitErr, parseErr))
	case r.Error != "" && o.Op != "":
		return Result{}, errors.New(r.Error)
	case r.Error != "":
		return Result{}, fmt.Errorf("%w: %s", ErrSetup, r.Error)
	case copyErr != nil && !errors.Is(copyErr, os.ErrDeadlineExceeded):
		return Result{}, fmt.Errorf("read output: %w", copyErr)
	}
	res := Result{Exit: r.Exit, Left: r.Left, CPU: time.Duration(r.CPUms) * time.Millisecond, PeakMiB: r.PeakMi, Crowded: r.Crowded}
	group.account(&res)
	return res, nil
}

// launch starts a process from a thread of its own, since the attributes of a
// namespace belong to threads.
func launch(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Start()
}

// give maps the ids, if there are ids to map, and sends the order: init waits
// for it, so that it does nothing before.
func give(ctx context.Context, o *order, pid int, to *os.File) error {
	if o.User {
		if err := mapIDs(ctx, pid); err != nil {
			return err
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = to.Write(b)
	return errors.Join(err, to.Close())
}

// explain adds what a person can do about a refusal to make namespaces.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (the kernel or a container forbids namespaces here)", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w (sysctl user.max_user_namespaces and its like are 0)", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (the kernel lacks a kind of namespace)", err)
	}
	return err
}

// pipes are the ones between caller and init.
type pipes struct {
	orderR, orderW, lifeR, lifeW, reportR, reportW, outR, outW, errR, errW *os.File
}

func (p *pipes) open() (err error) {
	for _, x := range []struct{ r, w **os.File }{{&p.orderR, &p.orderW}, {&p.lifeR, &p.lifeW}, {&p.reportR, &p.reportW}, {&p.outR, &p.outW}, {&p.errR, &p.errW}} {
		if *x.r, *x.w, err = os.Pipe(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipes) closeTheirs() {
	for _, f := range []*os.File{p.orderR, p.lifeR, p.reportW, p.outW, p.errW} {
		_ = f.Close() // our copies of init's ends
	}
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.orderR, p.orderW, p.lifeR, p.lifeW, p.reportR, p.reportW, p.outR, p.outW, p.errR, p.errW} {
		if f != nil {
			_ = f.Close() // most are closed already
		}
	}
}

// Output runs a program and returns what it printed, at most max bytes of it.
func Output(ctx context.Context, s Spec, in io.Reader, max int) (Result, []byte, error) {
	var b bytes.Buffer
	res, err := Run(ctx, s, Streams{In: in, Out: &limited{&b, max}})
	return res, b.Bytes(), err
}

type limited struct {
	b   *bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.b.Len(); room < len(p) {
		l.b.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.b.Write(p)
}

// oneLine makes text fit a line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
