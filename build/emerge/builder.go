package emerge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/worker"
)

// Builder builds real ebuilds. It implements worker.Builder. Builds in one
// root follow one another: callers may call Build concurrently, and wait.
type Builder struct {
	p    *Portage
	log  *slog.Logger
	turn chan struct{}
}

var _ worker.Builder = (*Builder)(nil)

// NewBuilder makes a builder on a Portage that answered Detect. It starts
// nothing and touches no file.
func NewBuilder(p *Portage, log *slog.Logger) *Builder {
	return &Builder{p: p, log: log, turn: make(chan struct{}, 1)}
}

// attempt is what every build has, wherever it happens.
type attempt struct {
	req   worker.Request
	out   *output
	cost  usage
	facts *node
	env   *environment
}

// task is one Build in place under way.
type task struct {
	attempt
	b       *Builder
	conf    string // PORTAGE_CONFIGROOT of this job
	eprefix string
}

// Build makes the package of one job: it checks that this machine's
// configuration and trees are those that the job's key was made of, brings the
// root to exactly the job's list (or, in place, adds what is missing), builds
// with "emerge --buildpkgonly" and checks the result against the job. Errors
// are *build.Failure, except where Build could not do its own work.
func (b *Builder) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	if err := checkRequest(&req); err != nil {
		return worker.Result{}, err
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return worker.Result{}, cancelled(ctx)
	}
	unlock, err := b.lockRoot(ctx)
	if err != nil {
		return worker.Result{}, err
	}
	defer unlock()
	t := &task{b: b, attempt: attempt{req: req, out: &output{log: req.Log, phase: req.Phase}}}
	t.eprefix = cmp.Or(b.p.cfg.BuildPrefix, b.p.cfg.EPrefix)
	res, err := t.build(ctx)
	if err != nil && ctx.Err() != nil {
		return worker.Result{}, cancelled(ctx)
	}
	if t.out.err != nil {
		b.log.Warn("build log incomplete", "cpv", req.Job.CPV.String(), "err", t.out.err)
	}
	return res, err
}

func cancelled(ctx context.Context) error {
	reason := "cancelled"
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		reason = cause.Error()
	}
	return &build.Failure{Class: build.Cancelled, Reason: reason}
}

func machine(format string, args ...any) *build.Failure {
	return &build.Failure{Class: build.BadMachine, Reason: build.OneLine(fmt.Sprintf(format, args...), 400)}
}

var repoRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`)

// checkRequest refuses what must not reach a command line or a path. Jobs come
// from peers.
func checkRequest(req *worker.Request) error {
	j := &req.Job
	if j.Builder != build.BuilderPortage {
		return machine("job %s is for the builder %q", j.CPV, j.Builder)
	}
	if err := j.CPV.Validate(); err != nil {
		return machine("job: %v", err)
	}
	if !repoRE.MatchString(j.Repo) || len(j.Repo) > 200 {
		return machine("job %s: repository name %q", j.CPV, j.Repo)
	}
	for _, u := range slices.Concat(j.USE, j.IUSE) {
		if !build.ValidUSE(u) {
			return machine("job %s: USE flag %q", j.CPV, u)
		}
	}
	for _, r := range req.Root {
		if err := r.Entry.CPV.Validate(); err != nil {
			return machine("job %s: root: %v", j.CPV, err)
		}
	}
	if !filepath.IsAbs(req.Dir) {
		return fmt.Errorf("build %s: directory %q is not absolute", j.CPV, req.Dir)
	}
	return nil
}

func (t *task) build(ctx context.Context) (worker.Result, error) {
	steps := []struct {
		phase string
		do    func(context.Context) error
	}{
		{"root", t.layOut}, {"", t.compare}, {"", t.fillRoot}, {"", t.emerge},
	}
	for _, s := range steps {
		if s.phase != "" && t.req.Phase != nil {
			t.req.Phase(s.phase)
		}
		if err := s.do(ctx); err != nil {
			return worker.Result{}, err
		}
	}
	path, err := t.collect(ctx)
	if err != nil {
		return worker.Result{}, err
	}
	return worker.Result{
		Path: path, CoreMillis: t.cost.cpu.Milliseconds(), PeakMiB: t.cost.peakMiB, Inputs: t.inputs(t.b.p.files()),
	}, nil
}

// dir is a directory of this job's.
func (t *attempt) dir(name string) string { return filepath.Join(t.req.Dir, name) }

// layOut makes the job's directories and its configuration: the machine's own,
// by reference, with one more package.use line that names every flag.
func (t *task) layOut(context.Context) error {
	for _, d := range []string{"out", "tmp", "log", "packages"} {
		if err := os.MkdirAll(t.dir(d), 0o755); err != nil {
			return fmt.Errorf("prepare build of %s: %w", t.req.Job.CPV, err)
		}
	}
	t.conf = t.dir("config")
	from := cmp.Or(t.b.p.cfg.ConfigRoot, t.b.p.cfg.EPrefix, "/")
	if err := configFor(from, t.conf, &t.req.Job); err != nil {
		return fmt.Errorf("prepare build of %s: %w", t.req.Job.CPV, err)
	}
	if t.b.p.cfg.BuildPrefix != "" {
		if err := layOutPrefix(t.eprefix, t.b.p.globals); err != nil {
			return fmt.Errorf("prepare build of %s: %w", t.req.Job.CPV, err)
		}
	}
	return nil
}

// shutTo is the first directory on the way to dir, of those that there are, which
// users other than its owner may not enter; "" if there is none.
func shutTo(dir string) string {
	shut := ""
	for d := dir; ; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			shut = d
		}
		if d == filepath.Dir(d) {
			return shut
		}
	}
}

// runEnv is the environment of emerge for this job.
func (t *task) runEnv(pkgdir string) []string {
	env := t.b.p.environment(t.conf, t.eprefix)
	env = append(env, "FEATURES="+strings.Join(t.b.p.features(), " "))
	if t.eprefix != "" && t.b.p.observes() {
		env = observing(env)
	}
	return append(env,
		"PKGDIR="+pkgdir, "PORTAGE_TMPDIR="+t.dir("tmp"), "PORTAGE_LOGDIR="+t.dir("log"),
		"EMERGE_LOG_DIR="+t.dir("log"), "MAKEOPTS=-j"+strconv.Itoa(max(t.req.Jobs, 1)),
		"PORTAGE_RO_DISTDIRS="+t.dir(worker.SourceDir),
		"INSTALL_MASK=-*", "PORTAGE_BINHOST=", "BINPKG_FORMAT=gpkg", "BINPKG_COMPRESS=zstd",
		"PORTAGE_ELOG_SYSTEM=save", "PORTAGE_ELOG_CLASSES=error",
	)
}

// features are the FEATURES that every run for the swarm has, on top of the
// configuration's.
func (p *Portage) features() []string {
	f := []string{
		"-preserve-libs", "-getbinpkg", "-buildpkg-live", "-news", "-merge-sync", "-merge-wait",
		"-binpkg-signing", "-binpkg-request-signature", "-pkgdir-index-trusted", "-parallel-fetch",
		"-keepwork", "-keeptemp", "-noclean", "-buildpkg", "-fail-clean",
		"binpkg-multi-instance", "parallel-install",
	}
	if !p.who.sandbox || p.who.uid != 0 {
		f = append(f, "-sandbox", "-usersandbox")
	}
	if p.who.uid != 0 || !p.who.portageUser {
		f = append(f, "-userpriv", "-userfetch", "-usersync")
	}
	if p.who.uid != 0 {
		f = append(f, "-network-sandbox", "-ipc-sandbox", "-pid-sandbox", "-mount-sandbox", "-cgroup")
	}
	return f
}

// compare asks Portage what it would build for this job here, and declines
// unless that is what the job's key was made of.
func (t *task) compare(ctx context.Context) error {
	j := &t.req.Job
	env := append(t.b.p.environment(t.conf, t.eprefix), "SWARM_EMERGE="+t.b.p.who.script)
	var doc document
	if err := t.hear(&doc, t.b.p.ask(ctx, env, t.question(), &doc)); err != nil {
		return err
	}
	if t.b.p.who.uid == 0 && t.b.p.who.portageUser && slices.Contains(doc.Env.Features, "userpriv") {
		if shut := shutTo(t.req.Dir); shut != "" {
			return machine("Portage builds as the user portage, which may not enter %s: chmod o+x, or another place by swarm run --state", shut)
		}
	}
	if j.Tree != "" {
		tree, err := t.b.p.treeOf(ctx, doc.Env.Repos)
		if err != nil {
			return machine("%v", err)
		}
		if tree != j.Tree {
			return errOtherTree
		}
	}
	return t.judge(t.b.p.prefixFacet(), t.b.p.files())
}

// errOtherTree is a tree that is not the one of the plan: never built from.
var errOtherTree = machine("this machine's ebuild repositories differ from those the job was planned on, and the round brings no snapshot of them")

// question is what is asked about the job's package.
func (t *attempt) question() map[string]any {
	return map[string]any{
		"mode": "facts", "keyed": keyedGlobals(),
		"packages": []map[string]string{{"cpv": t.req.Job.CPV.String(), "repo": t.req.Job.Repo}},
	}
}

// hear takes Portage's answer about the job's package.
func (t *attempt) hear(doc *document, err error) error {
	j := &t.req.Job
	switch {
	case errors.Is(err, ErrNoPackage):
		return machine("%v", err)
	case err != nil:
		return machine("Portage cannot be asked about %s: %v", j.CPV, err)
	case len(doc.Nodes) != 1:
		return machine("Portage answered about %d packages, asked about %s", len(doc.Nodes), j.CPV)
	}
	if err := doc.check(); err != nil {
		return machine("Portage's answer about %s: %v", j.CPV, err)
	}
	t.facts, t.env = &doc.Nodes[0], &doc.Env
	return nil
}

// judge declines unless the package would be what the job's key was made of.
func (t *attempt) judge(prefix string, files fileDigests) error {
	got, err := preimage(t.facts, t.env, policy{prefix, isStrict(t.req.Job.Preimage)}, files)
	if err != nil {
		return machine("%v", err)
	}
	if diff := differ(t.req.Job.Preimage, got); diff != "" {
		return machine("this machine would build %s otherwise: %s", t.req.Job.CPV, diff)
	}
	return nil
}

// differ names the first facet that two preimages disagree about, "" if none.
// Dependencies are left out: only a plan binds their := operators, and they
// are checked in the package itself. So is whose alone a build is.
func differ(want, got []build.Facet) string {
	vals := func(fs []build.Facet) map[string]string {
		m := make(map[string]string, len(fs))
		for _, f := range fs {
			if !strings.HasPrefix(f.Name, "dep:") && f.Name != build.OwnFacet {
				m[f.Name] = f.Value
			}
		}
		return m
	}
	w, g := vals(want), vals(got)
	var names []string
	for n := range w {
		names = append(names, n)
	}
	for n := range g {
		if _, ok := w[n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if w[n] != g[n] {
			return fmt.Sprintf("%s is %s here, the job has %s", n, show(g[n]), show(w[n]))
		}
	}
	return ""
}

// show writes a facet's value for people: a digest by its first digits.
func show(v string) string {
	hexa := strings.TrimPrefix(v, "sha256:")
	switch {
	case v == "":
		return "absent"
	case len(hexa) == 64 && strings.Trim(hexa, "0123456789abcdef") == "":
		return "another text (" + hexa[:8] + ")"
	}
	return strconv.Quote(v)
}

// prefixFacet says in a key which offset packages are built for.
func (p *Portage) prefixFacet() string {
	switch {
	case p.offset != nil:
		return *p.offset
	case p.cfg.BuildPrefix != "":
		return "relocatable"
	}
	return p.cfg.EPrefix
}

// emerge builds the job's package.
func (t *task) emerge(ctx context.Context) error {
	j := &t.req.Job
	t.out.say("building %s::%s", j.CPV, j.Repo)
	t.out.reset()
	status := ""
	if t.eprefix != "" { // the machine's own directory is that of every emerge of it
		status = filepath.Join(t.eprefix, inStatus)
	}
	defer t.observe(ctx, t.b.p, status)()
	return t.run(ctx, t.dir("out"), "--oneshot", "--buildpkgonly", "--autounmask=n",
		"="+j.CPV.String()+"::"+j.Repo)
}

// run runs emerge for this job and tells a failure's class.
func (t *task) run(ctx context.Context, pkgdir string, args ...string) error {
	u, err := run(ctx, t.req.Dir, t.runEnv(pkgdir), emergeWords(t.b.p.Emerge, args...), t.out)
	t.cost.cpu += u.cpu
	t.cost.peakMiB = max(t.cost.peakMiB, u.peakMiB)
	t.out.flush()
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	if err == nil {
		return nil
	}
	var exit interface{ ExitCode() int }
	if !errors.As(err, &exit) {
		return machine("emerge: %v", err)
	}
	return t.failed(exit.ExitCode())
}

// failed says what an exit code of emerge other than 0 means.
func (t *attempt) failed(code int) error {
	f := classify(t.out.tail.Bytes())
	if code != 1 && f.Class == build.BadPackage {
		return machine("emerge ended with %d: %s", code, lastLine(t.out.tail.String()))
	}
	return f
}

// emergeWords are the words that every emerge for the swarm begins with.
func emergeWords(program string, args ...string) []string {
	return append([]string{program, "--ignore-default-opts", "--color=n", "--nospinner", "--quiet-build=n", "--jobs=1"}, args...)
}

// collect finds the package that emerge wrote and checks it. The name alone
// means nothing: a placeholder of no bytes has it before the package does.
func (t *attempt) collect(ctx context.Context) (string, error) {
	var found []string
	err := filepath.WalkDir(t.dir("out"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(path, ".gpkg.tar") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look for the package of %s: %w", t.req.Job.CPV, err)
	}
	if len(found) != 1 {
		return "", machine("emerge ended well but wrote %d packages", len(found))
	}
	f, err := os.Open(found[0])
	if err != nil {
		return "", fmt.Errorf("read the package of %s: %w", t.req.Job.CPV, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read the package of %s: %w", t.req.Job.CPV, err)
	}
	pkg, err := gpkg.Open(f, info.Size())
	if err == nil {
		err = pkg.Verify(ctx)
	}
	if err != nil {
		return "", machine("emerge wrote a package that does not verify: %v", err)
	}
	if err := gpkg.Check(pkg, &t.req.Job); err != nil {
		return "", &build.Failure{Class: build.Mismatch, Reason: build.OneLine(err.Error(), 400)}
	}
	return found[0], nil
}

// inputs is the digest of what decided the content beside the key: eclasses,
// compilers, Portage itself, and every package of the root by its key.
func (t *attempt) inputs(files fileDigests) string {
	h := sha256.New()
	fmt.Fprintf(h, "portage %s\n", t.env.Portage)
	var cps []string
	for cp := range t.env.Toolchain {
		cps = append(cps, cp)
	}
	slices.Sort(cps)
	for _, cp := range cps {
		fmt.Fprintf(h, "toolchain %s %s\n", cp, t.env.Toolchain[cp])
	}
	for _, e := range t.facts.Eclasses {
		d, err := files.Tree(e.Path)
		fmt.Fprintf(h, "eclass %s %s %t\n", e.Name, d, err == nil)
	}
	for _, r := range t.req.Job.Root.All() {
		fmt.Fprintf(h, "root %s %s %s\n", r.CPV, r.Slot, r.Key)
	}
	fmt.Fprintf(h, "tree %s\n", t.req.Job.Tree)
	return hex.EncodeToString(h.Sum(nil))
}

// copyFile copies src to dst, which must not exist. A link would let Portage
// change the owner and time of a blob.
func copyFile(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
