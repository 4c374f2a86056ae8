package emerge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// evaluation is the planner's answer to "target".
type evaluation struct {
	reply
	Conf     stringMap   `json:"conf"` // make.conf, flattened
	CPUFlags []string    `json:"cpu_flags"`
	Header   stringMap   `json:"header"`
	Env      environment `json:"env"`
	CC       string      `json:"cc"` // "" = the usual one
	Config   string      `json:"config"`
	ERoot    string      `json:"eroot"`
	// Options are the default options that choose what emerge wants, in words.
	Options []string `json:"options"`
	// Lost are repositories of repos.conf whose place is not there.
	Lost []repo `json:"lost"`
}

// Evaluate makes a bundle of the configuration that p drives: Portage evaluates
// it, -march=native is resolved by the compiler, and what must not travel stays
// out, each with its reason in Left. Equal configurations give equal bundles,
// whatever their files look like. The error wraps ErrUnusable where Portage
// cannot read the configuration.
func (p *Portage) Evaluate(ctx context.Context) (*build.Bundle, error) {
	doc, err := p.evaluated(ctx)
	var b *build.Bundle
	if err == nil {
		b, err = evaluate(ctx, doc)
	}
	if err != nil {
		return nil, fmt.Errorf("evaluate the configuration: %w", err)
	}
	return b, nil
}

// evaluated is the configuration that p drives, as Portage evaluates it.
func (p *Portage) evaluated(ctx context.Context) (*evaluation, error) {
	var doc evaluation
	env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
	return &doc, p.ask(ctx, env, map[string]any{"mode": "target", "keyed": keyedGlobals()}, &doc)
}

func evaluate(ctx context.Context, doc *evaluation) (*build.Bundle, error) {
	b := &build.Bundle{
		Format: build.BundleFormat, Arch: doc.Env.Arch, CHOST: doc.Env.CHOST, Libc: doc.Env.Libc, Profile: doc.Env.Profile,
		MainRepo: doc.Env.MainRepo, Header: header(doc.Header), CPU: []string{}, Files: []build.BundleFile{}, Left: []build.Note{},
	}
	e := &evaluator{doc: doc, b: b}
	e.repos()
	if err := e.makeConf(ctx); err != nil {
		return nil, err
	}
	if err := e.files(); err != nil {
		return nil, err
	}
	if err := e.nativeFiles(ctx); err != nil {
		return nil, err
	}
	e.selections()
	if b.Profile == "" && !slices.ContainsFunc(b.Files, func(f build.BundleFile) bool { return strings.HasPrefix(f.Path, "make.profile/") }) {
		return nil, fmt.Errorf("%w: no profile is chosen: eselect profile list, and eselect profile set", ErrUnusable)
	}
	slices.SortFunc(b.Left, func(x, y build.Note) int {
		return cmp.Or(strings.Compare(x.Atom, y.Atom), strings.Compare(x.Reason, y.Reason))
	})
	b.Left = slices.Compact(b.Left)
	slices.Sort(b.CPU)
	b.CPU = slices.Compact(b.CPU)
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return b, nil
}

type evaluator struct {
	doc *evaluation
	b   *build.Bundle
	all int64 // bytes of files
}

func (e *evaluator) leave(what, why string) {
	e.b.Left = append(e.b.Left, build.Note{Atom: build.OneLine(what, 200), Reason: why})
}

func (e *evaluator) repos() {
	for _, r := range e.doc.Env.Repos {
		e.b.Repos = append(e.b.Repos, build.BundleRepo{Name: r.Name, Masters: r.Masters, Priority: r.Priority})
	}
	slices.SortStableFunc(e.b.Repos, func(a, b build.BundleRepo) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Name, b.Name))
	})
}

