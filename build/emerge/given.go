package emerge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/worker"
)

// RootsConfig is what a Roots is made of.
type RootsConfig struct {
	Bases *base.Store
	// Dir is where cached roots and downloaded sources are kept.
	Dir string
	// Own is the machine's Portage, for host bases and for jobs that come
	// without a configuration; nil if the machine has none.
	Own *Portage
	// Quota is the most bytes that cached roots take; 0 = 20 GiB.
	Quota  int64
	Limits sandbox.Limits
	Log    *slog.Logger
	// Probed says that Probe went well in another process of this peer.
	Probed bool
}

// Roots builds every job in a root of its own: the job's base, its list of
// packages and nothing else, in a sandbox. It implements worker.Builder. Builds
// may run at once.
type Roots struct {
	cfg    RootsConfig
	layers *layerCache
	kept   kept

	mu       sync.Mutex
	portages map[string]*Portage // by digest of the base
	repos    []repo              // of Own
	unready  error               // why there are no sandboxes here; nil once Probe went well
}

var _ worker.Builder = (*Roots)(nil)

const defaultQuota = 20 << 30

// NewRoots makes a Roots. It does no I/O; Probe comes first.
func NewRoots(cfg RootsConfig) *Roots {
	if cfg.Quota == 0 {
		cfg.Quota = defaultQuota
	}
	r := &Roots{
		cfg: cfg, layers: &layerCache{filepath.Join(cfg.Dir, "layers"), cfg.Quota},
		portages: map[string]*Portage{},
	}
	if !cfg.Probed {
		r.unready = errors.New("whether builds can be isolated here is not known yet")
	}
	return r
}

// CanBuild says why a job cannot be built here, before it is claimed.
func (r *Roots) CanBuild(*build.Job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unready
}

// Cached says how many roots are cached, and the bytes they take.
func (r *Roots) Cached() (n int, bytes int64, err error) { return r.layers.sizes() }

// Build makes the package of one job. Errors are *build.Failure, except where
// Build could not do its own work.
func (r *Roots) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	if err := checkRequest(&req); err != nil {
		return worker.Result{}, err
	}
	if err := r.CanBuild(&req.Job); err != nil {
		return worker.Result{}, machine("%v", err)
	}
	m := &room{r: r, attempt: attempt{req: req, out: &output{log: req.Log, phase: req.Phase}}}
	defer m.leave()
	res, err := m.build(ctx)
	if err != nil && ctx.Err() != nil {
		return worker.Result{}, cancelled(ctx)
	}
	if m.out.err != nil {
		r.cfg.Log.Warn("build log incomplete", "cpv", req.Job.CPV.String(), "err", m.out.err)
	}
	return res, err
}

// room is one Build under way.
type room struct {
	attempt
	r     *Roots
	root  *base.Root
	p     *Portage // the base's
	list  []layerEntry
	held  *held             // the cached layers of the root
	trees func()            // lets the snapshots of repositories go; nil = none held
	repos map[string]string // directories inside: where they are outside
	setup time.Duration
}

// Where things lie inside.
const (
	inConfig = "/etc/portage"
	inRepos  = "/var/db/repos"
	inDist   = "/var/cache/distfiles"
	inPkgdir = "/var/cache/binpkgs"
	inTmp    = "/var/tmp"
	inLog    = "/var/log/portage"
)

func (m *room) build(ctx context.Context) (worker.Result, error) {
	m.phase("root")
	began := time.Now()
	if err := m.open(ctx); err != nil {
		return worker.Result{}, err
	}
	if err := m.checkBase(); err != nil {
		return worker.Result{}, err
	}
	opened := time.Since(began)
	m.phase("check")
	if err := m.compare(ctx); err != nil {
		return worker.Result{}, err
	}
	m.phase("root")
	began = time.Now()
	if err := m.fill(ctx); err != nil {
		return worker.Result{}, err
	}
	m.setup = opened + time.Since(began)
	if err := m.fetch(ctx); err != nil {
		return worker.Result{}, err
	}
	if err := m.emerge(ctx); err != nil {
		return worker.Result{}, err
	}
	if err := m.sameTree(ctx); err != nil { // somebody may have synced meanwhile
		return worker.Result{}, err
	}
	path, err := m.collect(ctx)
	if err != nil {
		return worker.Result{}, err
	}
	return worker.Result{
		Path: path, CoreMillis: m.cost.cpu.Milliseconds(), PeakMiB: m.cost.peakMiB, Inputs: m.inputs(m.files()), RootMillis: m.setup.Milliseconds(),
		Provisional: m.root.Manifest.Provisional(),
	}, nil
}

