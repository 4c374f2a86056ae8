package sample

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/build-swarm/swarm/build/gpkg"
)

// unpackImage writes a verified package below root. os.Root keeps every path
// inside, whatever symlinks the packages before it left there. Owners and
// setuid bits are dropped: nothing in a build root needs them.
func unpackImage(ctx context.Context, root *os.Root, p *gpkg.Package) error {
	return p.Walk(ctx, func(f gpkg.File, content io.Reader) error {
		if err := unpackMember(root, f, content); err != nil {
			return fmt.Errorf("unpack %q: %w", f.Name, err)
		}
		return nil
	})
}

func unpackMember(root *os.Root, f gpkg.File, content io.Reader) error {
	mode := fs.FileMode(f.Mode & 0o777)
	if f.Kind == gpkg.Dir {
		if f.Name == "." {
			return nil
		}
		return root.MkdirAll(f.Name, mode|0o700)
	}
	if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
		return err
	}
	if err := root.RemoveAll(f.Name); err != nil {
		return err
	}
	switch f.Kind {
	case gpkg.Symlink:
		return root.Symlink(f.Link, f.Name)
	case gpkg.Hardlink:
		return root.Link(f.Link, f.Name)
	}
	w, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, content); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
