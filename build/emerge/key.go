package emerge

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// The table of what counts in a build key, beside the package's own facts.
// A variable of the configuration counts unless it is named here: an unknown
// one may decide what a build comes to, and counting one too many costs a
// build, while counting one too few hands out a wrong package.

// uncounted variables say how Portage works, where things lie, whom it tells
// or what it accepts; none of them reaches the content of a package.
func uncounted(name string) bool {
	if slices.Contains(uncountedNames, name) {
		return true
	}
	for _, p := range uncountedPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

var uncountedPrefixes = []string{
	"ACCEPT_", "BINPKG_", "EMERGE_", "FETCHCOMMAND", "RESUMECOMMAND", "GPG_VERIFY_",
	"PORTAGE_", "USE_EXPAND", "SYNC", "CCACHE_", "DISTCC_", "SCCACHE_", "NOCOLOR", "NO_COLOR",
	"CONFIG_PROTECT",
}

var uncountedNames = []string{
	"AUTOCLEAN", "CLEAN_DELAY", "COLLISION_IGNORE", "UNINSTALL_IGNORE", "DISTDIR", "PKGDIR", "RPMDIR",
	"EBEEP_IGNORE", "EPAUSE_IGNORE", "FEATURES", "GENTOO_MIRRORS", "HOME", "INSTALL_MASK", "IUSE_IMPLICIT",
	"LOGDIR", "MAKEOPTS", "NINJAOPTS", "MAKEFLAGS", "NOCONFMEM", "PATH", "PROFILE_ONLY_VARIABLES",
	"PORTDIR", "PORTDIR_OVERLAY", "QUICKPKG_DEFAULT_OPTS", "ROOT", "EROOT", "SYSROOT", "TERM", "TMPDIR", "TMP", "TEMP",
	"USE", "USE_ORDER", "USE_EXPAND", "ENV_UNSET", "ftp_proxy", "http_proxy", "https_proxy",
	"no_proxy", "all_proxy", "RSYNC_PROXY", "SSH_AGENT_PID", "SSH_AUTH_SOCK", "STAGE1_USE", "BOOTSTRAP_USE",
	// These have facets of their own.
	"ARCH", "CHOST", "ELIBC",
}

// secret reports whether a variable looks like a credential: it is nobody's
// business but this machine's, and in no key.
func secret(name, value string) bool {
	return secretName.MatchString(name) || secretURL.MatchString(value)
}

var (
	secretName = regexp.MustCompile(`(?i)passw|secret|token|credential|api_?key|private_?key`)
	secretURL  = regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]*@`)
)

// countedAnyway are variables of an uncounted family that do decide content.
// Those that make.globals sets are asked for by name.
var countedAnyway = []string{
	"PORTAGE_COMPRESS", "PORTAGE_COMPRESS_FLAGS", "PORTAGE_COMPRESS_EXCLUDE_SUFFIXES", "PORTAGE_DOHTML_WARN_ON_SKIPPED_FILES",
	"PORTAGE_STRIP_FLAGS", "PKG_INSTALL_MASK",
}

// travelsAnyway are uncounted variables that a target's configuration keeps: they
// decide which ebuilds may be built and with which flags, and the key has what
// comes of that.
var travelsAnyway = []string{"USE", "USE_ORDER", "ARCH", "CHOST", "ELIBC", "IUSE_IMPLICIT", "STAGE1_USE", "BOOTSTRAP_USE"}

// travels reports whether a variable of make.conf belongs to a target.
func travels(name string) bool {
	return !uncounted(name) || slices.Contains(countedAnyway, name) || slices.Contains(travelsAnyway, name) || strings.HasPrefix(name, "ACCEPT_")
}

// whyUncounted says in a few words why a variable does not travel.
func whyUncounted(name string) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(name, p) })
	}
	switch {
	case name == "INSTALL_MASK":
		return "it would strip what the builds of others need: each machine applies its own when it installs"
	case name == "EMERGE_DEFAULT_OPTS":
		return "your plans honour it, builds do not"
	case has("BINHOST", "BINPKG", "GPG", "PKGDIR", "QUICKPKG"):
		return "where packages come from and how they are packed and signed is each machine's"
	case has("MAKEOPTS", "NINJAOPTS", "MAKEFLAGS", "JOBS", "NICENESS", "SCHEDULING"):
		return "how many jobs run at once is each drone's"
	case has("MIRRORS", "proxy", "PROXY", "FETCHCOMMAND", "RESUMECOMMAND", "SYNC", "RSYNC"):
		return "how this machine fetches"
	case strings.HasSuffix(name, "DIR"), has("TMP", "ROOT", "PORTDIR"):
		return "a place of this machine"
	}
	return "it says how Portage works here, and reaches no package"
}

func keyedGlobals() []string { return countedAnyway }

// keyedFeatures are the FEATURES that change the content of a package.
var keyedFeatures = []string{
	"compressdebug", "dedupdebug", "force-prefix", "installsources", "nodoc", "noinfo", "noman",
	"nostrip", "splitdebug", "stricter", "test", "xattr", "selinux", "fixlafiles", "prelink-checksums",
}

// fileDigests reads what the planner only names. *fileReader is the real one.
type fileDigests interface {
	// Ebuild is the digest of an ebuild without KEYWORDS and comments.
	Ebuild(path string) (string, error)
	// Tree is the digest of all files below a directory, or of one file; ""
	// if it does not exist.
	Tree(path string) (string, error)
	// Patches is Tree of what eapply_user applies: *.patch and *.diff.
	Patches(path string) (string, error)
}

// policy is what a target decides about keys.
type policy struct {
	prefix string // offset that packages are built for
	strict bool   // build.RebuildStrict
}

// isStrict reports the policy that a preimage was made under.
func isStrict(pre []build.Facet) bool {
	return slices.ContainsFunc(pre, func(f build.Facet) bool { return strings.HasPrefix(f.Name, "strict:") })
}

// compilers are the packages whose slot counts in every key.
var compilers = []string{"sys-devel/gcc", "llvm-core/clang", "dev-lang/rust", "dev-lang/rust-bin", "dev-lang/go"}

// takeToolchain makes the compilers those of a base, since builds use these:
// of each the newest. A base without any leaves them as they are.
func (env *environment) takeToolchain(base map[string]build.Installed) {
	slots, versions := stringMap{}, stringMap{}
	newest := map[string]build.Installed{}
	for _, in := range base {
		cp := in.CPV.CP()
		if old, ok := newest[cp]; !ok || release.CompareVersions(in.CPV.Version, old.CPV.Version) > 0 {
			newest[cp] = in
		}
	}
	for _, cp := range compilers {
		if in, ok := newest[cp]; ok {
			slots[cp], _, _ = strings.Cut(in.Slot, "/")
		}
	}
	if len(slots) == 0 {
		return
	}
	for cp := range env.Versions {
		if in, ok := newest[cp]; ok {
			versions[cp] = in.CPV.String()
		}
	}
	env.Toolchain, env.Versions = slots, versions
}

// preimage lists the facets of a node's build key.
//
// Under the strict policy eclasses and the exact toolchain are among them.
func preimage(n *node, env *environment, p policy, files fileDigests) ([]build.Facet, error) {
	ebuild, err := files.Ebuild(n.Ebuild)
	if err != nil {
		return nil, fmt.Errorf("digest ebuild of %s: %w", n.CPV, err)
	}
	fs := []build.Facet{
		{Name: "cpv", Value: n.CPV}, {Name: "repo", Value: n.Repo}, {Name: "slot", Value: n.Slot + "/" + n.SubSlot},
		{Name: "eapi", Value: n.EAPI}, {Name: "ebuild", Value: ebuild},
		{Name: "use", Value: joined(n.UseEffective)}, {Name: "iuse", Value: short(joined(n.IUSEEffective))},
		{Name: "arch", Value: env.Arch}, {Name: "chost", Value: env.CHOST}, {Name: "libc", Value: env.Libc},
		{Name: "prefix", Value: p.prefix},
	}
	add := func(name, value string) {
		if value != "" {
			fs = append(fs, build.Facet{Name: name, Value: value})
		}
	}
	for _, t := range []struct {
		name  string
		read  func(string) (string, error)
		paths []string
	}{{"files", files.Tree, []string{n.Files}}, {"patches", files.Patches, n.Patches}, {"bashrc", files.Tree, n.Bashrcs}} {
		d, err := digestAll(t.read, t.paths)
		if err != nil {
			return nil, fmt.Errorf("digest %s of %s: %w", t.name, n.CPV, err)
		}
		add(t.name, d)
	}
	for _, d := range n.Distfiles {
		add("dist:"+d.Name, short(fmt.Sprintf("%d %s", d.Size, d.Hashes)))
	}
	for kind, text := range boundText(n) {
		add("dep:"+kind, short(text))
	}
	for cp, slot := range env.Toolchain {
		add("cc:"+cp, slot)
	}
	if p.strict {
		for name, version := range env.Versions {
			add("strict:"+name, version)
		}
		for _, e := range n.Eclasses {
			d, err := files.Tree(e.Path)
			if err != nil {
				return nil, fmt.Errorf("digest eclass %s: %w", e.Name, err)
			}
			add("strict:eclass:"+e.Name, d)
		}
	}
	features := env.Features
	if n.Features != nil {
		features = n.Features
	}
	var keyed []string
	for _, f := range features {
		if slices.Contains(keyedFeatures, f) {
			keyed = append(keyed, f)
		}
	}
	add("features", joined(keyed))
	for name, value := range countedVars(n, env) {
		add("var:"+name, short(value))
	}
	slices.SortFunc(fs, func(a, b build.Facet) int { return strings.Compare(a.Name, b.Name) })
	return fs, nil
}

// countedVars are the variables after package.env that count.
func countedVars(n *node, env *environment) map[string]string {
	out := make(map[string]string)
	for _, m := range []stringMap{env.Vars, n.Vars} {
		for k, v := range m {
			if secret(k, v) {
				continue
			}
			if slices.Contains(countedAnyway, k) || !uncounted(k) && !expanded(k, env.UseExpand) {
				out[k] = strings.Join(strings.Fields(v), " ")
			}
		}
	}
	return out
}

// expanded reports whether a variable is one of USE_EXPAND: its value is in
// the package's USE flags, as far as the package has them.
func expanded(name string, useExpand []string) bool { return slices.Contains(useExpand, name) }

// boundText is the evaluated dependencies with every bound := in place.
func boundText(n *node) map[string]string {
	out := make(map[string]string, len(n.Deps.Text))
	for kind, text := range n.Deps.Text {
		words := strings.Fields(text)
		for i, w := range words {
			for _, op := range n.Deps.SlotOps {
				if op.Kind == kind && op.Atom == w && op.Bound != "" {
					words[i] = op.Bound
				}
			}
		}
		out[kind] = strings.Join(words, " ")
	}
	return out
}

func joined(words []string) string {
	w := slices.Clone(words)
	slices.Sort(w)
	return strings.Join(slices.Compact(w), " ")
}

// short keeps a value that fits a line and hashes a longer one.
func short(s string) string {
	if len(s) <= 80 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Differ names the first facet in which another build of a package differs from
// the one that is wanted, as "NAME is X here, the job has Y" (here: the other);
// "" if only bound dependencies do.
func Differ(want, other []build.Facet) string { return differ(want, other) }

func digestAll(read func(string) (string, error), paths []string) (string, error) {
	h := sha256.New()
	found := false
	for i, p := range paths {
		d, err := read(p)
		if err != nil {
			return "", err
		}
		if d != "" {
			found = true
			fmt.Fprintf(h, "%d %s\n", i, d)
		}
	}
	if !found {
		return "", nil
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
