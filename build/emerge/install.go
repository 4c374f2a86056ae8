package emerge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/worker"
)

// InstallTest is a release that is to be installed into a fresh root: its base
// and nothing else, with the target's configuration, in a sandbox without a
// network.
type InstallTest struct {
	Base   build.BaseRef
	Bundle *build.Bundle
	Repos  map[string]string // as in worker.Request
	// Index is the release's Packages file, and Offered what it lists.
	Index   []byte
	Offered []Offered
	// Bring writes the package at a path of the index into a file.
	Bring func(ctx context.Context, path, file string) error
	Log   io.Writer
}

// Offered is one package of an index.
type Offered struct {
	CPV     build.CPV
	Slot    string
	BuildID uint32
	Path    string
	Want    bool // it is to be installed; others come in where those need them
}

func (o *Offered) atom() string { return fmt.Sprintf("=%s-%d", o.CPV, o.BuildID) }

// InstallReport is what an InstallTest came to.
type InstallReport struct {
	Installed int      `cbor:"installed"` // packages, with those that they need
	Failed    []string `cbor:"failed,omitempty"`
	// Untried says why some could not be tried: what they need is neither in the
	// base nor in the release (a consumer has it installed).
	Untried string `cbor:"untried,omitempty"`
}

// maxListing bounds what emerge may say about what it would install, in bytes.
const maxListing = 16 << 20

// binaryTask is a line of emerge --pretend.
var binaryTask = regexp.MustCompile(`(?m)^\[binary[^\]]*\] ([^\s:]+)`)

// TryInstall installs what is wanted of a release with emerge --usepkgonly, and
// compares what is installed then with what emerge said it would install. Two
// packages of one slot go into two roots. One test runs at a time. Errors are
// those of this machine: they say nothing about the release.
func (r *Roots) TryInstall(ctx context.Context, t InstallTest) (rep InstallReport, err error) {
	if err := r.CanBuild(nil); err != nil {
		return rep, machine("%v", err)
	}
	dir := filepath.Join(r.cfg.Dir, "install-test")
	if err := removeTree(ctx, dir); err != nil {
		return rep, fmt.Errorf("prepare an install test: %w", err)
	}
	defer func() { err = errors.Join(err, removeTree(ctx, dir)) }()
	dead := &deaths{to: t.Log, of: map[string]string{}}
	m := &room{r: r, attempt: attempt{
		req: worker.Request{Dir: dir, Log: dead, Jobs: 1, Base: t.Base, Bundle: t.Bundle, Repos: t.Repos}, out: &output{log: dead},
	}}
	defer m.leave()
	if err := m.open(ctx); err != nil {
		return rep, err
	}
	if err := os.MkdirAll(m.dir(releaseDir), 0o755); err != nil {
		return rep, fmt.Errorf("prepare an install test: %w", err)
	}
	for len(t.Offered) > 0 {
		now, later := onePerSlot(t.Offered)
		if len(now) == 0 {
			break
		}
		if err := m.tryInstall(ctx, &t, now, dead, &rep); err != nil {
			return rep, err
		}
		if err := removeTree(ctx, m.dir("scratch")); err != nil {
			return rep, fmt.Errorf("empty the root of an install test: %w", err)
		}
		t.Offered = later
	}
	return rep, nil
}

// releaseDir is the PKGDIR of a test: the index, and the packages that are used.
const releaseDir = "release"

// onePerSlot picks wanted packages that can be installed beside one another, and
// returns all offers with these no longer wanted.
func onePerSlot(all []Offered) (now []Offered, rest []Offered) {
	taken := map[string]bool{}
	rest = slices.Clone(all)
	for i := range rest {
		slot, _, _ := strings.Cut(rest[i].Slot, "/")
		if at := rest[i].CPV.CP() + ":" + slot; rest[i].Want && !taken[at] {
			taken[at], rest[i].Want = true, false
			now = append(now, all[i])
		}
	}
	return now, rest
}

