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
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

// configure writes etc/portage of the root: the target's, or this machine's
// own where the job comes without a target; and what is this job's.
func (m *room) configure(ctx context.Context) error {
	j := &m.req.Job
	m.repos = map[string]string{}
	var err error
	if m.req.Bundle != nil {
		err = m.writeBundle(ctx)
	} else {
		err = m.copyOwn(ctx)
	}
	if err == nil && !j.CPV.IsZero() { // an install test, or an update of a base, has no job
		err = addTo(m.dir("config"), "package.use", useLine(j))
	}
	if err == nil && !j.CPV.IsZero() {
		var unmask strings.Builder
		for _, e := range j.Root.All() {
			fmt.Fprintf(&unmask, "=%s\n", e.CPV)
		}
		err = addTo(m.dir("config"), "package.unmask", unmask.String())
	}
	if err != nil {
		if f, ok := errors.AsType[*build.Failure](err); ok {
			return f
		}
		return prepare(j, err)
	}
	return nil
}

// writeBundle writes the target's configuration, with the plan's repositories
// where a Gentoo has them.
func (m *room) writeBundle(ctx context.Context) error {
	dirs := m.req.Repos
	if len(dirs) == 0 && m.r.cfg.Own != nil {
		// The machine's own, which compare holds against the plan's tree.
		repos, err := m.r.ownRepos(ctx)
		if err != nil {
			return machine("ask Portage for its repositories: %v", err)
		}
		dirs = map[string]string{}
		for _, r := range repos {
			dirs[r.Name] = r.Path
		}
	}
	places := map[string]string{}
	for _, r := range m.req.Bundle.Repos {
		dir := dirs[r.Name]
		if dir == "" {
			return machine("the repository %s of the target is not here, and the round brings no snapshot of it", r.Name)
		}
		in := inRepos + "/" + r.Name
		places[r.Name], m.repos[in] = in, dir
	}
	files, err := m.req.Bundle.Configuration(places)
	if err != nil {
		return machine("%v", err)
	}
	return writeConfiguration(m.dir("config"), files)
}

