package emerge

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/build/worker"
)

// fetch downloads the sources, if any are missing: the only run that sees a
// network.
func (m *room) fetch(ctx context.Context) error {
	lacks, err := m.lacks()
	if err != nil {
		return prepare(&m.req.Job, err)
	}
	if len(lacks) == 0 {
		return nil
	}
	for _, d := range lacks {
		if d.Restricted {
			return &build.Failure{Class: build.BadNetwork, Reason: d.Name + " may not be downloaded by a program (RESTRICT=fetch), and nobody in the swarm has it"}
		}
	}
	m.phase("fetch")
	defer m.phase("start")
	j := &m.req.Job
	s, err := m.scratch("packages", emergeWords(m.p.Emerge, "--oneshot", "--fetchonly", "--nodeps", "="+j.CPV.String()+"::"+j.Repo)...)
	if err != nil {
		return err
	}
	s.Network = true
	for i := range s.Binds {
		if s.Binds[i].Target == inDist {
			s.Binds[i].Write = true
		}
	}
	for _, f := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"} {
		if real, err := filepath.EvalSymlinks(f); err == nil {
			s.Binds = append(s.Binds, sandbox.Bind{Source: real, Target: f})
		}
	}
	if ca, err := filepath.EvalSymlinks("/etc/ssl/certs"); err == nil {
		s.Binds = append(s.Binds, sandbox.Bind{Source: ca, Target: "/etc/ssl/certs"})
	}
	err = m.runEmerge(ctx, s)
	if f, ok := errors.AsType[*build.Failure](err); ok && f.Class == build.BadPackage {
		return &build.Failure{Class: build.BadNetwork, Reason: f.Reason}
	}
	return err
}

// lacks lists what of the job's sources is not in its directory. What is there and
// is not what the Manifest says is taken out: Portage would download it again in
// the run that has no network.
func (m *room) lacks() (out []distfile, err error) {
	for _, d := range m.facts.Distfiles {
		src := build.SourceOf(d.Name, d.Size, d.Hashes)
		if !src.Valid() {
			out = append(out, d)
			continue
		}
		path := filepath.Join(m.dir(worker.SourceDir), src.Name)
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			out = append(out, d)
			continue
		}
		if err != nil {
			return nil, err
		}
		err = src.Check(f)
		if cerr := f.Close(); cerr != nil {
			return nil, cerr
		}
		if errors.Is(err, build.ErrSource) {
			m.out.say("%v: it is fetched again", err)
			out = append(out, d)
			err = os.Remove(path)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
