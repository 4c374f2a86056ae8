package build

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Bundle is a machine's Portage configuration, evaluated by Portage itself and
// normalised: equal configurations have equal bytes (Marshal), however make.conf
// and the package.* lists are split and commented. Nothing in it is a path of the machine
// that it came from.
type Bundle struct {
	Format   int          `cbor:"format" json:"format"` // BundleFormat
	Arch     string       `cbor:"arch" json:"arch"`
	CHOST    string       `cbor:"chost" json:"chost"`
	Libc     string       `cbor:"libc" json:"libc"`       // ELIBC
	Profile  string       `cbor:"profile" json:"profile"` // repository:path; "" where File "make.profile/parent" is the profile
	MainRepo string       `cbor:"main" json:"main_repo"`
	Repos    []BundleRepo `cbor:"repos" json:"repos"` // by priority, lowest first, as Portage overlays them
	// MakeConf is make.conf, flattened: what it sources is in it, variables are
	// expanded, -march=native is resolved. Sorted by name.
	MakeConf []Pair `cbor:"conf" json:"make_conf"`
	// Files are package.*, env, patches, sets, profile, savedconfig and bashrc,
	// relative to etc/portage, sorted by path.
	Files []BundleFile `cbor:"files" json:"files"`
	// Selections are the compilers and interpreters that are active, sorted:
	// "gcc" = "x86_64-pc-linux-gnu-14", "binutils" = "2.44", "rust", "llvm".
	Selections []Pair `cbor:"select" json:"selections"`
	// Header is the head of a Packages index for this configuration, as Portage
	// writes it, less times and places. Sorted.
	Header []Pair `cbor:"header" json:"header"`
	// CPU is what Target.CPU says.
	CPU []string `cbor:"cpu" json:"cpu"`
	// Left says what was left out, and why, for people. Sorted.
	Left []Note `cbor:"left" json:"left"`
}

// BundleFormat is the version of the format that this code writes and reads.
const BundleFormat = 1

// BundleRepo is an ebuild repository that a configuration uses.
type BundleRepo struct {
	Name     string   `cbor:"name" json:"name"`
	Masters  []string `cbor:"masters,omitempty" json:"masters"`
	Priority int      `cbor:"prio" json:"priority"`
}

// BundleFile is one file below etc/portage.
type BundleFile struct {
	Path string `cbor:"path" json:"path"` // slash-separated
	Data []byte `cbor:"data" json:"data"`
}

// Bounds of a bundle that came from elsewhere.
const (
	MaxBundle      = 32 << 20 // encoded bytes
	maxBundleFiles = 20_000
	maxBundlePairs = 4_000
)

