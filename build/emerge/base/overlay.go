package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Overlay lays one layer of an overlay over another in place, as overlayfs
// would show them: onto becomes what from above onto is. Files are linked (both
// must lie on one file system); marks of what is gone are kept, since something
// below onto may still have it.
func Overlay(from, onto string) error {
	var times []func() error
	err := filepath.WalkDir(from, func(at string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil || rel == "." {
			return err
		}
		to := filepath.Join(onto, rel)
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := os.RemoveAll(to); err != nil {
				return err
			}
			return os.Link(at, to)
		}
		if err := overlayDir(at, to); err != nil {
			return err
		}
		if err := errors.Join(unix.Lchown(to, int(st.Uid), int(st.Gid)), unix.Chmod(to, st.Mode&0o7777)); err != nil {
			return err
		}
		times = append(times, func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		})
		return nil
	})
	for _, set := range times {
		if err == nil {
			err = set()
		}
	}
	if err != nil {
		return fmt.Errorf("lay %s over %s: %w", from, onto, err)
	}
	return nil
}

func overlayDir(at, to string) error {
	var below unix.Stat_t
	err := unix.Lstat(to, &below)
	there := err == nil
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	case there && below.Mode&unix.S_IFMT == unix.S_IFDIR && !opaque(at):
		return nil
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	// What took the name here hides what is below, and so does the directory.
	if !there && !opaque(at) {
		return nil
	}
	name := opaqueNames[0]
	if os.Geteuid() != 0 {
		name = opaqueNames[1]
	}
	return unix.Setxattr(to, name, []byte("y"), 0)
}