func (e *evaluator) makeConf(ctx context.Context) error {
	cc := e.compiler()
	names := make([]string, 0, len(e.doc.Conf))
	for n := range e.doc.Conf {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		v := strings.Join(strings.Fields(e.doc.Conf[n]), " ")
		switch {
		case !build.ValidVariable(n):
			e.leave(n, "it is not the name of a variable")
			continue
		case secret(n, v):
			e.leave(n, "it looks like a credential")
			continue
		case n == "FEATURES":
			v = e.features(v)
		case !travels(n):
			e.leave(n, whyUncounted(n))
			continue
		}
		if hasNative(v) {
			if cc == nil {
				return fmt.Errorf("%w: %s has -march=native, and there is no compiler that says what it means", ErrUnusable, n)
			}
			resolved, err := resolveNative(ctx, cc, v)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrUnusable, n, err)
			}
			e.leave(n+": native", "on this machine it is "+strings.Join(machineFlags(resolved), " "))
			v = resolved
		}
		if strings.HasSuffix(n, "FLAGS") {
			e.demand(ctx, cc, n, v)
		}
		if v != "" {
			e.b.MakeConf = append(e.b.MakeConf, build.Pair{Name: n, Value: v})
		}
	}
	for _, f := range e.doc.CPUFlags {
		family, flag, _ := strings.Cut(strings.TrimPrefix(f, "cpu_flags_"), "_")
		if k := cpuFlag(family, flag); k != "" {
			e.b.CPU = append(e.b.CPU, k)
		}
	}
	return nil
}

// demand notes what a processor must know to run what flags make.
func (e *evaluator) demand(ctx context.Context, cc []string, where, flags string) {
	if cc == nil {
		return
	}
	list, err := needsOf(ctx, cc, flags)
	if err != nil {
		e.leave(where+": its processor", build.OneLine("what it demands is not known: "+err.Error(), 300))
	}
	e.b.CPU = append(e.b.CPU, list...)
}

// nativeWord is one of nativeFlags as a word of a file.
var nativeWord = regexp.MustCompile(`-m(arch|cpu|tune)=native\b`)

// nativeFiles resolves native where package.env, a bashrc or a profile of the
// user's says it: a drone's own processor is not meant there, either.
func (e *evaluator) nativeFiles(ctx context.Context) error {
	cc := e.compiler()
	for i := range e.b.Files {
		f := &e.b.Files[i]
		top, _, _ := strings.Cut(f.Path, "/")
		if !slices.Contains([]string{"env", "bashrc", "profile", "make.profile"}, top) {
			continue
		}
		for _, word := range nativeWord.FindAllString(string(f.Data), -1) {
			if cc == nil {
				return fmt.Errorf("%w: %s has %s, and there is no compiler that says what it means", ErrUnusable, f.Path, word)
			}
			resolved, err := resolveNative(ctx, cc, word)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrUnusable, f.Path, err)
			}
			e.leave(f.Path+": native", "on this machine it is "+resolved)
			f.Data = bytes.Replace(f.Data, []byte(word), []byte(resolved), 1)
		}
		for line := range strings.Lines(string(f.Data)) {
			if name, flags, ok := strings.Cut(line, "="); ok && strings.HasSuffix(strings.TrimSpace(name), "FLAGS") {
				e.demand(ctx, cc, f.Path, strings.Trim(strings.TrimSpace(flags), `"'`))
			}
		}
	}
	return nil
}

// machineFlags are the -m options of a list of flags.
func machineFlags(flags string) []string {
	return slices.DeleteFunc(strings.Fields(flags), func(f string) bool { return !strings.HasPrefix(f, "-m") })
}

