package emerge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/worker"
)

// NextRequest asks what brings a base up to date.
type NextRequest struct {
	Target    string
	Base      build.BaseRef
	Bundle    *build.Bundle // the target's configuration
	BundleCID string
	Strict    bool
	// Trees are the repositories to update from, Repos where they lie here.
	Trees []build.Snapshot
	Repos map[string]string
	// Atoms are what is updated: @system, or packages that the base has.
	Atoms []string
	// KeepSource is PlanRequest's.
	KeepSource func(ctx context.Context, s build.Source) (string, error)
}

// toolchain are the packages that everything else is built with, in the order in
// which Gentoo's handbook updates them.
var toolchain = []string{
	"sys-kernel/linux-headers", "sys-libs/glibc", "sys-libs/musl", "sys-devel/binutils", "sys-devel/gcc",
	"llvm-core/llvm", "llvm-core/clang", "llvm-core/lld", "dev-lang/rust", "dev-lang/rust-bin", "dev-lang/go",
}

// ToolchainOf lists what of the toolchain a base has.
func ToolchainOf(b *build.Base) (atoms []string) {
	for _, cp := range toolchain {
		if slices.ContainsFunc(b.Packages, func(p build.Installed) bool { return p.CPV.CP() == cp }) {
			atoms = append(atoms, cp)
		}
	}
	return atoms
}

// PlanNext asks a base's own Portage, inside of the base, what
// "emerge -uDN ATOMS" would do there with the target's configuration. The plan's
// builds start from that very base. The error wraps ErrResolve and its like as
// Plan's does, or is a *build.Failure of this machine.
func (r *Roots) PlanNext(ctx context.Context, req NextRequest) (plan *build.Plan, err error) {
	for _, a := range req.Atoms {
		if err := checkAtom(a); err != nil {
			return nil, fmt.Errorf("plan the next generation: %w: %w", ErrNoPackage, err)
		}
	}
	err = r.inBase(ctx, worker.Request{Base: req.Base, Bundle: req.Bundle, Repos: req.Repos, Target: req.Target}, func(m *room) error {
		var doc document
		err := m.ask(ctx, map[string]any{
			"mode": "plan", "atoms": req.Atoms, "options": []string{"--update", "--deep", "--newuse"}, "max_tries": 10, "keyed": keyedGlobals(),
		}, &doc)
		if err != nil {
			return fmt.Errorf("plan the next generation of base %s: %w", req.Base.Name, err)
		}
		c := conversion{
			target: req.Target, tree: build.TreeOf(req.Trees), bundle: req.BundleCID, baseRef: req.Base, strict: req.Strict,
			base: make(map[string]build.Installed, len(m.root.Manifest.Packages)),
		}
		for _, in := range m.root.Manifest.Packages {
			c.base[in.CPV.String()] = in
		}
		if req.KeepSource != nil {
			c.source = func(s build.Source) (string, error) { return req.KeepSource(ctx, s) }
		}
		if plan, err = convert(&doc, m.files(), c); err != nil {
			return fmt.Errorf("plan the next generation of base %s: read the planner's answer: %w", req.Base.Name, err)
		}
		plan.Trees = req.Trees
		return nil
	})
	return plan, err
}

// Grow installs packages above a base, in their order, and has use take what
// changed: a directory that is gone afterwards. The compilers that the target has
// selected are selected, where they are there.
func (r *Roots) Grow(ctx context.Context, ref build.BaseRef, bundle *build.Bundle, repos map[string]string, add []worker.RootFile, log io.Writer,
	use func(on *base.Root, upper string) error,
) error {
	return r.inBase(ctx, worker.Request{Base: ref, Bundle: bundle, Repos: repos, Log: log}, func(m *room) error {
		dir := m.dir("next")
		if err := os.MkdirAll(filepath.Join(dir, "fs"), 0o755); err != nil {
			return err
		}
		for _, f := range add {
			m.list = append(m.list, entryOf(f.Entry))
		}
		if err := m.merge(ctx, dir, add); err != nil {
			return fmt.Errorf("install into base %s: %w", ref.Name, err)
		}
		if err := m.selectCompilers(ctx, dir, bundle); err != nil {
			return err
		}
		upper := filepath.Join(dir, "fs")
		packages, err := base.Packages(m.database(upper)...)
		if err != nil {
			return err
		}
		if err := m.checkRoot(packages); err != nil {
			return err
		}
		return use(m.root, upper)
	})
}

