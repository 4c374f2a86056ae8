package emerge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

// Probe finds out by trying whether builds are isolated here: in a sandbox with
// a network a listener of this process must be reached, in one without it must
// not; and there must be a user 250 that files can be given to. It is asked once
// at start; until it went well CanBuild says why not. The error is one line.
func (r *Roots) Probe(ctx context.Context) error {
	err := r.probe(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unready = err
	return err
}

func (r *Roots) probe(ctx context.Context) (err error) {
	if err := sandbox.Sweep(); err != nil {
		r.cfg.Log.Warn("control groups of earlier builds are left", "error", err)
	}
	release, err := r.layers.takeTurn(ctx) // it cleans
	if err != nil {
		return err
	}
	release()
	if err := r.cfg.Bases.Sweep(ctx); err != nil {
		return err
	}
	if err := r.sweep(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(r.cfg.Dir, "probe-")
	if err != nil {
		return fmt.Errorf("probe isolation: %w", err)
	}
	defer func() { err = errors.Join(err, removeTree(ctx, dir)) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("probe isolation: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return fmt.Errorf("probe isolation: %w", err)
	}
	for n, network := range []bool{true, false} {
		said, err := r.try(ctx, filepath.Join(dir, strconv.Itoa(n)), port, network)
		switch {
		case err != nil:
			return fmt.Errorf("builds cannot be isolated here: %w", err)
		case !strings.Contains(said, "user 250\n"):
			return fmt.Errorf("builds cannot be isolated here: files cannot be given to the user 250 (%s)", lastLine(said))
		case network && !strings.Contains(said, "connected\n"):
			return fmt.Errorf("builds cannot be isolated here: the probe of the network does not work (%s)", lastLine(said))
		case !network && strings.Contains(said, "connected\n"):
			return errors.New("builds cannot be isolated here: the network is in reach of a build that should have none")
		}
	}
	return nil
}

// sweep removes what a process that was killed left.
func (r *Roots) sweep(ctx context.Context) error {
	for _, kind := range []string{"probe-*", "next-*"} {
		left, err := filepath.Glob(filepath.Join(r.cfg.Dir, kind))
		if err != nil {
			return fmt.Errorf("look for what was left: %w", err)
		}
		for _, d := range left {
			if err := removeTree(ctx, d); err != nil {
				return fmt.Errorf("remove what was left: %w", err)
			}
		}
	}
	return nil
}

func (r *Roots) try(ctx context.Context, dir, port string, network bool) (string, error) {
	for _, d := range []string{"fs", "work", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	s := sandbox.Spec{
		Upper: filepath.Join(dir, "fs"), Work: filepath.Join(dir, "work"), Mount: filepath.Join(dir, "mnt"), Network: network,
		Args: []string{"/bin/bash", "-c", "touch /swarm-probe && chown 250:250 /swarm-probe && stat -c 'user %u' /swarm-probe; exec 3<>/dev/tcp/127.0.0.1/" + port + " && echo connected"},
		Env:  []string{"PATH=" + systemPath},
	}
	if os.Geteuid() == 0 {
		s.Machine = &sandbox.Machine{}
	} else {
		// An ordinary user's overlay takes no root that others are mounted in: a
		// root of links into the machine's /usr will do to find out.
		lower := filepath.Join(dir, "lower")
		if err := os.Mkdir(lower, 0o755); err != nil {
			return "", err
		}
		for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
			if err := os.Symlink("usr/"+d, filepath.Join(lower, d)); err != nil {
				return "", err
			}
		}
		s.Lower, s.Binds = []string{lower}, []sandbox.Bind{{Source: "/usr", Target: "/usr"}}
	}
	_, out, err := sandbox.Output(ctx, s, nil, 16<<10)
	return string(out), err
}
