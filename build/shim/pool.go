package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/build/worker"
)

const (
	// pollEvery is how often a shim's phase is read, and its end looked for at
	// the latest.
	pollEvery = 250 * time.Millisecond
	// endTime is how long a shim has to end its build when it is told to.
	endTime = 8 * time.Second
	// maxStderr of a shim that died is told.
	maxStderr = 400
)

// Config is what a Pool is made of.
type Config struct {
	// Program is the command line that runs Main; the job's directory follows.
	Program []string
	// Tools returns what the true builder of that name needs to know of this
	// machine.
	Tools func(build.Builder) ([]byte, error)
	Dir   string        // of the worker: jobs' directories are in it
	Keep  time.Duration // how long builds go on without a daemon
	Log   *slog.Logger
}

// Pool starts shims, finds those of an earlier process, and holds them back. It
// is safe for concurrent use.
type Pool struct {
	cfg      Config
	lock     *os.File
	group    *group // of cgroups; nil = none can be had
	lacks    string
	detached atomic.Bool

	mu    sync.Mutex
	level guest.Level
	procs map[build.Key]*process
}

// NewPool takes the lock that tells shims of this directory that a daemon is
// here.
func NewPool(cfg Config) (*Pool, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make work directory: %w", err)
	}
	lock, err := takeLock(lockPath(cfg.Dir))
	if err != nil {
		return nil, fmt.Errorf("take the lock of %s: %w", cfg.Dir, err)
	}
	p := &Pool{cfg: cfg, lock: lock, procs: map[build.Key]*process{}}
	p.group, p.lacks = findGroup(cfg.Dir)
	return p, nil
}

func lockPath(dir string) string { return filepath.Clean(dir) + ".lock" }

// takeLock waits a moment: a shim that just looked holds it for as long as that.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for range 100 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return f, nil
		}
		pause()
	}
	return nil, errors.Join(err, f.Close())
}

// Missing says what this machine lacks for holding back builds of a daemon whose
// work directory is dir; "" if nothing.
func Missing(dir string) string {
	_, lacks := findGroup(dir)
	return lacks
}

// Missing says what this machine lacks for holding builds back well; "" if
// nothing.
func (p *Pool) Missing() string { return p.lacks }

// Detach makes the next end of a build's context leave it running, for the
// daemon that comes after this one.
func (p *Pool) Detach() { p.detached.Store(true) }

// Close gives up the lock. Builds that still run are on their own from here.
func (p *Pool) Close() error {
	if p.group != nil {
		p.group.clean()
	}
	return p.lock.Close()
}

// SetLevel holds back all builds of this pool, those too that begin later.
func (p *Pool) SetLevel(l guest.Level) error {
	p.mu.Lock()
	p.level = l
	procs := make([]*process, 0, len(p.procs))
	for _, x := range p.procs {
		procs = append(procs, x)
	}
	p.mu.Unlock()
	var err error
	for _, x := range procs {
		err = errors.Join(err, x.restrain(l))
	}
	return err
}

// CPU is what the running builds have used so far.
func (p *Pool) CPU() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum time.Duration
	for _, x := range p.procs {
		sum += x.cpu()
	}
	return sum
}

// Used is what a running build has taken by now: its memory alone, since the worker
// knows what its directory takes.
func (b *builder) Used(k build.Key) guest.Need {
	b.pool.mu.Lock()
	x := b.pool.procs[k]
	b.pool.mu.Unlock()
	if x == nil {
		return guest.Need{}
	}
	return guest.Need{MemoryMiB: x.resident() >> 20}
}

// Builder stands for the true builder of a name, inner, which is asked for what it
// can tell without building; nil = nothing.
func (p *Pool) Builder(name build.Builder, inner worker.Builder) worker.Builder {
	return &builder{p, name, inner}
}

type builder struct {
	pool  *Pool
	name  build.Builder
	inner worker.Builder
}

var (
	_ worker.Resumer    = (*builder)(nil)
	_ worker.RootKeeper = (*builder)(nil)
)

// CanBuild asks the true builder, if it can be asked.
func (b *builder) CanBuild(j *build.Job) error {
	if c, ok := b.inner.(interface{ CanBuild(*build.Job) error }); ok {
		return c.CanBuild(j)
	}
	return nil
}

// KeptRoots asks the true builder, if it keeps any.
func (b *builder) KeptRoots() ([]build.Key, time.Duration) {
	if k, ok := b.inner.(worker.RootKeeper); ok {
		return k.KeptRoots()
	}
	return nil, 0
}

// Build starts a shim and waits for it.
func (b *builder) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	tools, err := b.pool.cfg.Tools(b.name)
	if err != nil {
		return worker.Result{}, fmt.Errorf("tell a build of its machine: %w", err)
	}
	dir := filepath.Dir(req.Dir)
	o := order{Request: req, Tools: tools, KeepMS: b.pool.cfg.Keep.Milliseconds(), Lock: lockPath(b.pool.cfg.Dir), StartedMS: time.Now().UnixMilli()}
	if err := writeFile(filepath.Join(dir, orderFile), &o); err != nil {
		return worker.Result{}, err
	}
	x, err := b.pool.start(dir, req.Job.Key)
	if err != nil {
		return worker.Result{}, err
	}
	return b.pool.await(ctx, x, req)
}

