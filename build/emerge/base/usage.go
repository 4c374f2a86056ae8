package base

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/emerge/sandbox"
)

// Usage is what dir and all below it take on disk, in bytes. Builds may write there
// meanwhile: what vanishes does not count, and no link is followed. What belongs to
// ids that only a sandbox has is counted by one.
func Usage(ctx context.Context, dir string) (int64, error) {
	n, err := usage(ctx, dir)
	if !errors.Is(err, fs.ErrPermission) {
		return n, err
	}
	var out strings.Builder
	if err := sandbox.Do(ctx, OpUsage, dir, nil, &out); err != nil {
		return 0, err
	}
	return strconv.ParseInt(out.String(), 10, 64)
}

// opUsage is usage with the ids of a sandbox.
func opUsage(ctx context.Context, dir string, _ io.Reader, out io.Writer) error {
	n, err := usage(ctx, dir)
	if err == nil {
		_, err = fmt.Fprint(out, n)
	}
	return err
}

const (
	// deepest is how far down directories are counted: each level takes a file
	// descriptor.
	deepest = 200
	// maxLinks bounds what is remembered of files with several names; beyond it
	// each name counts.
	maxLinks = 1 << 16
)

// tally is a Usage under way.
type tally struct {
	ctx   context.Context
	bytes int64
	seen  map[[2]uint64]bool // device and inode of files with several names
}

func usage(ctx context.Context, dir string) (int64, error) {
	t := tally{ctx: ctx, seen: map[[2]uint64]bool{}}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	t.count(&st)
	if err := t.below(unix.AT_FDCWD, dir, 0); err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return t.bytes, nil
}

func (t *tally) count(st *unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if t.seen[id] {
			return
		}
		if len(t.seen) < maxLinks {
			t.seen[id] = true
		}
	}
	t.bytes += st.Blocks * 512
}

// below counts what is in the directory name of at. It goes by descriptors, so that
// a build that puts a link in a directory's place leads nowhere.
func (t *tally) below(at int, name string, depth int) error {
	if err := t.ctx.Err(); err != nil || depth > deepest {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		for _, n := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				if err := gone(err); err != nil {
					return err
				}
				continue
			}
			t.count(&st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				if err := t.below(fd, n, depth+1); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return gone(err)
		}
	}
}

// gone passes over what is not there, or no directory, any more.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}
