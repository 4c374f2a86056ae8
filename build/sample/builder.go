package sample

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/worker"
)

const (
	eapi    = "8"
	cflags  = "-O2 -pipe"
	ldflags = "-Wl,-O1"
)

// Builder builds samples with one toolchain. It holds no state of builds: any
// number may run at the same time.
type Builder struct {
	tools Toolchain
	all   []pkg
	byCP  map[string]*pkg
	now   func() time.Time
}

var _ worker.Builder = (*Builder)(nil)

// NewBuilder builds with t; now is the clock that BUILD_TIME is read from.
func NewBuilder(t Toolchain, now func() time.Time) *Builder {
	all := catalog()
	return &Builder{tools: t, all: all, byCP: byCP(all), now: now}
}

// CanBuild says in one line why this machine cannot build j, or nil: a package
// that is not one of the samples, other sources than the planner's, no
// compiler or one of another class. It is cheap: ask before claiming.
func (b *Builder) CanBuild(j *build.Job) error {
	_, err := b.find(j)
	return err
}

// find returns the catalog's entry for j, after checking that j is what this
// machine would have planned.
func (b *Builder) find(j *build.Job) (*pkg, error) {
	if j.Builder != build.BuilderSample {
		return nil, fmt.Errorf("%s is a job for builder %q, not a built-in sample", j.CPV, j.Builder)
	}
	s := b.byCP[j.CPV.CP()]
	if s == nil || s.cpv() != j.CPV {
		return nil, fmt.Errorf("%s is not one of the built-in samples of this version", j.CPV)
	}
	if s.compiled && b.tools.CC == "" {
		return nil, errors.New(b.tools.Why)
	}
	for _, u := range j.USE {
		if !slices.Contains(s.iuse, u) {
			return nil, fmt.Errorf("%s has no USE flag %q", j.CPV, u)
		}
	}
	mine, err := preimageOf(b.tools, s, b.byCP, j.USE)
	if err != nil {
		return nil, err
	}
	k, err := build.KeyOf(mine)
	if err != nil {
		return nil, err
	}
	if k != j.Key {
		return nil, fmt.Errorf("%s would be another package here: %s", j.CPV, difference(j.Preimage, mine))
	}
	return s, nil
}

// difference names the first facet in which two preimages differ.
func difference(want, got []build.Facet) string {
	m := map[string]string{}
	for _, f := range want {
		m[f.Name] = f.Value
	}
	for _, f := range got {
		if m[f.Name] != f.Value {
			return fmt.Sprintf("%s is %q here, the job has %q", f.Name, f.Value, build.OneLine(m[f.Name], 80))
		}
	}
	return "the job has facets this version does not know"
}

// Build builds one sample: unpack, compile, install, package. Failures are
// *build.Failure; see worker.Builder.
func (b *Builder) Build(ctx context.Context, req worker.Request) (worker.Result, error) {
	s, err := b.find(&req.Job)
	if err != nil {
		return worker.Result{}, &build.Failure{Class: build.BadMachine, Reason: build.OneLine(err.Error(), maxReason)}
	}
	// The recipe's parent-death signal is bound to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &run{b: b, pkg: s, req: req, log: &stickyWriter{w: req.Log}, use: slices.Sorted(slices.Values(req.Job.USE))}
	res, err := r.build(ctx)
	if err == nil {
		return res, nil
	}
	if ctx.Err() != nil {
		return worker.Result{}, &build.Failure{Class: build.Cancelled, Reason: "stopped: " + build.OneLine(context.Cause(ctx).Error(), 200)}
	}
	var f *build.Failure
	if errors.As(err, &f) {
		return worker.Result{}, f
	}
	f = &build.Failure{Class: build.BadMachine, Reason: build.OneLine(machineReason(err), maxReason)}
	if noSpace(err) {
		f.SpaceMiB = build.Unsaid
	}
	return worker.Result{}, f
}

// maxReason bounds a failure's one line.
const maxReason = 300

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// machineReason puts the words people look for in front.
func machineReason(err error) string {
	if noSpace(err) {
		return "no space left on device: " + err.Error()
	}
	return err.Error()
}

// run is one build.
type run struct {
	b    *Builder
	pkg  *pkg
	req  worker.Request
	use  []string
	log  *stickyWriter
	cost cost
}

// dir is a directory of the build's scratch space.
func (r *run) dir(name string) string { return filepath.Join(r.req.Dir, name) }

