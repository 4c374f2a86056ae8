package emerge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/worker"
)

// lockRoot takes the lock on the root that builds happen in, against other
// processes of this machine. It waits as long as ctx lasts.
func (b *Builder) lockRoot(ctx context.Context) (unlock func(), err error) {
	dir := cmp.Or(b.p.cfg.BuildPrefix, filepath.Join(b.p.cfg.EPrefix, "/var/lib/portage"))
	path := filepath.Join(dir, ".swarm-build.lock")
	if b.p.cfg.BuildPrefix != "" {
		path = dir + ".lock"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock root: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, machine("cannot lock the root to build in: %v", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			_ = f.Close() // nothing was written
			return nil, cancelled(ctx)
		}
	}
}

// configFor makes a configuration root that refers to the one at from, entry
// by entry, with a package.use of its own.
func configFor(from, to string, j *build.Job) error {
	src, dst := filepath.Join(from, "etc/portage"), filepath.Join(to, "etc/portage")
	if err := os.MkdirAll(filepath.Join(dst, "package.use"), 0o755); err != nil {
		return fmt.Errorf("make configuration: %w", err)
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	link := func(name, as string) error {
		real, err := filepath.EvalSymlinks(filepath.Join(src, name))
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		return os.Symlink(real, filepath.Join(dst, as))
	}
	for _, e := range entries {
		switch e.Name() {
		case "binrepos.conf", "savedconfig.lock":
			continue // builds take nothing from binary hosts
		case "package.use":
			info, err := os.Stat(filepath.Join(src, e.Name()))
			if err != nil {
				return fmt.Errorf("read configuration: %w", err)
			}
			if !info.IsDir() {
				if err := link(e.Name(), "package.use/00-own"); err != nil {
					return err
				}
				continue
			}
			own, err := os.ReadDir(filepath.Join(src, e.Name()))
			if err != nil {
				return fmt.Errorf("read configuration: %w", err)
			}
			for _, o := range own {
				if err := link("package.use/"+o.Name(), "package.use/"+o.Name()); err != nil {
					return err
				}
			}
		default:
			if err := link(e.Name(), e.Name()); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(dst, "package.use", "zzzz-swarm-job"), []byte(useLine(j)), 0o644)
}

// useLine names every flag of a job, on or off.
func useLine(j *build.Job) string {
	var b strings.Builder
	fmt.Fprintf(&b, "=%s::%s", j.CPV, j.Repo)
	for _, f := range j.IUSE {
		if slices.Contains(j.USE, f) {
			b.WriteString(" " + f)
		} else {
			b.WriteString(" -" + f)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// layOutPrefix makes the directories that Portage expects in an empty Prefix,
// and puts make.globals where it looks for it.
func layOutPrefix(dir, globals string) error {
	for _, d := range []string{"etc", "usr/bin", "usr/share/portage", "bin", "tmp", "var/db/pkg", "var/lib/portage", "var/cache/edb", "var/log", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("lay out Prefix: %w", err)
		}
	}
	if globals == "" {
		return nil
	}
	link := filepath.Join(dir, "usr/share/portage/config")
	if to, err := os.Readlink(link); err == nil && to == globals {
		return nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lay out Prefix: %w", err)
	}
	if err := os.Symlink(globals, link); err != nil {
		return fmt.Errorf("lay out Prefix: %w", err)
	}
	return nil
}

// rootNote is what the Builder remembers of a Prefix of its own: which
// artifact each installed package came from.
type rootNote map[string]build.Key

const rootNoteFile = ".swarm-root.json"

// fillRoot brings the root to the job's list.
func (t *task) fillRoot(ctx context.Context) error {
	files := make(map[build.CPV]worker.RootFile, len(t.req.Root))
	for _, f := range t.req.Root {
		if f.Path != "" {
			files[f.Entry.CPV] = f
		}
	}
	for _, r := range t.req.Job.Root.All() {
		if _, ok := files[r.CPV]; r.Key != "" && !ok {
			return machine("the root of %s needs %s, whose package was not given", t.req.Job.CPV, r.CPV)
		}
	}
	var add []worker.RootFile
	var err error
	if t.b.p.cfg.BuildPrefix != "" {
		add, err = t.ownRoot(files)
	} else {
		add, err = t.machineRoot(files)
	}
	if err != nil {
		return err
	}
	if len(add) > 0 {
		if err := t.install(ctx, add); err != nil {
			return err
		}
	}
	return t.checkRoot()
}

// ownRoot decides what a Prefix of our own lacks. It is emptied unless all it
// has belongs to the job's list: a root is extended from a subset, never used
// as a superset, since a package too many can change what a build finds.
func (t *task) ownRoot(files map[build.CPV]worker.RootFile) ([]worker.RootFile, error) {
	have, err := base.Packages(t.eprefix)
	if err != nil {
		return nil, err
	}
	note := t.readNote()
	fits := len(note) == len(have)
	for cpv := range have {
		f, ok := files[cpv]
		fits = fits && ok && note[cpv.String()] == f.Entry.Key
	}
	if !fits {
		if err := t.emptyPrefix(); err != nil {
			return nil, fmt.Errorf("empty the root for %s: %w", t.req.Job.CPV, err)
		}
		have = nil
	}
	var add []worker.RootFile
	for _, r := range t.req.Job.Root.All() {
		if r.Key == "" {
			return nil, machine("the root of %s has %s from a base, and this machine builds in an empty root",
				t.req.Job.CPV, r.CPV)
		}
		if _, ok := have[r.CPV]; !ok {
			add = append(add, files[r.CPV])
		}
	}
	return add, nil
}

// machineRoot decides what the machine's own root lacks. What is there with
// the job's slot and flags stays; another version in the same slot is replaced
// only if the configuration allows it.
func (t *task) machineRoot(files map[build.CPV]worker.RootFile) ([]worker.RootFile, error) {
	have, err := base.Packages(cmp.Or(t.eprefix, "/"))
	if err != nil {
		return nil, err
	}
	taken := make(map[string]build.CPV)
	for cpv, in := range have {
		taken[cpv.CP()+":"+in.Slot.Slot] = cpv
	}
	var add []worker.RootFile
	for _, r := range t.req.Job.Root.All() {
		slot, err := build.ParseSlot(r.Slot)
		if err != nil {
			return nil, machine("root of %s: %v", t.req.Job.CPV, err)
		}
		f, given := files[r.CPV]
		in, there := have[r.CPV]
		if there && in.Slot == slot {
			if !given {
				continue
			}
			same, err := sameBuild(f.Path, in)
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
		}
		if !given {
			return nil, machine("this machine lacks %s, which the base of %s has", r.CPV, t.req.Job.CPV)
		}
		if old, ok := taken[r.CPV.CP()+":"+slot.Slot]; ok && !t.b.p.cfg.Replace {
			return nil, machine("this machine has %s installed, the build needs %s, and builds may not replace it", old, r.CPV)
		}
		add = append(add, f)
	}
	return add, nil
}

// sameBuild reports whether an installed package has the flags of a gpkg.
func sameBuild(path string, in base.Package) (bool, error) {
	pkg, done, err := openPackage(path)
	if err != nil {
		return false, err
	}
	defer done()
	return base.OnFlags(pkg.Metadata["USE"], pkg.Metadata["IUSE"]) == in.USE, nil
}

func openPackage(path string) (*gpkg.Package, func(), error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open package for the root: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open package for the root: %w", err), f.Close())
	}
	pkg, err := gpkg.Open(f, info.Size())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open package for the root: %w", err), f.Close())
	}
	return pkg, func() { _ = f.Close() }, nil // only read
}

// install merges packages, exactly these and in this order.
func (t *task) install(ctx context.Context, add []worker.RootFile) error {
	args := []string{"--oneshot", "--usepkgonly", "--nodeps", "--noconfmem"}
	for _, f := range add {
		if err := t.offer(f); err != nil {
			return err
		}
		args = append(args, "="+f.Entry.CPV.String())
	}
	t.out.say("installing %d packages into the root", len(add))
	t.out.reset()
	if err := t.run(ctx, t.dir("packages"), args...); err != nil {
		var f *build.Failure
		if errors.As(err, &f) && f.Class == build.BadPackage {
			// The package under test has not begun: this is not its fault.
			return machine("the root of %s cannot be filled: %s", t.req.Job.CPV, f.Reason)
		}
		return err
	}
	if t.b.p.cfg.BuildPrefix == "" {
		return nil
	}
	note := t.readNote()
	for _, f := range add {
		note[f.Entry.CPV.String()] = f.Entry.Key
	}
	return t.writeNote(note)
}

// offer puts a package where emerge looks for it, under the name that it
// wants: the build ID of its metadata is part of that.
func (t *attempt) offer(f worker.RootFile) error {
	pkg, done, err := openPackage(f.Path)
	if err != nil {
		return err
	}
	defer done()
	if pkg.CPV != f.Entry.CPV {
		return machine("the root of %s: the package given as %s is %s", t.req.Job.CPV, f.Entry.CPV, pkg.CPV)
	}
	c := pkg.CPV
	path := filepath.Join(t.dir("packages"), c.Category, c.PF()+".gpkg.tar")
	if id := strings.TrimSpace(pkg.Metadata["BUILD_ID"]); id != "" {
		if strings.Trim(id, "0123456789") != "" || len(id) > 20 {
			return machine("the root of %s: %s has the build ID %q", t.req.Job.CPV, c, id)
		}
		path = filepath.Join(t.dir("packages"), c.Category, c.Name, c.PF()+"-"+id+".gpkg.tar")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("offer %s to emerge: %w", c, err)
	}
	if err := copyFile(f.Path, path); err != nil {
		return fmt.Errorf("offer %s to emerge: %w", c, err)
	}
	return nil
}

// checkRoot compares what is installed with the job's list.
func (t *task) checkRoot() error {
	have, err := base.Packages(cmp.Or(t.eprefix, "/"))
	if err != nil {
		return err
	}
	for _, r := range t.req.Job.Root.All() {
		in, ok := have[r.CPV]
		if !ok {
			return machine("%s is not in the root of %s after it was installed", r.CPV, t.req.Job.CPV)
		}
		if want, err := build.ParseSlot(r.Slot); err != nil || want != in.Slot {
			return machine("%s in the root of %s has slot %s, wanted %s", r.CPV, t.req.Job.CPV, in.Slot, r.Slot)
		}
	}
	if t.b.p.cfg.BuildPrefix != "" && len(have) != t.req.Job.Root.Len() {
		return machine("the root of %s has %d packages, wanted %d", t.req.Job.CPV, len(have), t.req.Job.Root.Len())
	}
	return nil
}

func (t *task) readNote() rootNote {
	note := rootNote{}
	b, err := os.ReadFile(filepath.Join(t.eprefix, rootNoteFile))
	if err != nil || json.Unmarshal(b, &note) != nil || note == nil {
		return rootNote{} // then nothing there is known, and the root is emptied
	}
	return note
}

func (t *task) writeNote(note rootNote) error {
	b, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("note the root: %w", err)
	}
	if err := os.WriteFile(filepath.Join(t.eprefix, rootNoteFile), b, 0o644); err != nil {
		return fmt.Errorf("note the root: %w", err)
	}
	return nil
}

// emptyPrefix removes everything from the Builder's own Prefix but Portage's
// cache of ebuild metadata, which checks itself.
func (t *task) emptyPrefix() error {
	entries, err := os.ReadDir(t.eprefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "var" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(t.eprefix, e.Name())); err != nil {
			return err
		}
	}
	vars, err := os.ReadDir(filepath.Join(t.eprefix, "var"))
	if err != nil {
		return err
	}
	for _, e := range vars {
		if e.Name() == "cache" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(t.eprefix, "var", e.Name())); err != nil {
			return err
		}
	}
	return layOutPrefix(t.eprefix, t.b.p.globals)
}
