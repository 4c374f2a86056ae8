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
	Key     build.Key
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
	Failed    []Tested `cbor:"failed,omitempty"`
	// Untried are wanted packages that could not be tried: what they need is neither
	// in the base nor in the release (a consumer has it installed), or they refuse a
	// machine like this one.
	Untried []Tested `cbor:"untried,omitempty"`
}

// Tested is one package of a test, and what is to be said of it in a line.
type Tested struct {
	Key    build.Key `cbor:"key"`
	CPV    build.CPV `cbor:"cpv"`
	Reason string    `cbor:"why"`
}

func (o *Offered) tested(format string, args ...any) Tested {
	return Tested{o.Key, o.CPV, build.OneLine(fmt.Sprintf(format, args...), 300)}
}

// maxQuestions bounds how often emerge is asked in one test what it would install.
const maxQuestions = 60

// maxListing bounds what emerge may say about what it would install, in bytes.
const maxListing = 16 << 20

var (
	// binaryTask is a line of emerge --pretend.
	binaryTask = regexp.MustCompile(`(?m)^\[binary[^\]]*\] ([^\s:]+)`)
	// blockLine is of packages that cannot be installed beside another one.
	blockLine = regexp.MustCompile(`(?m)^\[blocks B[^\n]* is (?:hard|soft) blocking ([^)\n]+)\)`)
	// asksFor ends the chain of those that need what is not there.
	asksFor = regexp.MustCompile(`dependency required by "(=[^"]+)" \[argument\]`)
)

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
	log := &merges{to: t.Log}
	m := &room{r: r, attempt: attempt{
		req: worker.Request{Dir: dir, Log: log, Jobs: 1, Base: t.Base, Bundle: t.Bundle, Repos: t.Repos}, out: &output{log: log},
	}}
	defer m.leave()
	if err := m.open(ctx); err != nil {
		return rep, err
	}
	if err := os.MkdirAll(m.dir(releaseDir), 0o755); err != nil {
		return rep, fmt.Errorf("prepare an install test: %w", err)
	}
	test := installing{room: m, test: &t, log: log, rep: &rep}
	for len(t.Offered) > 0 {
		now, later := onePerSlot(t.Offered)
		if len(now) == 0 {
			break
		}
		if err := test.all(ctx, now); err != nil {
			return rep, err
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

// installing is an install test under way.
type installing struct {
	*room
	test  *InstallTest
	log   *merges
	rep   *InstallReport
	asked int // times that emerge was asked what it would install
}

// all installs packages into a fresh root. What emerge says to lack something is
// left out, and what blocks others is tried apart. Where emerge names nobody, each
// half is tried on its own: then files that collide may not be found.
func (i *installing) all(ctx context.Context, want []Offered) error {
	for len(want) > 0 {
		if err := removeTree(ctx, i.dir("scratch")); err != nil {
			return fmt.Errorf("empty the root of an install test: %w", err)
		}
		said, ok, err := i.pretend(ctx, want)
		if err != nil {
			return err
		}
		if !ok {
			i.out.say("not all of %d packages of a release can be installed into a fresh root:", len(want))
			_, _ = i.out.Write(said) // a log
			why := "it does not resolve in a fresh root: " + classify(said).Reason
			lacking, blocking, rest := splitOff(want, said)
			switch {
			case len(lacking) > 0:
				i.untried(lacking, why)
				want = rest
				continue
			case len(blocking) > 0 && len(rest) > 0:
				if err := i.all(ctx, blocking); err != nil {
					return err
				}
				want = rest
				continue
			case len(want) == 1 || i.asked >= maxQuestions:
				i.untried(want, why)
				return nil
			}
			return errors.Join(i.all(ctx, want[:len(want)/2]), i.all(ctx, want[len(want)/2:]))
		}
		return i.install(ctx, string(said), want)
	}
	return nil
}

// splitOff parts from packages those for which emerge says that something is not
// there, or else those that it says to block others.
func splitOff(want []Offered, said []byte) (lacking, blocking, rest []Offered) {
	lacks, blocks := map[string]bool{}, map[string]bool{}
	for _, m := range asksFor.FindAllSubmatch(said, -1) {
		lacks[string(m[1])] = true
	}
	for _, m := range blockLine.FindAllSubmatch(said, -1) {
		for name := range strings.SplitSeq(string(m[1]), ", ") {
			blocks["="+name] = true
		}
	}
	for _, o := range want {
		switch {
		case lacks[o.atom()]:
			lacking = append(lacking, o)
		case len(lacks) == 0 && (blocks[o.atom()] || blocks["="+o.CPV.String()]):
			blocking = append(blocking, o)
		default:
			rest = append(rest, o)
		}
	}
	return lacking, blocking, rest
}

func (i *installing) untried(list []Offered, why string) {
	for _, o := range list {
		i.rep.Untried = append(i.rep.Untried, o.tested("%s", why))
	}
}

// pretend asks emerge what it would install, and whether it can.
func (i *installing) pretend(ctx context.Context, want []Offered) (said []byte, ok bool, err error) {
	i.asked++
	// Portage rewrites the index when it installs.
	if err := os.WriteFile(filepath.Join(i.dir(releaseDir), "Packages"), i.test.Index, 0o644); err != nil {
		return nil, false, fmt.Errorf("prepare an install test: %w", err)
	}
	s, err := i.command(want, "--pretend")
	if err != nil {
		return nil, false, err
	}
	res, said, err := sandbox.Output(ctx, s, nil, maxListing)
	return said, res.Exit == 0, errors.Join(err, removeTree(ctx, s.Work))
}

// command is a run of emerge that installs.
func (i *installing) command(want []Offered, more ...string) (sandbox.Spec, error) {
	args := append(more, "--oneshot", "--usepkgonly", "--autounmask=n", "--keep-going")
	for k := range want {
		args = append(args, want[k].atom())
	}
	s, err := i.scratch(releaseDir, emergeWords(i.p.Emerge, args...)...)
	for k, kv := range s.Env {
		if strings.HasPrefix(kv, "FEATURES=") { // the index is the release's, files are brought as needed
			s.Env[k] = kv + " pkgdir-index-trusted"
		}
	}
	s.Env = append(s.Env, "ACCEPT_PROPERTIES=*", "ACCEPT_RESTRICT=*", "CONFIG_PROTECT=-*")
	return s, err
}

// install installs what emerge said it would, and judges what became of each
// package.
func (i *installing) install(ctx context.Context, said string, want []Offered) error {
	planned, err := i.bring(ctx, i.test, said)
	if err != nil {
		return err
	}
	s, err := i.command(want)
	if err != nil {
		return err
	}
	i.out.say("installing %d packages of a release into a fresh root", len(planned))
	i.log.reset(planned)
	failure := i.runEmerge(ctx, s)
	if ctx.Err() != nil {
		return machine("the time ran out while %s was installed", i.log.at())
	}
	f, ok := errors.AsType[*build.Failure](failure)
	if failure != nil && (!ok || f.Class != build.BadPackage && len(i.log.of) == 0) {
		return failure // this machine's
	}
	have, err := base.Packages(i.database(filepath.Join(i.dir("scratch"), "fs"))...)
	if err != nil {
		return fmt.Errorf("look at what was installed: %w", err)
	}
	there := func(o *Offered) (at string, ok bool) {
		got, ok := have[o.CPV]
		return got.Slot.String(), ok
	}
	v, err := judge(planned, want, i.log, there, f)
	if err != nil {
		return err
	}
	i.rep.Installed += v.installed
	i.rep.Failed = append(i.rep.Failed, v.failed...)
	i.rep.Untried = append(i.rep.Untried, v.untried...)
	return nil
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