func (m *room) phase(name string) {
	if m.req.Phase != nil {
		m.req.Phase(name)
	}
}

func (m *room) leave() {
	m.held.give()
	if m.trees != nil {
		m.trees()
	}
}

// open brings the base here, lays out the job's directories and finds the
// cached root to start from.
func (m *room) open(ctx context.Context) (err error) {
	j := &m.req.Job
	if m.root, err = m.r.cfg.Bases.Open(ctx, m.req.Base); err != nil {
		return machine("%v", err)
	}
	if m.trees, err = HoldTrees(m.req.Repos); err != nil {
		return machine("%v", err)
	}
	for _, d := range []string{"mnt", "out", "packages", "config", "log", "run"} {
		if err := os.MkdirAll(m.dir(d), 0o755); err != nil {
			return prepare(j, err)
		}
	}
	for _, d := range []string{"tmp", "shm"} { // everybody's
		if err := errors.Join(os.MkdirAll(m.dir(d), 0o755), os.Chmod(m.dir(d), 0o1777)); err != nil {
			return prepare(j, err)
		}
	}
	if err := os.MkdirAll(m.dir(worker.SourceDir), 0o775); err != nil {
		return prepare(j, err)
	}
	if err := m.configure(ctx); err != nil {
		return err
	}
	for _, e := range j.Root.All() {
		if entry := entryOf(e); entry.From != "" {
			m.list = append(m.list, entry)
		}
	}
	if m.held, err = m.r.layers.take(m.root.Ref.Digest, m.list); err != nil {
		return prepare(j, err)
	}
	m.p, err = m.r.portage(ctx, m)
	return err
}

// prepare is an error of the directories that a build happens in: the machine's.
func prepare(j *build.Job, err error) error {
	f := machine("prepare the build of %s: %v", j.CPV, err)
	if errors.Is(err, syscall.ENOSPC) {
		f.SpaceMiB = build.Unsaid
	}
	return f
}

// checkBase compares what the job's root takes from its base with the base, and
// the compiler that the target has selected with the base's.
func (m *room) checkBase() error {
	has := make(map[build.CPV]string, len(m.root.Manifest.Packages))
	for _, p := range m.root.Manifest.Packages {
		has[p.CPV] = p.Slot
	}
	for _, e := range m.req.Job.Root.All() {
		if e.Key != "" || e.Seed != "" {
			continue
		}
		slot, ok := has[e.CPV]
		if !ok {
			return machine("the base %s lacks %s, which the root of %s takes from it", m.root.Ref.Name, e.CPV, m.req.Job.CPV)
		}
		want, err1 := build.ParseSlot(e.Slot)
		got, err2 := build.ParseSlot(slot)
		if err := errors.Join(err1, err2); err != nil || want != got {
			return machine("the base %s has %s in slot %s, the root of %s wants %s", m.root.Ref.Name, e.CPV, slot, m.req.Job.CPV, e.Slot)
		}
	}
	if m.req.Bundle == nil {
		return nil
	}
	for _, s := range m.req.Bundle.Selections {
		if s.Name != "gcc" {
			continue
		}
		if now := m.selectedGCC(); now != "" && now != s.Value {
			return machine("the base %s has the compiler %s selected, the target %s", m.root.Ref.Name, now, s.Value)
		}
	}
	return nil
}

// selectedGCC is what gcc-config has selected in the base, "" if it says nothing.
func (m *room) selectedGCC() string {
	for _, d := range m.root.Lower {
		b, err := os.ReadFile(filepath.Join(d, "etc/env.d/gcc/config-"+m.req.Bundle.CHOST))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CURRENT="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return ""
}

// lower are the layers of the root as it is now, the topmost first.
func (m *room) lower() []string { return append(m.r.layers.stack(m.held), m.root.Lower...) }

// database is where the packages of the root as it is now are found.
func (m *room) database(above ...string) []string {
	return slices.Concat(above, m.r.layers.stack(m.held), m.root.Database())
}

// spec is a run in the root: changes go to the directory fs below dir.
func (m *room) spec(dir, pkgdir string, args ...string) (sandbox.Spec, error) {
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		return sandbox.Spec{}, prepare(&m.req.Job, err)
	}
	s := sandbox.Spec{
		Lower: m.lower(), Machine: m.root.Machine, Upper: filepath.Join(dir, "fs"), Work: work, Mount: m.dir("mnt"),
		Args: args, Env: m.variables(), Dir: "/", Limits: m.r.cfg.Limits,
		Binds: []sandbox.Bind{
			{Source: m.dir("tmp"), Target: inTmp, Write: true}, {Source: m.dir("shm"), Target: "/tmp", Write: true},
			{Source: m.dir("config"), Target: inConfig}, {Source: m.dir(pkgdir), Target: inPkgdir, Write: true},
			{Source: m.dir("log"), Target: inLog, Write: true},
			{Source: m.dir(worker.SourceDir), Target: inDist},
		},
	}
	for _, in := range slices.Sorted(maps.Keys(m.repos)) {
		s.Binds = append(s.Binds, sandbox.Bind{Source: m.repos[in], Target: in})
	}
	return s, nil
}

