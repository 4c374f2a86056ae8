package base

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
)

// AddStage makes a base of a stage archive and lets name mean it.
func (s *Store) AddStage(ctx context.Context, name string, st Stage) (build.BaseRef, error) {
	return s.add(ctx, name, build.Base{Kind: build.BaseStage3}, func(dir string) (string, error) { return st.unpack(ctx, dir) })
}

// AddDirectory makes a base of a directory that fill writes; source says in a
// line what it is made from. It is the way of @system's packages.
func (s *Store) AddDirectory(ctx context.Context, name, source string, fill func(dir string) error) (build.BaseRef, error) {
	return s.add(ctx, name, build.Base{Kind: build.BaseSystem}, func(dir string) (string, error) { return source, fill(dir) })
}

// AddHost lets name mean this machine's own root. portage is the version that
// it carries.
func (s *Store) AddHost(ctx context.Context, name, portage string) (build.BaseRef, error) {
	if err := checkName(name); err != nil {
		return build.BaseRef{}, err
	}
	if os.Geteuid() != 0 {
		return build.BaseRef{}, fmt.Errorf("make base %s: a host base wants the daemon to run as root", name)
	}
	man := build.Base{Format: build.BaseFormat, Kind: build.BaseHost, Arch: s.arch, Source: "this machine's own root", Portage: portage}
	var err error
	if man.Host, err = HostState(); err != nil {
		return build.BaseRef{}, fmt.Errorf("make base %s: %w", name, err)
	}
	packages, err := Packages("/")
	if err != nil {
		return build.BaseRef{}, fmt.Errorf("make base %s: %w", name, err)
	}
	man.Packages = List(packages)
	return s.keepNamed(ctx, name, &man, "")
}

// Next is what the base after another is called.
type Next struct {
	Name       string
	Generation int
	Source     string // for people
}

// ErrHostBase is wrapped where a host base cannot have a next generation.
var ErrHostBase = errors.New("a host base is updated by updating the machine, then swarm base add --host")

// AddLayer makes the next generation of a base, or a stage on the way there, of
// what an overlay changed above it: one archive more or, where these are many, one
// in the place of all. Name lets its name mean it.
func (s *Store) AddLayer(ctx context.Context, on *Root, upper string, next Next) (build.BaseRef, error) {
	name := next.Name
	if on.Manifest.Kind == build.BaseHost {
		return build.BaseRef{}, fmt.Errorf("update base %s: %w", name, ErrHostBase)
	}
	man := *on.Manifest
	man.Generation, man.From, man.Source = next.Generation, on.Ref.Digest, next.Source
	layer, err := s.packed(ctx, upper)
	if err != nil {
		return build.BaseRef{}, fmt.Errorf("update base %s: %w", name, err)
	}
	man.Layers = append(append([]build.BaseLayer(nil), man.Layers...), layer)
	packages, err := Packages(append([]string{upper}, on.Database()...)...)
	if err != nil {
		return build.BaseRef{}, fmt.Errorf("update base %s: %w", name, err)
	}
	man.Packages = List(packages)
	man.Portage = portageIn(packages)
	if len(man.Layers) > maxStack {
		return s.flat(ctx, name, &man)
	}
	return s.keep(ctx, name, &man, "")
}

// Name lets the name of a base that is laid out here mean it from now on.
func (s *Store) Name(ref build.BaseRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Stat(filepath.Join(s.dir, ref.Digest)); err != nil {
		return fmt.Errorf("name base %s: %w", ref.Name, err)
	}
	return s.name(ref)
}

func checkName(name string) error {
	if !build.ValidTarget(name) {
		return fmt.Errorf("make base %q: want a short word of a-z, 0-9, dot, dash", name)
	}
	return nil
}

func (s *Store) add(ctx context.Context, name string, man build.Base, fill func(dir string) (source string, err error)) (ref build.BaseRef, err error) {
	if err := checkName(name); err != nil {
		return ref, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("make base %s: %w", name, err)
		}
	}()
	if os.Geteuid() != 0 {
		return ref, errors.New("it takes root, since files get their owners; add it on a peer that runs as root, others fetch it")
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return ref, err
	}
	tmp, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		return ref, err
	}
	defer func() { err = errors.Join(err, removeAll(context.WithoutCancel(ctx), tmp)) }()
	dir := filepath.Join(tmp, "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return ref, err
	}
	man.Format, man.Arch = build.BaseFormat, s.arch
	if man.Source, err = fill(dir); err != nil {
		return ref, err
	}
	packages, err := Packages(dir)
	if err != nil {
		return ref, err
	}
	man.Packages, man.Portage = List(packages), portageIn(packages)
	layer, err := s.packed(ctx, dir)
	if err != nil {
		return ref, err
	}
	man.Layers = []build.BaseLayer{layer}
	return s.keepNamed(ctx, name, &man, dir)
}

// packed stores a directory as an archive.
func (s *Store) packed(ctx context.Context, dir string) (build.BaseLayer, error) {
	r, w := io.Pipe()
	var files int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err := Pack(ctx, dir, w)
		files = n
		_ = w.CloseWithError(err) // always nil
	}()
	info, err := s.blobs.Put(ctx, r)
	_ = r.CloseWithError(err) // always nil
	<-done
	if err != nil {
		return build.BaseLayer{}, fmt.Errorf("store archive: %w", err)
	}
	return build.BaseLayer{CID: info.CID.String(), Bytes: info.Size, Files: files}, nil
}

// keepNamed is keep, and lets the name mean the base.
func (s *Store) keepNamed(ctx context.Context, name string, man *build.Base, dir string) (build.BaseRef, error) {
	ref, err := s.keep(ctx, name, man, dir)
	if err != nil {
		return ref, err
	}
	return ref, s.Name(ref)
}

// keep stores the manifest and lays the base out.
func (s *Store) keep(ctx context.Context, name string, man *build.Base, dir string) (build.BaseRef, error) {
	ref, err := man.Ref(name)
	if err != nil {
		return ref, err
	}
	b, err := build.Marshal(man)
	if err != nil {
		return ref, err
	}
	info, err := s.blobs.Put(ctx, bytes.NewReader(b))
	if err != nil {
		return ref, fmt.Errorf("store manifest: %w", err)
	}
	if c, err := ref.CID(); err != nil || c != info.CID {
		return ref, fmt.Errorf("store manifest: %w: named %s", cas.ErrCorrupt, info.CID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return ref, s.layOut(ctx, ref, man, dir)
}

// portageIn is the version of Portage among packages.
func portageIn(packages map[build.CPV]Package) string {
	for cpv := range packages {
		if cpv.CP() == "sys-apps/portage" {
			return cpv.Version
		}
	}
	return ""
}
