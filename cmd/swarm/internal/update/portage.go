package update

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build"
)

// Portage is the machine's own, as the person who typed the command has it:
// with that environment, and the default options of make.conf.
type Portage struct {
	Emerge  string
	EROOT   string   // "/" or a Prefix, with a slash at its end
	Config  string   // directory of etc/portage
	Protect []string // directories of CONFIG_PROTECT

	portageq string
}

// ErrNone is wrapped where there is no Portage to update with.
var ErrNone = errors.New("no Portage here")

// Find asks the emerge on PATH, or the one named, where it installs.
func Find(ctx context.Context, emerge string) (*Portage, error) {
	if emerge == "" {
		emerge = "emerge"
	}
	path, err := exec.LookPath(emerge)
	if err != nil {
		return nil, fmt.Errorf("%w: no program %q on PATH", ErrNone, emerge)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("find emerge: %w", err)
	}
	p := &Portage{Emerge: path, portageq: filepath.Join(filepath.Dir(path), "portageq")}
	if _, err := os.Stat(p.portageq); err != nil {
		if p.portageq, err = exec.LookPath("portageq"); err != nil {
			return nil, fmt.Errorf("%w: no portageq beside %s", ErrNone, path)
		}
	}
	for name, into := range map[string]func(string){
		"EROOT":              func(v string) { p.EROOT = v },
		"PORTAGE_CONFIGROOT": func(v string) { p.Config = v },
		"CONFIG_PROTECT":     func(v string) { p.Protect = strings.Fields(v) },
	} {
		v, err := p.query(ctx, "envvar", name)
		if err != nil {
			return nil, err
		}
		into(v)
	}
	if !filepath.IsAbs(p.EROOT) || !filepath.IsAbs(p.Config) {
		return nil, fmt.Errorf("%w: portageq does not say where it installs", ErrNone)
	}
	return p, nil
}

func (p *Portage) query(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.portageq, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask portageq %s: %w: %s", strings.Join(args, " "), err, build.OneLine(stderr.String(), 300))
	}
	return strings.TrimSpace(string(out)), nil
}

// World is the update that design and README speak of: binary packages that fit
// in USE and dependencies, else ebuilds. -G would reinstall what was compiled
// here, and miss rebuilds for a library's new subslot.
func World(more ...string) []string {
	return append([]string{"--update", "--deep", "--newuse", "--getbinpkg", "--binpkg-respect-use=y", "--binpkg-changed-deps=y",
		"--ask=n", "--color=n", "--nospinner"}, append(more, "@world")...)
}

// Pretend lists what an update would do, and what emerge said.
func (p *Portage) Pretend(ctx context.Context) ([]Task, string, error) {
	cmd := exec.CommandContext(ctx, p.Emerge, World("--pretend")...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, string(out), fmt.Errorf("emerge --pretend: %w", err)
	}
	return Tasks(string(out)), string(out), nil
}

// stopGrace is how long emerge has to end what it is at after SIGINT.
const stopGrace = 20 * time.Second

// Run updates. Everything that emerge prints goes to log, and each step to
// show. When ctx ends, emerge is asked to stop, as Ctrl-C would.
func (p *Portage) Run(ctx context.Context, log io.Writer, show func(Step)) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("run emerge: %w", err)
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, p.Emerge, World()...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = w, w
	// A group of its own: a Ctrl-C of the terminal comes by way of us, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	err = cmd.Start()
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("run emerge: %w", err)
	}
	lines := bufio.NewReaderSize(r, 64<<10)
	var rerr error
	for rerr == nil {
		var line []byte
		line, rerr = lines.ReadSlice('\n')
		if errors.Is(rerr, bufio.ErrBufferFull) {
			rerr = nil
		}
		if _, err := log.Write(line); err != nil && rerr == nil {
			rerr = fmt.Errorf("write the log: %w", err)
		}
		if s, ok := ParseStep(strings.TrimRight(string(line), "\n")); ok {
			show(s)
		}
	}
	if errors.Is(rerr, io.EOF) {
		rerr = nil
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("emerge: %w", err)
	}
	return errors.Join(err, rerr)
}

// Repo is a repository at a commit.
type Repo struct{ Name, Commit string }

// errTree is wrapped where a tree cannot be moved to a commit.
var errTree = errors.New("the tree cannot follow the release")

// Follow moves a repository's git checkout to a commit, older ones too. It
// reports whether it moved, and fails where there is no checkout, or where
// somebody changed files in it.
func (p *Portage) Follow(ctx context.Context, r Repo) (bool, error) {
	fail := func(format string, args ...any) (bool, error) {
		return false, fmt.Errorf("%w: %s: %s", errTree, build.OneLine(r.Name, 60), fmt.Sprintf(format, args...))
	}
	dir, err := p.query(ctx, "get_repo_path", p.EROOT, r.Name)
	if err != nil || dir == "" {
		return fail("no such repository here")
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		return fail("%s is no git checkout", dir)
	}
	now, err := git(ctx, dir, "rev-parse", "HEAD")
	if err != nil {
		return fail("%v", err)
	}
	if now == r.Commit {
		return false, nil
	}
	if changed, err := git(ctx, dir, "status", "--porcelain", "--untracked-files=no"); err != nil || changed != "" {
		return fail("%s has changes of its own: %s", dir, build.OneLine(changed, 100))
	}
	if _, err := git(ctx, dir, "cat-file", "-e", r.Commit+"^{commit}"); err != nil {
		if _, err := git(ctx, dir, "fetch", "--quiet", "origin", r.Commit); err != nil {
			return fail("fetch commit %.12s: %v", r.Commit, err)
		}
	}
	if _, err := git(ctx, dir, "reset", "--quiet", "--hard", r.Commit); err != nil {
		return fail("%v", err)
	}
	return true, nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	// The tree belongs to the user portage, and git would not speak of it.
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=" + dir, "-C", dir}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, build.OneLine(stderr.String(), 200))
	}
	return strings.TrimSpace(string(out)), nil
}
