package emerge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
)

// conversion is what a plan is made with: the base, and who lends seeds.
func (p *Portage) conversion(ctx context.Context, req PlanRequest, tree string) conversion {
	c := conversion{
		target: req.Target, prefix: p.prefixFacet(), tree: tree, noBase: p.cfg.BuildPrefix != "",
		bundle: req.Bundle, baseRef: req.Base, strict: req.Strict,
	}
	if !req.Base.IsZero() {
		c.base = make(map[string]build.Installed, len(req.BaseHas))
		for _, in := range req.BaseHas {
			c.base[in.CPV.String()] = in
		}
	}
	if req.KeepSource != nil {
		c.source = func(s build.Source) (string, error) { return req.KeepSource(ctx, s) }
	}
	if req.Built != nil {
		c.built = func(k build.Key) (bool, error) { return req.Built(ctx, k) }
	}
	if req.Keep == nil && req.Lent == nil {
		return c
	}
	c.installed = func(qs []seedQuestion) ([]installedSeed, error) {
		var doc struct {
			reply
			Seeds []installedSeed `json:"seeds"`
		}
		env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
		err := p.ask(ctx, env, map[string]any{"mode": "seeds", "packages": qs}, &doc)
		for i, s := range doc.Seeds {
			if cpv, err := build.ParseCPV(s.CPV); req.Lent != nil && (err != nil || req.Lent(cpv) == "") {
				doc.Seeds[i] = installedSeed{}
			}
		}
		return doc.Seeds, err
	}
	c.lend = func(cpv build.CPV) (string, error) {
		if req.Lent != nil {
			return req.Lent(cpv), nil
		}
		dir, err := os.MkdirTemp("", "swarm-seed-")
		if err != nil {
			return "", fmt.Errorf("pack %s: %w", cpv, err)
		}
		cid, err := p.lend(ctx, dir, cpv, req.Keep)
		return cid, errors.Join(err, os.RemoveAll(dir))
	}
	return c
}

// lend packs an installed package and keeps it.
func (p *Portage) lend(ctx context.Context, dir string, cpv build.CPV, keep func(context.Context, string) (string, error)) (string, error) {
	path, err := p.Quickpkg(ctx, dir, cpv)
	if err != nil {
		return "", err
	}
	cid, err := keep(ctx, path)
	if err != nil {
		return "", fmt.Errorf("keep the installed %s: %w", cpv, err)
	}
	return cid, nil
}

// Quickpkg packs an installed package, its configuration files included, into
// a package below dir, and returns the file. It takes a few seconds. What it
// packs is what lies there: files that were changed since are changed in it.
func (p *Portage) Quickpkg(ctx context.Context, dir string, cpv build.CPV) (string, error) {
	if err := cpv.Validate(); err != nil {
		return "", fmt.Errorf("pack the installed package: %w", err)
	}
	program, err := p.beside("quickpkg")
	if err != nil {
		return "", fmt.Errorf("pack the installed %s: %w", cpv, err)
	}
	cmd := exec.CommandContext(ctx, program, "--include-config=y", "="+cpv.String())
	cmd.Env = append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "PKGDIR="+dir, "BINPKG_FORMAT=gpkg", "BINPKG_COMPRESS=zstd",
		"PORTAGE_TMPDIR="+dir, "FEATURES=-binpkg-signing -binpkg-multi-instance")
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout = &capped{buf: &out, max: 64 << 10, tail: true}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("pack the installed %s: %w: %s", cpv, err, lastLine(out.String()))
	}
	var found []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(path, ".gpkg.tar") {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("pack the installed %s: quickpkg wrote %d packages: %s", cpv, len(found), lastLine(out.String()))
	}
	return found[0], nil
}

// beside finds another program of the Portage that was detected.
func (p *Portage) beside(name string) (string, error) {
	for _, dir := range []string{filepath.Dir(p.Emerge), "/usr/bin", "/usr/sbin"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: no %s beside %s", ErrUnusable, name, p.Emerge)
}