// Resume waits for a build that an earlier process started.
func (b *builder) Resume(ctx context.Context, req worker.Request) (worker.Result, error) {
	x, err := openProcess(filepath.Dir(req.Dir))
	if err != nil {
		return worker.Result{}, err
	}
	if x.pidfd >= 0 && b.pool.group != nil {
		x.cgroup = b.pool.group.of(x.pid)
	}
	b.pool.add(req.Job.Key, x)
	return b.pool.await(ctx, x, req)
}

func (p *Pool) add(k build.Key, x *process) {
	x.key = k
	p.mu.Lock()
	p.procs[k] = x
	level := p.level
	p.mu.Unlock()
	if level != guest.Full {
		if err := x.restrain(level); err != nil {
			p.cfg.Log.Warn("a build is not held back", "error", err)
		}
	}
}

// start starts a shim in its own session and, where there is one, cgroup.
func (p *Pool) start(dir string, k build.Key) (*process, error) {
	errs, err := os.Create(filepath.Join(dir, stderrFile))
	if err != nil {
		return nil, fmt.Errorf("start a build: %w", err)
	}
	defer errs.Close()
	attr := &os.ProcAttr{Dir: dir, Env: environment(), Files: []*os.File{nil, errs, errs}, Sys: &syscall.SysProcAttr{Setsid: true}}
	x := &process{dir: dir, pidfd: -1}
	if p.group != nil {
		cg, fd, err := p.group.make(k)
		if err != nil {
			p.cfg.Log.Warn("a build gets no cgroup of its own", "error", err)
		} else {
			defer fd.Close()
			x.cgroup = cg
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(fd.Fd())
		}
	}
	// Not os/exec: it ends what it starts with a context, and this is to outlive
	// the daemon.
	proc, err := os.StartProcess(p.cfg.Program[0], append(append([]string{"swarm"}, p.cfg.Program[1:]...), dir), attr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a build: %w", err), x.dropCgroup())
	}
	x.pid = proc.Pid
	if x.pidfd, err = unix.PidfdOpen(x.pid, 0); err != nil {
		err = errors.Join(fmt.Errorf("start a build: %w", err), proc.Kill())
		_, werr := proc.Wait()
		return nil, errors.Join(err, werr)
	}
	p.add(k, x)
	return x, proc.Release()
}

// environment of a shim: this process's, without what is a setting of it.
func environment() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SWARM_") {
			out = append(out, kv)
		}
	}
	return out
}

// await follows a shim to its end. When ctx ends, so does the build, except
// after Detach.
func (p *Pool) await(ctx context.Context, x *process, req worker.Request) (worker.Result, error) {
	defer func() {
		p.mu.Lock()
		delete(p.procs, req.Job.Key)
		p.mu.Unlock()
		x.close()
	}()
	phase := ""
	for !x.ended(pollEvery) {
		if name, err := os.ReadFile(filepath.Join(x.dir, phaseFile)); err == nil && string(name) != phase {
			if phase = string(name); req.Phase != nil {
				req.Phase(phase)
			}
		}
		if ctx.Err() == nil {
			continue
		}
		if p.detached.Load() && !worker.Stopped(ctx) {
			return worker.Result{}, worker.ErrDetached
		}
		if err := x.end(); err != nil {
			return worker.Result{}, fmt.Errorf("end the build in %s: %w", x.dir, err)
		}
	}
	// Whatever the build left behind goes with it.
	err := errors.Join(x.killTree(), x.dropCgroup())
	if err != nil {
		p.cfg.Log.Warn("a build left something behind", "dir", x.dir, "error", err)
	}
	res, err := readResult(x.dir)
	if err != nil && ctx.Err() != nil {
		return worker.Result{}, &build.Failure{Class: build.Cancelled, Reason: "cancelled"}
	}
	return res, err
}

func readResult(dir string) (worker.Result, error) {
	var r result
	switch err := readFile(filepath.Join(dir, resultFile), &r); {
	case errors.Is(err, os.ErrNotExist):
		return worker.Result{}, &build.Failure{Class: build.BadMachine, Reason: build.OneLine("the build's process ended without a result: "+tail(filepath.Join(dir, stderrFile)), maxStderr)}
	case err != nil:
		return worker.Result{}, err
	case r.Class != "":
		return r.Result, &build.Failure{Class: r.Class, Reason: r.Reason, SpaceMiB: r.SpaceMiB}
	case r.Err != "":
		return r.Result, errors.New(r.Err)
	}
	return r.Result, nil
}

// tail is the end of a small text.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxStderr {
		if _, err := f.Seek(-maxStderr, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxStderr))
	if err != nil {
		return err.Error()
	}
	if len(b) == 0 {
		return "it was killed"
	}
	return strings.TrimSpace(string(b))
}

// Surviving lists the builds of an earlier process below the pool's directory
// that still run, or ended and were not yet reported, with when they began.
// What else is there is litter.
func (p *Pool) Surviving() ([]worker.Survivor, error) {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("look for builds of an earlier process: %w", err)
	}
	var out []worker.Survivor
	for _, e := range entries {
		dir := filepath.Join(p.cfg.Dir, e.Name())
		var o order
		if !e.IsDir() || readFile(filepath.Join(dir, orderFile), &o) != nil || filepath.Dir(o.Request.Dir) != dir || !o.Request.Job.Key.Valid() {
			continue
		}
		x, err := openProcess(dir)
		if err != nil {
			continue
		}
		if x.pidfd >= 0 || hasResult(dir) {
			out = append(out, worker.Survivor{Request: o.Request, Began: time.UnixMilli(o.StartedMS)})
		}
		x.close()
	}
	if p.group != nil {
		p.group.clean()
	}
	return out, nil
}

func hasResult(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, resultFile))
	return err == nil
}