// tryInstall installs into one fresh root.
func (m *room) tryInstall(ctx context.Context, t *InstallTest, want []Offered, dead *deaths, rep *InstallReport) error {
	// Portage rewrites the index when it installs.
	if err := os.WriteFile(filepath.Join(m.dir(releaseDir), "Packages"), t.Index, 0o644); err != nil {
		return fmt.Errorf("prepare an install test: %w", err)
	}
	args := []string{"--oneshot", "--usepkgonly", "--autounmask=n", "--keep-going"}
	for i := range want {
		args = append(args, want[i].atom())
	}
	run := func(more ...string) (sandbox.Spec, error) {
		s, err := m.scratch(releaseDir, emergeWords(m.p.Emerge, append(more, args...)...)...)
		for i, kv := range s.Env {
			if strings.HasPrefix(kv, "FEATURES=") { // the index is the release's, files are brought as needed
				s.Env[i] = kv + " pkgdir-index-trusted"
			}
		}
		s.Env = append(s.Env, "ACCEPT_PROPERTIES=*", "ACCEPT_RESTRICT=*", "CONFIG_PROTECT=-*")
		return s, err
	}
	s, err := run("--pretend")
	if err != nil {
		return err
	}
	res, said, err := sandbox.Output(ctx, s, nil, maxListing)
	if err = errors.Join(err, removeTree(ctx, s.Work)); err != nil {
		return err
	}
	if res.Exit != 0 {
		rep.Untried = build.OneLine("emerge cannot resolve it in a fresh root: "+classify(said).Reason, 300)
		return nil
	}
	planned, err := m.bring(ctx, t, string(said))
	if err != nil {
		return err
	}
	if s, err = run(); err != nil {
		return err
	}
	m.out.say("installing %d packages of a release into a fresh root", len(planned))
	failure := m.runEmerge(ctx, s)
	f, ok := errors.AsType[*build.Failure](failure)
	if failure != nil && (!ok || f.Class != build.BadPackage) {
		return failure // this machine's
	}
	have, err := base.Packages(m.database(filepath.Join(m.dir("scratch"), "fs"))...)
	if err != nil {
		return fmt.Errorf("look at what was installed: %w", err)
	}
	for _, o := range planned {
		got, there := have[o.CPV]
		slot, serr := build.ParseSlot(o.Slot)
		why, died := dead.of[o.CPV.String()] // of its postinst phase emerge makes little
		switch {
		case died:
			rep.Failed = append(rep.Failed, build.OneLine(fmt.Sprintf("%s: %s", o.CPV, why), 300))
		case there && serr == nil && got.Slot == slot:
			rep.Installed++
		case there:
			rep.Failed = append(rep.Failed, fmt.Sprintf("%s is installed in slot %s, the release says %s", o.CPV, got.Slot, o.Slot))
		case f != nil:
			rep.Failed = append(rep.Failed, build.OneLine(fmt.Sprintf("%s: %s", o.CPV, f.Reason), 300))
		default:
			rep.Failed = append(rep.Failed, o.CPV.String()+" is not there after emerge ended well")
		}
	}
	return nil
}

// deaths notes which packages' phases failed, and how, while a log is written.
type deaths struct {
	to   io.Writer
	of   map[string]string // by CPV
	last string            // package whose reason comes in the next line
}

// Write takes one line: so output gives them.
func (d *deaths) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	switch m := diedRE.FindStringSubmatch(line); {
	case m != nil:
		d.last, _, _ = strings.Cut(m[1], "::")
		d.of[d.last] = m[2] + " phase"
	case d.last != "":
		if why := strings.TrimSpace(strings.TrimPrefix(line, "*")); why != "" {
			d.of[d.last] += ": " + why
		}
		d.last = ""
	}
	return d.to.Write(b)
}

// bring puts the packages that emerge said it would install into their places.
func (m *room) bring(ctx context.Context, t *InstallTest, said string) (planned []Offered, err error) {
	by := make(map[string]*Offered, len(t.Offered))
	for i := range t.Offered {
		by[strings.TrimPrefix(t.Offered[i].atom(), "=")] = &t.Offered[i]
	}
	for _, task := range binaryTask.FindAllStringSubmatch(said, -1) {
		o := by[task[1]]
		if o == nil {
			return nil, machine("emerge would install %s, which the release does not list", build.OneLine(task[1], 200))
		}
		if !filepath.IsLocal(o.Path) {
			return nil, machine("the release has %s at %q", o.CPV, build.OneLine(o.Path, 200))
		}
		planned = append(planned, *o)
		to := filepath.Join(m.dir(releaseDir), o.Path)
		if _, err := os.Stat(to); err == nil {
			continue
		}
		if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = t.Bring(ctx, o.Path, to)
		}
		if err != nil {
			return nil, fmt.Errorf("bring %s for an install test: %w", o.CPV, err)
		}
	}
	if len(planned) == 0 {
		return nil, machine("emerge says nothing about what it would install: %s", lastLine(said))
	}
	return planned, nil
}
