package emerge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// ErrOtherTree is wrapped where a release is made of another tree than this
// machine has: what Portage says here would not hold for it.
var ErrOtherTree = errors.New("another tree")

var (
	trialLine = regexp.MustCompile(`^\[ebuild\s+([^\]]*)\]\s+([^\s:]+)`)
	// causeLine and causedLine are of what emerge says about slot operators.
	causeLine  = regexp.MustCompile(`^ *\((\S+?):\S+?, .*\) causes rebuilds for:$`)
	causedLine = regexp.MustCompile(`^ +\((\S+?):\S+?, .*\)$`)
)

// Compile is a package that a consumer would compile.
type Compile struct {
	CPV build.CPV
	// Because is the package for which it is; zero = Portage does not say.
	Because build.CPV
}

// WouldCompile asks emerge what an update (-uDN -g @world) would compile on a
// consumer because of a release: packages that the release has and emerge will
// not take, and installed ones that it would build anew for a library of the
// release. What the swarm has not built at all is no fault of the release. The
// consumer's installed set is laid out in a directory of its own, and index is
// the only binary host; nothing is fetched or installed. It takes about as long
// as `emerge --pretend`.
func (p *Portage) WouldCompile(ctx context.Context, m *release.Manifest, index []byte, set *release.Installed) (out []Compile, err error) {
	fail := func(err error) ([]Compile, error) { return nil, fmt.Errorf("try a release on a consumer: %w", err) }
	var doc document
	env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
	if err := p.ask(ctx, env, map[string]any{"mode": "facts", "packages": []any{}, "keyed": keyedGlobals()}, &doc); err != nil {
		return fail(err)
	}
	tree, err := p.treeOf(ctx, doc.Env.Repos)
	if err != nil {
		return fail(err)
	}
	if m.Tree != "" && m.Tree != tree {
		return fail(ErrOtherTree)
	}
	dir, err := os.MkdirTemp("", "swarm-trial-")
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := p.layOutConsumer(dir, index, set); err != nil {
		return fail(err)
	}
	cmd := exec.CommandContext(ctx, p.Emerge, "--ignore-default-opts", "--color=n", "--nospinner", "--pretend", "--verbose", "--update", "--deep", "--newuse",
		"--getbinpkg", "--binpkg-respect-use=y", "--binpkg-changed-deps=y", "@world")
	cmd.Env = p.consumerEnv(dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fail(fmt.Errorf("emerge --pretend: %w: %s", err, lastLine(string(text))))
	}
	return compiles(string(text), m, set), nil
}

// compiles reads what emerge --pretend said.
func compiles(text string, m *release.Manifest, set *release.Installed) (out []Compile) {
	released := map[string]bool{}
	for i := range m.Entries {
		released[m.Entries[i].CPV.String()] = true
	}
	because, cause := map[build.CPV]build.CPV{}, build.CPV{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if x := causeLine.FindStringSubmatch(line); x != nil {
			cause = cpvOf(x[1], released)
		} else if x := causedLine.FindStringSubmatch(line); x != nil && !cause.IsZero() {
			because[cpvOf(x[1], nil)] = cause
		}
	}
	for line := range strings.Lines(text) {
		t := trialLine.FindStringSubmatch(line)
		if t == nil || provides(set, t[2]) {
			continue // its own package.provided, which this Portage has not, keeps emerge from it
		}
		c, err := build.ParseCPV(t[2])
		if err == nil && (released[t[2]] || strings.Contains(t[1], "r")) {
			out = append(out, Compile{CPV: c, Because: because[c]})
		}
	}
	return out
}

// cpvOf reads a name that may have a build ID behind it, as that of a package that
// is released.
func cpvOf(name string, released map[string]bool) build.CPV {
	if i := strings.LastIndexByte(name, '-'); i > 0 && !released[name] && released[name[:i]] {
		name = name[:i]
	}
	c, err := build.ParseCPV(name)
	if err != nil {
		return build.CPV{}
	}
	return c
}

func provides(set *release.Installed, name string) bool {
	c, err := build.ParseCPV(name)
	return err == nil && slices.ContainsFunc(set.Provided, func(p build.CPV) bool { return p.CP() == c.CP() })
}

// consumerEnv lets emerge see this configuration and, as what is installed, the
// directory: as a Prefix where this Portage is one, else as ROOT.
func (p *Portage) consumerEnv(dir string) []string {
	env := p.environment(p.cfg.ConfigRoot, "")
	if p.cfg.EPrefix != "" {
		env = append(p.environment(p.cfg.ConfigRoot, dir), "PORTAGE_CONFIGROOT="+p.cfg.ConfigRoot)
	} else {
		env = append(env, "ROOT="+dir)
	}
	return append(env, "PKGDIR="+dir+"/packages", "PORTAGE_TMPDIR="+dir+"/tmp", "PORTAGE_BINHOST=file://"+dir+"/binhost")
}

func (p *Portage) layOutConsumer(dir string, index []byte, set *release.Installed) error {
	if p.cfg.EPrefix != "" {
		if err := layOutPrefix(dir, p.globals); err != nil {
			return err
		}
	}
	put := func(name, text string) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	return errors.Join(put("binhost/Packages", string(index)), put("packages/.keep", ""), put("tmp/.keep", ""), layOutInstalled(dir, set))
}
