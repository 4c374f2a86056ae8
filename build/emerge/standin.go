package emerge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// Machine is another machine, as far as it is published: that is all of it which
// decides what emerge would do there.
type Machine struct {
	Bundle    *build.Bundle
	Repos     map[string]string  // where each repository of the bundle lies here
	Installed *release.Installed // nil = nothing is installed
}

// StandIn lays another machine out in the directory dir and returns Portage as
// it would be there: a Prefix with the configuration of the bundle, the world, and
// entries of the package database that hold what the resolver reads and no files.
// What it plans is what that machine would plan of the same repositories, key by
// key, but that nothing is there which it could lend to break a cycle: PlanRequest
// has Lent for that. The answer is good as long as dir is there; it is for plans, and
// builds nothing.
//
// Packages are planned for the offset that this machine's are: a bundle does not
// name one.
//
// Of the bundle, which is a peer's, only what Evaluate would have put into one is
// heard, less variables by which bash and the loader run what they name: Portage
// runs ebuilds of a repository without metadata cache while it plans. As whom it
// does so is decided here. Nor is sets.conf, which may name commands whose output is a
// set (portage.sets.shell): such a set is unknown here. Of bashrc, which Portage runs
// even then, the digest is told and no more.
//
// It is a Prefix and not ROOT=dir: with a ROOT, Portage looks for what runs during
// builds (BDEPEND) in this machine's own root, with its configuration.
func (p *Portage) StandIn(ctx context.Context, dir string, m Machine) (*Portage, error) {
	fail := func(err error) (*Portage, error) { return nil, fmt.Errorf("stand in for another machine: %w", err) }
	own, err := p.evaluated(ctx)
	if err != nil {
		return fail(err)
	}
	if err := layOutPrefix(dir, p.globals); err != nil {
		return fail(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // it may be another user who reads ebuilds
		return fail(err)
	}
	if err := m.Bundle.Validate(); err != nil {
		return fail(err)
	}
	bundle := *m.Bundle
	bundle.MakeConf = slices.DeleteFunc(slices.Clone(bundle.MakeConf), func(v build.Pair) bool {
		return v.Name != "FEATURES" && !travels(v.Name) || runs(v.Name)
	})
	bundle.Files = slices.DeleteFunc(slices.Clone(bundle.Files), func(f build.BundleFile) bool { return f.Path == "sets.conf" })
	// Below dir they have names that repos.conf bears, wherever they lie.
	places := map[string]string{}
	if err := os.MkdirAll(filepath.Join(dir, "repos"), 0o755); err != nil {
		return fail(err)
	}
	for _, r := range m.Bundle.Repos {
		if m.Repos[r.Name] == "" {
			return fail(fmt.Errorf("the repository %s is not here", r.Name))
		}
		places[r.Name] = filepath.Join(dir, "repos", r.Name)
		if err := os.Symlink(m.Repos[r.Name], places[r.Name]); err != nil {
			return fail(err)
		}
	}
	files, err := bundle.Configuration(places)
	if err != nil {
		return fail(err)
	}
	etc, moved := filepath.Join(dir, "etc/portage"), map[string]string{}
	if i := slices.IndexFunc(files, func(f build.ConfigFile) bool { return f.Path == "bashrc" }); i >= 0 {
		// A directory is there, and nothing to run.
		at := filepath.Join(etc, "bashrc")
		moved[at] = filepath.Join(dir, "bashrc")
		if err := errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(moved[at], files[i].Data, 0o644)); err != nil {
			return fail(err)
		}
		files = slices.Delete(files, i, i+1)
	}
	if err := writeConfiguration(etc, files); err != nil {
		return fail(err)
	}
	var how []string
	for _, f := range howEbuildsRun {
		if !slices.Contains(own.Env.Features, f) {
			f = "-" + f
		}
		how = append(how, f)
	}
	if err := appendTo(filepath.Join(dir, "etc/portage/make.conf"), "FEATURES=\"${FEATURES} "+strings.Join(how, " ")+"\"\n"); err != nil {
		return fail(err)
	}
	if m.Installed != nil {
		if err := layOutInstalled(dir, m.Installed); err != nil {
			return fail(err)
		}
	}
	found := p.Found()
	found.Config = Config{Emerge: p.Emerge, ConfigRoot: dir, EPrefix: dir, BuildPrefix: p.cfg.BuildPrefix}
	q := found.Portage()
	offset := p.prefixFacet()
	q.offset, q.moved = &offset, moved
	q.trees = p.trees // the repositories are this machine's, and read already
	return q, nil
}

// howEbuildsRun are the FEATURES that say as whom, and how confined.
var howEbuildsRun = []string{"sandbox", "usersandbox", "userpriv", "network-sandbox", "ipc-sandbox", "pid-sandbox", "mount-sandbox"}

// runs reports whether bash, the loader or Python runs what a variable names.
func runs(name string) bool {
	return name == "ENV" || slices.ContainsFunc([]string{"BASH", "LD_", "PYTHON"}, func(p string) bool { return strings.HasPrefix(name, p) })
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// layOutInstalled writes a world file, and entries of a package database without
// files.
func layOutInstalled(dir string, set *release.Installed) error {
	put := func(name, text string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	var world, sets strings.Builder
	for _, a := range set.World {
		if strings.HasPrefix(a, "@") {
			sets.WriteString(a + "\n")
		} else {
			world.WriteString(a + "\n")
		}
	}
	errs := []error{put("var/lib/portage/world", world.String()), put("var/lib/portage/world_sets", sets.String())}
	for i := range set.Packages {
		x := &set.Packages[i]
		// The names keep Portage's grammar (Installed.Validate), so none leaves
		// the directory.
		at := filepath.Join("var/db/pkg", x.CPV.Category, x.CPV.PF())
		errs = append(errs, put(filepath.Join(at, "CONTENTS"), ""), put(filepath.Join(at, "COUNTER"), fmt.Sprint(i+1)),
			put(filepath.Join(at, "CATEGORY"), x.CPV.Category), put(filepath.Join(at, "PF"), x.CPV.PF()), put(filepath.Join(at, "SLOT"), x.Slot))
		for _, v := range x.Meta {
			errs = append(errs, put(filepath.Join(at, v.Name), v.Value+"\n"))
		}
	}
	return errors.Join(errs...)
}

// WantOptions lists those of this machine's default options for emerge that decide
// what an update is, as release.Installed publishes them.
func (p *Portage) WantOptions(ctx context.Context) ([]string, error) {
	doc, err := p.evaluated(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the default options: %w", err)
	}
	var out []string
	for _, o := range doc.Options {
		if release.WantOption(o) {
			out = append(out, o)
		}
	}
	return out, nil
}