var (
	variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	repoNameRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$`)
	segmentRE  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9+_.:@,=~^-]{0,199}$`)
	profileRE  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*:[A-Za-z0-9+_./-]+$`)
)

// bundleTops are the names below etc/portage that a bundle may hold.
var bundleTops = []string{
	"package.accept_keywords", "package.accept_restrict", "package.env", "package.license", "package.mask",
	"package.properties", "package.unmask", "package.use", "env", "patches", "sets", "profile", "savedconfig",
	"bashrc", "make.profile", "categories", "sets.conf",
}

// ValidVariable reports whether name may name a shell variable.
func ValidVariable(name string) bool { return len(name) <= 200 && variableRE.MatchString(name) }

// ValidRepo reports whether name may name an ebuild repository (PMS 3.1.5).
func ValidRepo(name string) bool { return repoNameRE.MatchString(name) }

// Validate checks what writing a configuration from the bundle relies on:
// names keep their grammar, so that none leads out of etc/portage or out of a
// line, and lists are sorted and unique.
func (b *Bundle) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: bundle: %s", ErrTarget, OneLine(fmt.Sprintf(format, args...), 300))
	}
	if b.Format != BundleFormat {
		return bad("format %d, this version reads %d", b.Format, BundleFormat)
	}
	if !archRE.MatchString(b.Arch) || len(b.CHOST) > 100 || len(b.Libc) > 100 {
		return bad("arch %q, CHOST %q", b.Arch, b.CHOST)
	}
	if b.Profile != "" && (!profileRE.MatchString(b.Profile) || strings.Contains(b.Profile, "..") || len(b.Profile) > 300) {
		return bad("profile %q", b.Profile)
	}
	if err := checkFeatures(b.CPU); err != nil {
		return bad("%v", err)
	}
	names := map[string]bool{}
	for _, r := range b.Repos {
		if !ValidRepo(r.Name) || names[r.Name] || len(names) > 1000 {
			return bad("repository %q", r.Name)
		}
		names[r.Name] = true
	}
	for _, r := range b.Repos {
		for _, m := range r.Masters {
			if !names[m] {
				return bad("repository %s has a master %q that is not in the bundle", r.Name, m)
			}
		}
	}
	if !names[b.MainRepo] {
		return bad("no main repository %q", b.MainRepo)
	}
	for what, list := range map[string][]Pair{"make.conf": b.MakeConf, "selection": b.Selections, "header": b.Header} {
		for i, p := range list {
			if what != "selection" && !ValidVariable(p.Name) || !segmentRE.MatchString(p.Name) || strings.ContainsRune(p.Value, 0) ||
				i > 0 && list[i-1].Name >= p.Name || i >= maxBundlePairs {
				return bad("%s %q", what, p.Name)
			}
		}
	}
	for i, f := range b.Files {
		if err := checkBundlePath(f.Path); err != nil || i > 0 && b.Files[i-1].Path >= f.Path || i >= maxBundleFiles {
			return bad("file %q", f.Path)
		}
		// A name cannot be a file and a directory.
		if i > 0 && strings.HasPrefix(f.Path, b.Files[i-1].Path+"/") {
			return bad("file %q", f.Path)
		}
	}
	return nil
}

// ValidBundlePath reports whether a bundle may hold a file of that path.
func ValidBundlePath(p string) bool { return checkBundlePath(p) == nil }

func checkBundlePath(p string) error {
	if p != path.Clean(p) || len(p) > 400 {
		return fmt.Errorf("%w: path", ErrName)
	}
	parts := strings.Split(p, "/")
	if len(parts) > 12 || !slices.Contains(bundleTops, parts[0]) {
		return fmt.Errorf("%w: path", ErrName)
	}
	for _, s := range parts {
		if !segmentRE.MatchString(s) {
			return fmt.Errorf("%w: path", ErrName)
		}
	}
	return nil
}

// ConfigFile is one file of a configuration to be written: Data, or a symbolic
// link to Link.
type ConfigFile struct {
	Path string // below etc/portage, slash-separated
	Data []byte
	Link string
}

// Configuration lays the bundle out as etc/portage of a root in which the
// repositories lie at the given places. It is what the machine that it came
// from has, for Portage; the caller adds what is its own (FEATURES that a build
// is run with, directories, package.use of one job).
func (b *Bundle) Configuration(repos map[string]string) ([]ConfigFile, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "[DEFAULT]\nmain-repo = %s\n", b.MainRepo)
	for _, r := range b.Repos {
		at := repos[r.Name]
		if at == "" || strings.ContainsAny(at, "\n\r") {
			return nil, fmt.Errorf("lay out configuration: %w: no place for the repository %s", ErrTarget, r.Name)
		}
		fmt.Fprintf(&conf, "\n[%s]\nlocation = %s\npriority = %d\nauto-sync = no\n", r.Name, at, r.Priority)
		if len(r.Masters) > 0 {
			fmt.Fprintf(&conf, "masters = %s\n", strings.Join(r.Masters, " "))
		}
	}
	var mk strings.Builder
	for _, p := range b.MakeConf {
		fmt.Fprintf(&mk, "%s=%s\n", p.Name, quoteConf(p.Value))
	}
	out := []ConfigFile{
		{Path: "repos.conf/swarm.conf", Data: []byte(conf.String())},
		{Path: "make.conf", Data: []byte(mk.String())},
	}
	if b.Profile != "" {
		repo, at, _ := strings.Cut(b.Profile, ":")
		if repos[repo] == "" {
			return nil, fmt.Errorf("lay out configuration: %w: no place for the repository %s of the profile", ErrTarget, repo)
		}
		out = append(out, ConfigFile{Path: "make.profile", Link: path.Join(repos[repo], "profiles", at)})
	}
	for _, f := range b.Files {
		out = append(out, ConfigFile{Path: f.Path, Data: f.Data})
	}
	return out, nil
}

// quoteConf writes a value as Portage reads make.conf: once by shlex, which
// takes the outer quotes and their escapes, and then once more, for variables,
// by a reader that follows the quotes that are left (portage.util.varexpand,
// with its quirk that what follows a backslash is taken as it is).
func quoteConf(v string) string {
	var inner strings.Builder
	single, double, escaped := false, false, false
	for _, c := range v {
		quirk := escaped && (c == '\'' || c == '"' || c == '$')
		escaped = false
		switch {
		case quirk:
		case c == '\n':
			c = ' '
		case c == '\'' && !double:
			single = !single
		case c == '"' && !single:
			double = !double
		case c == '$' && !single:
			inner.WriteByte('\\')
		case c == '\\' && !single:
			inner.WriteByte('\\')
			escaped = true
		}
		inner.WriteRune(c)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(inner.String()) + `"`
}

// Change is one difference of two bundles, for people.
type Change struct {
	What string `json:"what"` // "make.conf USE", "file package.use", "gcc"
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Diff lists how b differs from old, sorted.
func (b *Bundle) Diff(old *Bundle) []Change {
	var out []Change
	add := func(what, o, n string) {
		if o != n {
			out = append(out, Change{What: what, Old: o, New: n})
		}
	}
	add("arch", old.Arch, b.Arch)
	add("CHOST", old.CHOST, b.CHOST)
	add("libc", old.Libc, b.Libc)
	add("profile", old.Profile, b.Profile)
	add("main repository", old.MainRepo, b.MainRepo)
	add("CPU features", strings.Join(old.CPU, " "), strings.Join(b.CPU, " "))
	repos := func(b *Bundle) []Pair {
		var ps []Pair
		for _, r := range b.Repos {
			ps = append(ps, Pair{r.Name, strings.TrimSpace(fmt.Sprintf("priority %d %s", r.Priority, strings.Join(r.Masters, " ")))})
		}
		return ps
	}
	files := func(b *Bundle) []Pair {
		var ps []Pair
		for _, f := range b.Files {
			ps = append(ps, Pair{f.Path, string(f.Data)})
		}
		return ps
	}
	for _, l := range []struct {
		what     string
		old, new []Pair
	}{
		{"repository", repos(old), repos(b)}, {"make.conf", old.MakeConf, b.MakeConf}, {"file", files(old), files(b)},
		{"selection", old.Selections, b.Selections}, {"index header", old.Header, b.Header},
	} {
		was, is := map[string]string{}, map[string]string{}
		var names []string
		for _, p := range l.old {
			was[p.Name] = p.Value
			names = append(names, p.Name)
		}
		for _, p := range l.new {
			is[p.Name] = p.Value
			names = append(names, p.Name)
		}
		slices.Sort(names)
		for _, n := range slices.Compact(names) {
			add(l.what+" "+n, was[n], is[n])
		}
	}
	return out
}