// features keeps those that change what a package holds.
func (e *evaluator) features(v string) string {
	var keep, left []string
	for _, f := range strings.Fields(v) {
		if slices.Contains(keyedFeatures, strings.TrimPrefix(f, "-")) {
			keep = append(keep, f)
		} else {
			left = append(left, f)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		e.leave("FEATURES "+strings.Join(left, " "), "they say how Portage works here, and reach no package")
	}
	slices.Sort(keep)
	return strings.Join(slices.Compact(keep), " ")
}

// compiler is the program that is asked about flags; nil if there is none.
func (e *evaluator) compiler() []string {
	var tries [][]string
	if words := strings.Fields(e.doc.CC); len(words) > 0 {
		tries = append(tries, words)
	}
	for _, n := range []string{e.doc.Env.CHOST + "-gcc", "gcc", e.doc.Env.CHOST + "-clang", "clang"} {
		tries = append(tries, []string{n})
	}
	for _, t := range tries {
		if path, err := exec.LookPath(t[0]); err == nil {
			return append([]string{path}, t[1:]...)
		}
	}
	return nil
}

// How the files below etc/portage travel.
type travel int

const (
	asList  travel = iota // package.*: one list, without comments
	asFiles               // as they are
)

var bundled = []struct {
	name string
	how  travel
}{
	{"package.accept_keywords", asList}, {"package.accept_restrict", asList}, {"package.env", asList}, {"package.license", asList},
	{"package.mask", asList}, {"package.properties", asList}, {"package.unmask", asList}, {"package.use", asList},
	{"bashrc", asFiles}, {"categories", asFiles}, {"env", asFiles}, {"patches", asFiles}, {"profile", asFiles}, {"savedconfig", asFiles},
	{"sets", asFiles}, {"sets.conf", asFiles},
}

// stays says why other files of etc/portage do not travel.
var stays = map[string]string{
	"binrepos.conf": "builds take nothing from other binary hosts", "repos.conf": "where repositories lie and how they are synced is each machine's",
	"gnupg": "keys are each machine's", "postsync.d": "hooks are each machine's", "repo.postsync.d": "hooks are each machine's",
	"mirrors": "how this machine fetches", "package.keywords": "Portage knows it as package.accept_keywords: rename it",
	"modules": "how this machine's repositories are cached",
}

const (
	maxConfigFile = 4 << 20
	maxConfigAll  = 24 << 20
)

func (e *evaluator) files() error {
	dir := filepath.Join(e.doc.Config, "etc/portage")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	for _, en := range entries {
		name := en.Name()
		path := filepath.Join(dir, name)
		at := slices.IndexFunc(bundled, func(b struct {
			name string
			how  travel
		}) bool {
			return b.name == name
		})
		switch {
		case name == "make.conf" || hidden(name):
		case name == "make.profile":
			err = e.userProfile(path)
		case at < 0:
			if why, ok := stays[name]; ok {
				e.leave(name, why)
			} else if name != "repos.conf" {
				e.leave(name, "Portage gives it no meaning for what is built")
			}
		case bundled[at].how == asList:
			err = e.list(path, name)
		default:
			err = e.copy(path, name, 0)
		}
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
	}
	slices.SortFunc(e.b.Files, func(a, b build.BundleFile) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// hidden files and backups are passed over by Portage, too.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasPrefix(name, "._cfg")
}

// list reads a file, or a directory of them in Portage's order, as one list.
func (e *evaluator) list(path, name string) error {
	var out strings.Builder
	var walk func(path string, depth int) error
	walk = func(path string, depth int) error {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link that leads nowhere
		}
		if err != nil {
			return err
		}
		if st.IsDir() {
			if depth > 8 {
				return fmt.Errorf("%s: directories more than 8 deep", path)
			}
			entries, err := os.ReadDir(path) // sorted by name
			if err != nil {
				return err
			}
			for _, en := range entries {
				if hidden(en.Name()) || en.Name() == "CVS" {
					continue
				}
				if err := walk(filepath.Join(path, en.Name()), depth+1); err != nil {
					return err
				}
			}
			return nil
		}
		b, err := e.read(path, st)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if words := uncommented(line); len(words) > 0 {
				out.WriteString(strings.Join(words, " ") + "\n")
			}
		}
		return nil
	}
	if err := walk(path, 0); err != nil {
		return err
	}
	if out.Len() > 0 {
		e.b.Files = append(e.b.Files, build.BundleFile{Path: name, Data: []byte(out.String())})
	}
	return nil
}

// uncommented is a line's words up to a comment, as Portage reads lists.
func uncommented(line string) []string {
	words := strings.Fields(line)
	for i, w := range words {
		if strings.HasPrefix(w, "#") {
			return words[:i]
		}
	}
	return words
}

func (e *evaluator) read(path string, st fs.FileInfo) ([]byte, error) {
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if e.all += st.Size(); st.Size() > maxConfigFile || e.all > maxConfigAll {
		return nil, fmt.Errorf("%s: a configuration is at most %d MiB, a file of it %d", path, maxConfigAll>>20, maxConfigFile>>20)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfigFile))
}