// env is the environment of emerge. It is the same wherever the job is built,
// since Portage puts it into the package.
func (m *room) variables() []string {
	p := m.p
	if p == nil {
		p = &Portage{who: m.identity()}
	}
	// What Portage would isolate itself is done already, and proved.
	features := append(p.features(), "-network-sandbox", "-ipc-sandbox", "-pid-sandbox", "-mount-sandbox", "-cgroup")
	features = append(features, "-ccache", "-distcc", "-icecream") // see doc.go
	if p.who.portageUser {
		features = append(features, "userpriv") // as little as possible as root
	}
	return append(p.environment("", ""),
		"FEATURES="+strings.Join(features, " "),
		"PKGDIR="+inPkgdir, "PORTAGE_TMPDIR="+inTmp, "PORTAGE_LOGDIR="+inLog, "EMERGE_LOG_DIR="+inLog, "DISTDIR="+inDist,
		"MAKEOPTS=-j"+strconv.Itoa(max(m.req.Jobs, 1)), "INSTALL_MASK=-*", "PORTAGE_BINHOST=", "BINPKG_FORMAT=gpkg", "BINPKG_COMPRESS=zstd",
		"PORTAGE_ELOG_SYSTEM=save", "PORTAGE_ELOG_CLASSES=error",
	)
}

// identity is who Portage is inside.
func (m *room) identity() identity {
	id := identity{user: "root", group: "root"}
	for _, d := range m.database() {
		if b, err := os.ReadFile(filepath.Join(d, "etc/passwd")); err == nil {
			id.portageUser = bytes.HasPrefix(b, []byte("portage:")) || bytes.Contains(b, []byte("\nportage:"))
			break
		}
	}
	for _, d := range m.database() {
		if _, err := os.Stat(filepath.Join(d, "usr/bin/sandbox")); err == nil {
			id.sandbox = true
		}
	}
	return id
}

// run runs a program in the root and adds up what it cost.
func (m *room) run(ctx context.Context, s sandbox.Spec, std sandbox.Streams) (sandbox.Result, error) {
	res, err := sandbox.Run(ctx, s, std)
	m.cost.cpu += res.CPU
	m.cost.peakMiB = max(m.cost.peakMiB, res.PeakMiB)
	if rerr := removeTree(ctx, s.Work); err == nil && rerr != nil {
		err = rerr
	}
	switch {
	case ctx.Err() != nil:
		return res, cancelled(ctx)
	case err != nil:
		return res, machine("%v", err)
	case res.Crowded:
		return res, &build.Failure{Class: build.BadPackage, Reason: fmt.Sprintf("it started processes without end: ended at %d", m.r.cfg.Limits.Processes)}
	case res.OutOfMemory && res.Exit != 0:
		return res, machine("out of memory: the build wants more than it may have")
	}
	return res, nil
}

// runEmerge runs emerge in the root; its failures have their class.
func (m *room) runEmerge(ctx context.Context, s sandbox.Spec) error {
	m.out.reset()
	res, err := m.run(ctx, s, sandbox.Streams{Out: m.out})
	m.out.flush()
	if err != nil {
		return err
	}
	if len(res.Left) > 0 {
		m.out.say("%d processes were left running and have been ended: %s", len(res.Left), strings.Join(res.Left, ", "))
	}
	if res.Exit != 0 {
		return m.failed(res.Exit)
	}
	return nil
}

// compare asks the base's Portage what it would build for this job, in the root
// as it is before the rest of the list is added.
func (m *room) compare(ctx context.Context) error {
	var doc document
	if err := m.hear(&doc, m.ask(ctx, m.question(), &doc)); err != nil {
		return err
	}
	if err := m.sameTree(ctx); err != nil {
		return err
	}
	return m.judge("", m.files())
}

