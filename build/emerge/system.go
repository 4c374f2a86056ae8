package emerge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// SystemPackages lists the installed packages of @system, Portage itself and
// all that these need to run, needed ones first. ErrNoPackage where the profile
// has no @system or some of it is not installed.
func (p *Portage) SystemPackages(ctx context.Context) ([]build.CPV, error) {
	var doc struct {
		reply
		Packages []string `json:"packages"`
		Absent   []string `json:"absent"`
	}
	env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
	if err := p.ask(ctx, env, map[string]any{"mode": "system"}, &doc); err != nil {
		return nil, fmt.Errorf("list @system: %w", err)
	}
	if len(doc.Absent) > 0 {
		return nil, fmt.Errorf("list @system: %w: not installed here: %s", ErrNoPackage, build.OneLine(strings.Join(doc.Absent, ", "), 300))
	}
	out := make([]build.CPV, 0, len(doc.Packages))
	for _, s := range doc.Packages {
		cpv, err := build.ParseCPV(s)
		if err != nil {
			return nil, fmt.Errorf("list @system: %w", err)
		}
		out = append(out, cpv)
	}
	return out, nil
}

// FillSystem packs this machine's @system and installs the packages into the
// empty directory dir: a root that packages can be built from. It takes a few
// seconds for each package; tell hears what is done, and how many packages are.
func (p *Portage) FillSystem(ctx context.Context, dir string, tell func(what string, done, all int)) (err error) {
	packages, err := p.SystemPackages(ctx)
	if err != nil {
		return err
	}
	pkgs, err := os.MkdirTemp("", "swarm-system-")
	if err != nil {
		return fmt.Errorf("pack @system: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(pkgs)) }()
	args := []string{"--ignore-default-opts", "--color=n", "--nospinner", "--root=" + dir, "--oneshot", "--usepkgonly", "--nodeps", "--jobs=1"}
	for i, cpv := range packages {
		tell("pack @system", i, len(packages))
		if _, err := p.Quickpkg(ctx, pkgs, cpv); err != nil {
			return err
		}
		args = append(args, "="+cpv.String())
	}
	tell("install @system into an empty root", 0, 0)
	cmd := exec.CommandContext(ctx, p.Emerge, args...)
	cmd.Env = append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "PKGDIR="+pkgs, "PORTAGE_TMPDIR="+pkgs, "INSTALL_MASK=-*", "CONFIG_PROTECT=-*",
		"ACCEPT_KEYWORDS=**", "ACCEPT_LICENSE=*", "FEATURES="+strings.Join(append(p.features(), "-binpkg-multi-instance"), " "))
	cmd.Dir = "/"
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install @system into %s: %w: %s", filepath.Base(dir), err, lastLine(said.String()))
	}
	return nil
}