// copy takes files as they are.
func (e *evaluator) copy(path, name string, depth int) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		if depth > 8 {
			return fmt.Errorf("%s: directories more than 8 deep", path)
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, en := range entries {
			if hidden(en.Name()) {
				continue
			}
			if err := e.copy(filepath.Join(path, en.Name()), name+"/"+en.Name(), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if strings.HasPrefix(name, "patches/") && !strings.HasSuffix(name, ".patch") && !strings.HasSuffix(name, ".diff") {
		e.leave(name, "Portage applies *.patch and *.diff alone")
		return nil
	}
	b, err := e.read(path, st)
	if err != nil {
		return err
	}
	f := build.BundleFile{Path: name, Data: b}
	if !build.ValidBundlePath(name) {
		e.leave(name, "its name has characters that no configuration file of a target may have")
		return nil
	}
	if secretURL.Match(b) {
		e.leave(name, "it seems to hold a credential")
		return nil
	}
	e.b.Files = append(e.b.Files, f)
	return nil
}

// userProfile takes a profile that lies in etc/portage itself: its parents are
// named as repository:path.
func (e *evaluator) userProfile(path string) error {
	if e.b.Profile != "" {
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		to, _ := os.Readlink(path) // it is said below
		return fmt.Errorf("%w: make.profile leads to %q, which is not there: eselect profile list, and eselect profile set", ErrUnusable, to)
	}
	if err := e.copy(real, "make.profile", 0); err != nil {
		return err
	}
	for i := range e.b.Files {
		f := &e.b.Files[i]
		if f.Path != "make.profile/parent" {
			continue
		}
		var out strings.Builder
		for line := range strings.Lines(string(f.Data)) {
			words := uncommented(line)
			if len(words) != 1 {
				continue
			}
			parent := words[0]
			if !strings.Contains(parent, ":") {
				at := parent
				if !filepath.IsAbs(at) {
					at = filepath.Join(real, at)
				}
				if at, err = filepath.EvalSymlinks(at); err != nil {
					return err
				}
				parent = e.named(at)
				if parent == "" {
					return fmt.Errorf("the profile's parent %s lies in no repository", words[0])
				}
			}
			out.WriteString(parent + "\n")
		}
		f.Data = []byte(out.String())
	}
	return nil
}

// named is repository:path of a directory of a profile; "" if it is in none.
func (e *evaluator) named(dir string) string {
	for _, r := range e.doc.Env.Repos {
		root, err := filepath.EvalSymlinks(filepath.Join(r.Path, "profiles"))
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(root, dir); err == nil && filepath.IsLocal(rel) {
			return r.Name + ":" + filepath.ToSlash(rel)
		}
	}
	return ""
}

// selections reads which compilers and interpreters are active. What is not
// chosen (no gcc-config, no eselect) is not there.
func (e *evaluator) selections() {
	add := func(name, value string) {
		if value = build.OneLine(value, 200); value != "" {
			e.b.Selections = append(e.b.Selections, build.Pair{Name: name, Value: value})
		}
	}
	root := cmp.Or(e.doc.ERoot, "/")
	current := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(root, "etc/env.d", dir, "config-"+e.doc.Env.CHOST))
		if err != nil {
			return ""
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CURRENT="); ok {
				return strings.Trim(v, `"`)
			}
		}
		return ""
	}
	link := func(path string) string {
		to, err := os.Readlink(filepath.Join(root, path))
		if err != nil {
			return ""
		}
		return filepath.Base(to)
	}
	add("binutils", current("binutils"))
	add("gcc", current("gcc"))
	add("java-vm", link("etc/java-config-2/current-system-vm"))
	if b, err := os.ReadFile(filepath.Join(root, "etc/python-exec/python-exec.conf")); err == nil {
		var names []string
		for line := range strings.Lines(string(b)) {
			names = append(names, uncommented(line)...)
		}
		add("python-exec", strings.Join(names, " "))
	}
	add("rust", link("usr/bin/rustc"))
}
