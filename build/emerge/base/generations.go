package base

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/build-swarm/swarm/build"
)

// Generation is one base that a name meant.
type Generation struct {
	Digest string    `json:"digest"`
	Added  time.Time `json:"added"`
}

const (
	// maxStack is how many archives a base is made of at the most: eight updates of
	// two stages each. One more, and they become one.
	maxStack = 16
	// KeepGenerations is how many generations of a base keep their name, the newest
	// among them; older ones that something still builds on stay, too.
	KeepGenerations = 3
	// unpackedFor is how long the files of a base stay that nothing refers to.
	unpackedFor = 24 * time.Hour
)

// flat is a base whose archives have become one, of the same files: what is
// unpacked from either is the same, to the byte. The archive depends on the files
// alone, so that whoever flattens the same generation gets the same name.
func (s *Store) flat(ctx context.Context, name string, man *build.Base) (ref build.BaseRef, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("flatten base %s: %w", name, err)
		}
	}()
	tmp, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		return ref, err
	}
	defer func() { err = errors.Join(err, removeAll(context.WithoutCancel(ctx), tmp)) }()
	dir := filepath.Join(tmp, "root")
	if err := s.unpack(ctx, man, dir); err != nil {
		return ref, err
	}
	layer, err := s.packed(ctx, dir)
	if err != nil {
		return ref, err
	}
	man.Layers = []build.BaseLayer{layer}
	return s.keep(ctx, name, man, dir)
}

// Prune takes the name from a base's generations that are older than the newest
// KeepGenerations, unless keep says that something builds on them, with the
// unpacked files, and returns their digests. The blobs stay as long as the swarm
// has a use for them.
func (s *Store) Prune(ctx context.Context, name string, keep func(digest string) bool) (gone []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.Named(name)
	if err != nil {
		return nil, err
	}
	old := max(0, len(n.Generations)-KeepGenerations)
	rest := slices.Clone(n.Generations[old:])
	for _, g := range slices.Backward(n.Generations[:old]) {
		if keep(g.Digest) || slices.ContainsFunc(rest, func(o Generation) bool { return o.Digest == g.Digest }) {
			rest = slices.Insert(rest, 0, g)
			continue
		}
		gone = append(gone, g.Digest)
	}
	if len(gone) == 0 {
		return nil, nil
	}
	if err := s.write(name, rest); err != nil {
		return nil, err
	}
	for _, digest := range gone {
		if err := s.discard(ctx, digest); err != nil {
			return gone, fmt.Errorf("prune base %s: %w", name, err)
		}
	}
	return gone, nil
}

// Tidy removes the unpacked files of bases that have no name here, that keep knows
// no use for, and that nobody has opened for a day: of the bases of other peers'
// targets a drone has those that it built on.
func (s *Store) Tidy(ctx context.Context, keep func(digest string) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look through the bases: %w", err)
	}
	for _, e := range entries {
		if !validDigest(e.Name()) || keep(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < unpackedFor {
			continue
		}
		if err := s.discard(ctx, e.Name()); err != nil {
			return fmt.Errorf("remove a base that nothing builds on: %w", err)
		}
	}
	return nil
}

// touch notes that a base was opened.
func (s *Store) touch(digest string) error {
	now := time.Now()
	return os.Chtimes(filepath.Join(s.dir, digest), now, now)
}

// discard removes the unpacked files of a base that no name means. s.mu is held.
func (s *Store) discard(ctx context.Context, digest string) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	used := slices.ContainsFunc(names, func(n Named) bool {
		return slices.ContainsFunc(n.Generations, func(g Generation) bool { return g.Digest == digest })
	})
	if used || !validDigest(digest) {
		return nil
	}
	delete(s.made, digest)
	// A build that has it open keeps it until it ends: it is moved first.
	trash := filepath.Join(s.dir, "tmp-gone-"+digest)
	if err := os.Rename(filepath.Join(s.dir, digest), trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeAll(ctx, trash)
}