// writeConfiguration lays files out below dir, which their names keep within
// (Bundle.Validate).
func writeConfiguration(dir string, files []build.ConfigFile) error {
	for _, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(f.Path))
		err := os.MkdirAll(filepath.Dir(to), 0o755)
		switch {
		case err != nil:
		case f.Link != "":
			err = os.Symlink(f.Link, to)
		default:
			err = os.WriteFile(to, f.Data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyOwn copies this machine's configuration, links followed, and shows its
// repositories where they lie.
func (m *room) copyOwn(ctx context.Context) error {
	own := m.r.cfg.Own
	if own == nil {
		return machine("the job comes without a target's configuration, and this machine has no Portage of its own")
	}
	repos, err := m.r.ownRepos(ctx)
	if err != nil {
		return machine("ask Portage for its repositories: %v", err)
	}
	for _, r := range repos {
		at := r.Path
		if len(m.req.Repos) > 0 {
			if at = m.req.Repos[r.Name]; at == "" {
				return machine("this machine has the repository %s, which the job was not planned on", r.Name)
			}
		}
		m.repos[filepath.Clean(r.Path)] = at
	}
	from := filepath.Join(cmp.Or(own.cfg.ConfigRoot, "/"), "etc/portage")
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	for _, e := range entries {
		at, to := filepath.Join(from, e.Name()), filepath.Join(m.dir("config"), e.Name())
		switch e.Name() {
		case "binrepos.conf", "savedconfig.lock":
			continue // builds take nothing from binary hosts
		case "make.profile":
			real, err := filepath.EvalSymlinks(at)
			if err == nil {
				err = os.Symlink(real, to)
			}
			if err != nil {
				return fmt.Errorf("read configuration: %w", err)
			}
			continue
		}
		if err := copyTree(at, to, 0); err != nil {
			return fmt.Errorf("copy configuration: %w", err)
		}
	}
	return nil
}

// copyTree copies files and directories, and what links lead to.
func copyTree(from, to string, depth int) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a link that leads nowhere
	}
	if err != nil {
		return err
	}
	if depth > 32 {
		return fmt.Errorf("%s: links that lead in a circle", from)
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return nil
		}
		return copyFile(from, to)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// addTo adds a text to package.use or its like, which may be a file, a
// directory or nothing.
func addTo(conf, name, text string) error {
	at := filepath.Join(conf, name)
	info, err := os.Stat(at)
	switch {
	case err == nil && !info.IsDir():
		if err := os.Rename(at, at+".own"); err != nil {
			return err
		}
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
		if err := os.Rename(at+".own", filepath.Join(at, "00-own")); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	return os.WriteFile(filepath.Join(at, "zzzz-swarm-job"), []byte(text), 0o644)
}

// ownRepos are the repositories of this machine's configuration.
func (r *Roots) ownRepos(ctx context.Context) ([]repo, error) {
	r.mu.Lock()
	known := r.repos
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	own := r.cfg.Own
	var doc document
	env := append(own.environment(own.cfg.ConfigRoot, own.cfg.EPrefix), "SWARM_EMERGE="+own.who.script)
	if err := own.ask(ctx, env, map[string]any{"mode": "facts", "keyed": keyedGlobals(), "packages": []string{}}, &doc); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repos = doc.Env.Repos
	return r.repos, nil
}

// outside is where a path of the root lies on the machine: of the repositories
// and the configuration alone, which Portage names in its answers.
func (m *room) outside(path string) string {
	path = filepath.Clean(path)
	for in, out := range m.repos {
		if below(path, in) {
			return filepath.Join(out, path[len(in):])
		}
	}
	if below(path, inConfig) {
		return filepath.Join(m.dir("config"), path[len(inConfig):])
	}
	return "/nonexistent" + path
}

// files reads what Portage names, where it lies outside.
func (m *room) files() fileDigests { return outsideFiles{m.p.files(), m.outside} }

type outsideFiles struct {
	files   *fileReader
	outside func(string) string
}

func (f outsideFiles) Ebuild(path string) (string, error)  { return f.files.Ebuild(f.outside(path)) }
func (f outsideFiles) Tree(path string) (string, error)    { return f.files.Tree(f.outside(path)) }
func (f outsideFiles) Patches(path string) (string, error) { return f.files.Patches(f.outside(path)) }

// portage finds the Portage of a base: once, since it never changes there.
func (r *Roots) portage(ctx context.Context, m *room) (*Portage, error) {
	r.mu.Lock()
	known := r.portages[m.root.Ref.Digest]
	r.mu.Unlock()
	if known != nil {
		return known, nil
	}
	p := &Portage{who: m.identity(), trees: newTreeCache()}
	var err error
	if m.root.Machine != nil {
		if own := r.cfg.Own; own != nil {
			p.Emerge, p.Python, p.Version, p.PyVer, p.globals, p.who.script, p.trees = own.Emerge, own.Python, own.Version, own.PyVer, own.globals, own.who.script, own.trees
		} else {
			err = errors.New("this machine has no Portage")
		}
	} else {
		p.Emerge = "/usr/bin/emerge"
		err = m.detect(ctx, p)
	}
	if err != nil {
		return nil, machine("find Portage in the base %s: %v", m.root.Ref.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.portages[m.root.Ref.Digest] = p
	return p, nil
}

// detect finds the Python that runs a base's emerge, as Detect does on a
// machine.
func (m *room) detect(ctx context.Context, p *Portage) error {
	dir := filepath.Join(m.dir("tmp"), "swarm-probe")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sitecustomize.py"), []byte(probe), 0o644); err != nil {
		return err
	}
	s, err := m.scratch("packages", p.Emerge, "--version")
	if err != nil {
		return err
	}
	s.Env = append(s.Env, "PYTHONPATH="+inTmp+"/swarm-probe", "SWARM_PROBE=1", "PYTHONDONTWRITEBYTECODE=1")
	_, out, err := sandbox.Output(ctx, s, nil, 4<<10)
	if err != nil {
		return err
	}
	var doc struct{ Python, Script string }
	line, _, _ := strings.Cut(string(out), "\n")
	if err := json.Unmarshal([]byte(line), &doc); err != nil || !filepath.IsAbs(doc.Python) {
		return fmt.Errorf("%s is not run by Python: %q", p.Emerge, build.OneLine(string(out), 200))
	}
	p.Python, p.who.script = doc.Python, doc.Script
	m.p = p
	var about struct {
		reply
		Python  string `json:"python"`
		Portage string `json:"portage"`
	}
	if err := m.ask(ctx, map[string]any{"mode": "probe"}, &about); err != nil {
		return fmt.Errorf("load it: %w", err)
	}
	p.Version, p.PyVer = build.OneLine(about.Portage, 40), build.OneLine(about.Python, 40)
	return nil
}