// sameTree declines where a job without a snapshot would be built from other
// repositories than it was planned on.
func (m *room) sameTree(ctx context.Context) error {
	if len(m.req.Repos) > 0 || m.req.Job.Tree == "" {
		return nil
	}
	repos := slices.Clone(m.attempt.env.Repos)
	for i := range repos {
		repos[i].Path = m.outside(repos[i].Path)
	}
	tree, err := m.p.treeOf(ctx, repos)
	if err != nil {
		return machine("%v", err)
	}
	if tree != m.req.Job.Tree {
		return errOtherTree
	}
	return nil
}

// ask runs the planner in the root.
func (m *room) ask(ctx context.Context, request any, into interface{ head() *reply }) error {
	in, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	s, err := m.scratch("packages", m.p.Python, "-c", plannerSource)
	if err != nil {
		return err
	}
	s.Env = append(s.Env, "SWARM_EMERGE="+m.p.who.script)
	var stderr bytes.Buffer
	out := &capped{buf: &bytes.Buffer{}, max: maxAnswer}
	res, err := m.run(ctx, s, sandbox.Streams{In: bytes.NewReader(in), Out: out, Err: &capped{buf: &stderr, max: 64 << 10, tail: true}})
	if err != nil {
		return err
	}
	var runErr error
	if res.Exit != 0 {
		runErr = fmt.Errorf("exit %d", res.Exit)
	}
	return answer(out, stderr.String(), runErr, into)
}

// scratch is a run whose changes to the root are for this job alone.
func (m *room) scratch(pkgdir string, args ...string) (sandbox.Spec, error) {
	dir := m.dir("scratch")
	if err := os.MkdirAll(filepath.Join(dir, "fs"), 0o755); err != nil {
		return sandbox.Spec{}, prepare(&m.req.Job, err)
	}
	return m.spec(dir, pkgdir, args...)
}

// fill adds to the root what it lacks of the job's list, as cached layers.
func (m *room) fill(ctx context.Context) error {
	given := make(map[build.CPV]worker.RootFile, len(m.req.Root))
	for _, f := range m.req.Root {
		given[f.Entry.CPV] = f
	}
	missing := m.missing()
	if len(missing) > 0 {
		// One root grows at a time: another job's may be what this one lacks.
		release, err := m.r.layers.takeTurn(ctx)
		if err != nil {
			return err
		}
		defer release()
		now, err := m.r.layers.take(m.root.Ref.Digest, m.list)
		if err != nil {
			return prepare(&m.req.Job, err)
		}
		m.held.give()
		m.held = now
		missing = m.missing()
	}
	for part := range slices.Chunk(missing, maxPerLayer) {
		var add []worker.RootFile
		for _, e := range part {
			f, ok := given[e.CPV]
			if !ok || f.Path == "" {
				return machine("the root of %s needs %s, whose package was not given", m.req.Job.CPV, e.CPV)
			}
			add = append(add, f)
		}
		if err := m.install(ctx, part, add); err != nil {
			return err
		}
	}
	packages, err := base.Packages(m.database()...)
	if err != nil {
		return prepare(&m.req.Job, err)
	}
	if err := m.checkRoot(packages); err != nil {
		return err
	}
	if top := m.held.top(); top != nil {
		if err := m.r.layers.rootOf(top, m.req.Job.Key); err != nil {
			m.r.cfg.Log.Warn("cache of roots", "error", err) // others will not know of it
		}
	}
	return nil
}

// missing is what of the list the root does not have yet, in order.
func (m *room) missing() []layerEntry {
	top := m.held.top()
	if top == nil {
		return m.list
	}
	return slices.DeleteFunc(slices.Clone(m.list), func(e layerEntry) bool { return slices.Contains(top.Entries, e) })
}