// Clean has the base's own Portage take away what @system, and what its packages
// need to run and to be built, no longer needs (emerge --depclean), and has use take
// what changed: a directory that is gone afterwards. It does not call use where there
// is nothing to take away. The compiler that the target has selected stays. A clean
// that would leave the base without Portage, or without one of its toolchain, is an
// error: the profile names no @system then.
func (r *Roots) Clean(ctx context.Context, ref build.BaseRef, bundle *build.Bundle, repos map[string]string, log io.Writer,
	use func(on *base.Root, upper string, gone []build.CPV) error,
) error {
	return r.inBase(ctx, worker.Request{Base: ref, Bundle: bundle, Repos: repos, Log: log}, func(m *room) error {
		dir := m.dir("next")
		if err := os.MkdirAll(filepath.Join(dir, "fs"), 0o755); err != nil {
			return err
		}
		args := []string{"--depclean", "--with-bdeps=y"}
		for _, sel := range bundle.Selections {
			slot, err := build.ParseSlot(sel.Value[strings.LastIndexByte(sel.Value, '-')+1:])
			if err == nil && sel.Name == "gcc" {
				args = append(args, "--exclude=sys-devel/gcc:"+slot.Slot)
			}
		}
		s, err := m.spec(dir, "packages", emergeWords(m.p.Emerge, args...)...)
		if err != nil {
			return err
		}
		s.Env = append(s.Env, "CLEAN_DELAY=0", "CONFIG_PROTECT=-*")
		if err := m.runEmerge(ctx, s); err != nil {
			return fmt.Errorf("depclean base %s: %w", ref.Name, err)
		}
		upper := filepath.Join(dir, "fs")
		left, err := base.Packages(m.database(upper)...)
		if err != nil {
			return err
		}
		gone, err := cleaned(m.root.Manifest.Packages, left)
		if err != nil {
			return fmt.Errorf("depclean base %s: %w", ref.Name, err)
		}
		if len(gone) == 0 {
			return nil
		}
		return use(m.root, upper, gone)
	})
}

// cleaned lists what a clean took away, if a base is left.
func cleaned(had []build.Installed, left map[build.CPV]base.Package) (gone []build.CPV, err error) {
	names := map[string]bool{}
	for cpv := range left {
		names[cpv.CP()] = true
		if !slices.ContainsFunc(had, func(p build.Installed) bool { return p.CPV == cpv }) {
			return nil, fmt.Errorf("%s was not there before", cpv)
		}
	}
	for _, p := range had {
		if _, ok := left[p.CPV]; ok {
			continue
		}
		if cp := p.CPV.CP(); !names[cp] && (cp == "sys-apps/portage" || slices.Contains(toolchain, cp)) {
			return nil, fmt.Errorf("it would be left without %s: does the target's profile name it, or what needs it, in @system?", cp)
		}
		gone = append(gone, p.CPV)
	}
	return gone, nil
}

// selectCompilers has the base's own tools select what the target has selected.
func (m *room) selectCompilers(ctx context.Context, dir string, bundle *build.Bundle) error {
	for _, sel := range bundle.Selections {
		tool := map[string]string{"gcc": "gcc-config", "binutils": "binutils-config"}[sel.Name]
		if tool == "" {
			continue
		}
		s, err := m.spec(dir, "packages", "/bin/sh", "-c", `command -v "$1" >/dev/null || exit 0; exec "$1" "$2"`, "sh", tool, sel.Value)
		if err != nil {
			return err
		}
		res, err := m.run(ctx, s, sandbox.Streams{Out: m.out})
		if err != nil {
			return err
		}
		if res.Exit != 0 {
			m.out.say("%s %s: exit %d: another one stays selected", tool, sel.Value, res.Exit)
		}
	}
	return nil
}

// inBase lays out a root that is a base and nothing else, for f.
func (r *Roots) inBase(ctx context.Context, req worker.Request, f func(*room) error) (err error) {
	if err := r.CanBuild(nil); err != nil {
		return machine("%v", err)
	}
	if err := os.MkdirAll(r.cfg.Dir, 0o755); err != nil {
		return err
	}
	if req.Dir, err = os.MkdirTemp(r.cfg.Dir, "next-"); err != nil {
		return fmt.Errorf("lay out a root: %w", err)
	}
	defer func() { err = errors.Join(err, removeTree(ctx, req.Dir)) }()
	if req.Log == nil {
		req.Log = io.Discard
	}
	m := &room{r: r, attempt: attempt{req: req, out: &output{log: req.Log}}}
	defer m.leave()
	if err := m.open(ctx); err != nil {
		return err
	}
	return f(m)
}
