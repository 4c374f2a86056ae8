package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// mountMachine mounts the machine's own root, less what is hidden, and returns
// where: an overlay of its own, read-only, below at. Overlayfs refuses layers
// that lie in one another, and whatever else is a layer lies in the machine's
// root; what an overlay shows does not. The cover stands in memory for the same
// reason.
func mountMachine(at string, m *Machine) (string, error) {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=16m"); err != nil {
		return "", fmt.Errorf("mount cover: %w", err)
	}
	cover, host := filepath.Join(at, "cover"), filepath.Join(at, "host")
	if err := errors.Join(os.Mkdir(cover, 0o755), os.Mkdir(host, 0o755)); err != nil {
		return "", fmt.Errorf("make cover: %w", err)
	}
	for _, p := range m.Hide {
		if err := hide(cover, p); err != nil {
			return "", fmt.Errorf("hide %s: %w", p, err)
		}
	}
	for _, f := range m.Files {
		to := filepath.Join(cover, f.Path)
		err := shadowDirs(cover, filepath.Dir(f.Path))
		if err == nil {
			err = os.WriteFile(to, f.Data, os.FileMode(f.Mode&0o777))
		}
		if err != nil {
			return "", fmt.Errorf("cover %s: %w", f.Path, err)
		}
	}
	// Named by a descriptor: the path may hold what separates mount options.
	fd, err := unix.Open(cover, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open cover: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	opts := "index=off,metacopy=off,redirect_dir=off,xino=off,lowerdir=/proc/self/fd/" + strconv.Itoa(fd) + ":/"
	if err := unix.Mount("overlay", host, "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, opts); err != nil {
		return "", fmt.Errorf("mount the machine's root as a layer: %w", err)
	}
	return host, nil
}

// hide covers a directory by an empty one, and a file by overlayfs's mark that
// there is none. What the machine does not have needs no cover.
func hide(cover, p string) error {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := shadowDirs(cover, filepath.Dir(p)); err != nil {
		return err
	}
	at := filepath.Join(cover, p)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := unix.Mknod(at, unix.S_IFCHR, 0)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	if err := shadowDirs(cover, p); err != nil {
		return err
	}
	return unix.Setxattr(at, "trusted.overlay.opaque", []byte("y"), 0)
}

// shadowDirs makes a directory and those above it with the modes and owners
// that they have on the machine, since the upper one's are seen.
func shadowDirs(cover, p string) error {
	var above []string
	for d := filepath.Clean(p); d != "/"; d = filepath.Dir(d) {
		above = append(above, d)
	}
	for _, d := range slices.Backward(above) {
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			return err
		}
		at := filepath.Join(cover, d)
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := errors.Join(unix.Lchown(at, int(st.Uid), int(st.Gid)), unix.Chmod(at, st.Mode&0o7777)); err != nil {
			return err
		}
	}
	return nil
}