// install makes one layer more.
func (m *room) install(ctx context.Context, part []layerEntry, add []worker.RootFile) (err error) {
	tmp, err := m.r.layers.temp()
	if err != nil {
		return prepare(&m.req.Job, err)
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, removeTree(ctx, tmp))
		}
	}()
	m.out.say("installing %d packages into the root", len(add))
	began := time.Now()
	if err := m.merge(ctx, tmp, add); err != nil {
		if f, ok := errors.AsType[*build.Failure](err); ok && f.Class == build.BadPackage {
			// The package under test has not begun: this is not its fault.
			return machine("the root of %s cannot be filled: %s", m.req.Job.CPV, f.Reason)
		}
		return err
	}
	l := &layer{Base: m.root.Ref.Digest, Entries: part, Millis: time.Since(began).Milliseconds()}
	if top := m.held.top(); top != nil {
		l.Entries = slices.Concat(top.Entries, part)
	}
	// A root that is not what its list says is not kept for others.
	packages, err := base.Packages(m.database(filepath.Join(tmp, "fs"))...)
	if err != nil {
		return prepare(&m.req.Job, err)
	}
	if err := holds(packages, m.root.Manifest.Packages, l.Entries); err != nil {
		return machine("the root of %s: %v", m.req.Job.CPV, err)
	}
	now, err := m.r.layers.keep(ctx, tmp, l, m.held)
	if now == nil {
		return prepare(&m.req.Job, err)
	}
	m.held, kept = now, true
	if err != nil { // of making room
		m.r.cfg.Log.Warn("cache of roots", "error", err)
	}
	if err := errors.Join(os.RemoveAll(m.dir("packages")), os.Mkdir(m.dir("packages"), 0o755)); err != nil {
		return prepare(&m.req.Job, err)
	}
	return nil
}

// merge installs packages into the root: what changes goes to the directory fs
// below dir.
func (m *room) merge(ctx context.Context, dir string, add []worker.RootFile) error {
	args := []string{"--oneshot", "--usepkgonly", "--nodeps", "--noconfmem"}
	for _, f := range add {
		if err := m.offer(f); err != nil {
			return err
		}
		args = append(args, "="+f.Entry.CPV.String())
	}
	s, err := m.spec(dir, "packages", emergeWords(m.p.Emerge, args...)...)
	if err != nil {
		return err
	}
	// They were chosen by the plan; whether a person would be let is decided.
	s.Env = append(s.Env, "ACCEPT_KEYWORDS=**", "ACCEPT_LICENSE=*", "ACCEPT_PROPERTIES=*", "ACCEPT_RESTRICT=*", "CONFIG_PROTECT=-*")
	return m.runEmerge(ctx, s)
}

// holds compares a root with what it is to hold: the base's packages, each
// replaced by an entry of its slot, and the entries.
func holds(have map[build.CPV]base.Package, from []build.Installed, list []layerEntry) error {
	want := make(map[string]build.CPV) // by package and slot
	slots := make(map[build.CPV]build.Slot)
	put := func(c build.CPV, slot string) error {
		s, err := build.ParseSlot(slot)
		if err != nil {
			return err
		}
		if old, ok := want[c.CP()+":"+s.Slot]; ok {
			delete(slots, old)
		}
		want[c.CP()+":"+s.Slot], slots[c] = c, s
		return nil
	}
	for _, p := range from {
		if err := put(p.CPV, p.Slot); err != nil {
			return err
		}
	}
	for _, e := range list {
		if err := put(e.CPV, e.Slot); err != nil {
			return err
		}
	}
	var wrong []string
	for c, s := range slots {
		switch got, ok := have[c]; {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s is missing", c))
		case got.Slot != s:
			wrong = append(wrong, fmt.Sprintf("%s has slot %s, wanted %s", c, got.Slot, s))
		}
	}
	for c := range have {
		if _, ok := slots[c]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s is there and should not be", c))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("%s (%d differences in all)", wrong[0], len(wrong))
}

func (m *room) checkRoot(packages map[build.CPV]base.Package) error {
	if err := holds(packages, m.root.Manifest.Packages, m.list); err != nil {
		return machine("the root of %s: %v", m.req.Job.CPV, err)
	}
	return nil
}

// emerge builds the job's package.
func (m *room) emerge(ctx context.Context) error {
	j := &m.req.Job
	// What asking and fetching changed is not the build's.
	if err := removeTree(ctx, m.dir("scratch")); err != nil {
		return prepare(j, err)
	}
	m.out.say("building %s::%s", j.CPV, j.Repo)
	s, err := m.scratch("out", emergeWords(m.p.Emerge, "--oneshot", "--buildpkgonly", "--autounmask=n", "="+j.CPV.String()+"::"+j.Repo)...)
	if err != nil {
		return err
	}
	if m.p.observes() {
		s.Env = observing(s.Env)
		s.Binds = append(s.Binds, sandbox.Bind{Source: m.dir("run"), Target: inStatus, Write: true})
	}
	defer m.observe(ctx, m.p, m.dir("run"))()
	return m.runEmerge(ctx, s)
}