func (r *run) build(ctx context.Context) (worker.Result, error) {
	r.phase("unpack")
	for _, d := range []string{"root", "work", "image", "tmp"} {
		if err := os.Mkdir(r.dir(d), 0o755); err != nil {
			return worker.Result{}, fmt.Errorf("prepare the build of %s: %w", r.pkg.cpv(), err)
		}
	}
	if err := r.unpackRoot(ctx); err != nil {
		return worker.Result{}, err
	}
	if err := r.unpackSources(); err != nil {
		return worker.Result{}, err
	}
	r.phase("compile")
	if err := r.recipe(ctx, "src_compile"); err != nil {
		return worker.Result{}, err
	}
	r.phase("install")
	if err := r.recipe(ctx, "src_install"); err != nil {
		return worker.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return worker.Result{}, err
	}
	r.phase("package")
	path, err := r.pack()
	if err != nil {
		return worker.Result{}, fmt.Errorf("package %s: %w", r.pkg.cpv(), err)
	}
	return worker.Result{Path: path, CoreMillis: r.cost.cpu.Milliseconds(), PeakMiB: (r.cost.peakKiB + 1023) / 1024,
		Inputs: r.inputs()}, nil
}

func (r *run) phase(name string) {
	fmt.Fprintf(r.log, ">>> %s: %s\n", r.pkg.cpv(), name)
	if r.req.Phase != nil {
		r.req.Phase(name)
	}
}

// unpackRoot unpacks the packages that the job needs, each checked again: what
// a compiler reads must be what the plan says.
func (r *run) unpackRoot(ctx context.Context) error {
	if len(r.req.Root) != r.req.Job.Root.Len() {
		return fmt.Errorf("prepare the root of %s: %d packages given, %d wanted", r.pkg.cpv(), len(r.req.Root), r.req.Job.Root.Len())
	}
	root, err := os.OpenRoot(r.dir("root"))
	if err != nil {
		return fmt.Errorf("prepare the root of %s: %w", r.pkg.cpv(), err)
	}
	defer root.Close()
	for i, file := range r.req.Root {
		want := r.req.Job.Root.At(i)
		if err := unpackFile(ctx, root, file.Path, want); err != nil {
			return fmt.Errorf("prepare the root of %s: %w", r.pkg.cpv(), err)
		}
		fmt.Fprintf(r.log, " * %s:%s\n", want.CPV, want.Slot)
	}
	return nil
}

func unpackFile(ctx context.Context, root *os.Root, path string, want build.RootEntry) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", want.CPV, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", want.CPV, err)
	}
	p, err := gpkg.Open(f, st.Size())
	if err != nil {
		return fmt.Errorf("unpack %s: %w", want.CPV, err)
	}
	if p.CPV != want.CPV || p.Metadata["SLOT"] != want.Slot {
		return fmt.Errorf("unpack %s:%s: the file is %s:%s", want.CPV, want.Slot, p.CPV, build.OneLine(p.Metadata["SLOT"], 40))
	}
	if err := p.Verify(ctx); err != nil {
		return fmt.Errorf("unpack %s: %w", want.CPV, err)
	}
	return unpackImage(ctx, root, p)
}

// unpackSources writes the sources out of the binary.
func (r *run) unpackSources() error {
	files, err := sourcesOf(r.pkg.name)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(r.dir("work"), f.name), f.data, 0o644); err != nil {
			return fmt.Errorf("unpack sources of %s: %w", r.pkg.cpv(), err)
		}
	}
	return nil
}

// recipe runs one function of the package's recipe.sh.
func (r *run) recipe(ctx context.Context, function string) error {
	work := r.dir("work")
	flags := cflags
	if r.pkg.compiled {
		// Paths of this build must not end up in the package.
		flags += " -ffile-prefix-map=" + work + "=. -ffile-prefix-map=" + r.dir("root") + "=/"
	}
	env := append(baseEnv(r.dir("tmp")),
		"CC="+r.b.tools.CC, "AR="+r.b.tools.AR, "CFLAGS="+flags, "LDFLAGS="+ldflags, "CHOST="+r.b.tools.CHOST,
		"LIBDIR="+r.b.tools.LibDir, "JOBS="+strconv.Itoa(max(r.req.Jobs, 1)), "ROOT="+r.dir("root"), "D="+r.dir("image"),
		"PN="+r.pkg.name, "PV="+r.pkg.version, "USE="+strings.Join(r.use, " "))
	script := "set -eu; . ./common.sh; . ./recipe.sh; " + function
	said := &logScanner{w: r.log}
	c, err := runGroup(ctx, command{dir: work, env: env, path: "/bin/sh", args: []string{"-c", script}, out: said})
	r.cost.add(c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.log.err != nil {
		return fmt.Errorf("write the log of %s: %w", r.pkg.cpv(), r.log.err)
	}
	if err == nil {
		return nil
	}
	return said.failure(err)
}

// inputs digests what decided the content and stands outside the key.
func (r *run) inputs() string {
	h := sha256.New()
	if r.pkg.compiled {
		fmt.Fprintf(h, "compiler %s\n", r.b.tools.Version)
	}
	for _, e := range r.req.Job.Root.All() {
		fmt.Fprintf(h, "root %s:%s %s\n", e.CPV, e.Slot, e.Key)
	}
	return hex.EncodeToString(h.Sum(nil))
}
