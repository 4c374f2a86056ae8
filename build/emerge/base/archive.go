package base

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// skipped are directories whose content belongs to a running system or can be
// had again; they themselves are kept.
var skipped = []string{
	"dev", "proc", "sys", "run", "tmp", "var/tmp", "var/cache/distfiles", "var/cache/binpkgs", "var/cache/edb/binhost", "var/db/repos",
	"var/log", "var/lock", "var/run", "lost+found",
}

const xattrPrefix = "SCHILY.xattr."

// Pack writes the directory as an archive, and returns how many bytes of files
// it holds. Equal directories give equal bytes.
func Pack(ctx context.Context, dir string, w io.Writer) (files int64, err error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	tw := tar.NewWriter(z)
	p := packer{root: dir, tw: tw, links: map[[2]uint64]string{}}
	err = filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		if rel == "." {
			return nil
		}
		if slices.Contains(skipped, path.Dir(rel)) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return p.add(at, rel)
	})
	if err = errors.Join(err, tw.Close(), z.Close()); err != nil {
		return 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	return p.files, nil
}

type packer struct {
	root  string
	tw    *tar.Writer
	links map[[2]uint64]string // device and inode of files with several names
	files int64
}

func (p *packer) add(at, rel string) error {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return fmt.Errorf("look at %s: %w", rel, err)
	}
	seconds, _ := st.Mtim.Unix()
	h := &tar.Header{
		Format: tar.FormatPAX, Name: rel, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(seconds, 0), PAXRecords: map[string]string{},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, rel+"/"
		if opaque(at) {
			h.PAXRecords[xattrPrefix+opaqueNames[0]] = "y"
		}
	case unix.S_IFLNK:
		to, err := os.Readlink(at)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.ModTime = tar.TypeSymlink, to, time.Unix(0, 0) // nobody compares a link's
	case unix.S_IFREG:
		id := [2]uint64{st.Dev, st.Ino}
		if first := p.links[id]; first != "" {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			break
		}
		if st.Nlink > 1 {
			p.links[id] = rel
		}
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		if err := attributes(at, h.PAXRecords); err != nil {
			return fmt.Errorf("read attributes of %s: %w", rel, err)
		}
	case unix.S_IFCHR:
		if st.Rdev != 0 {
			return nil
		}
		h.Typeflag = tar.TypeChar // a whiteout
	default:
		return nil // sockets, pipes, devices
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", rel, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	p.files += h.Size
	_, err = io.CopyN(p.tw, f, h.Size)
	return err
}

// attributes reads the extended attributes that belong to the content.
func attributes(at string, into map[string]string) error {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(at, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range bytes.Split(buf[:n], []byte{0}) {
		s := string(name)
		if s != "security.capability" && (!strings.HasPrefix(s, "user.") || strings.HasPrefix(s, "user.overlay.")) {
			continue
		}
		val := make([]byte, 64<<10)
		m, err := unix.Lgetxattr(at, s, val)
		if err != nil {
			return err
		}
		into[xattrPrefix+s] = string(val[:m])
	}
	return nil
}

// Bounds of an archive that came from elsewhere.
const (
	maxEntries = 4_000_000
	maxDepth   = 64
)

// Unpack lays an archive (a tar compressed by zstd) over what is in dir, which
// must exist. It takes at most limit bytes of files. A name or link that leads
// out of dir is an error.
func Unpack(ctx context.Context, r io.Reader, dir string, limit int64) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	defer z.Close()
	return UnpackTar(ctx, z, dir, limit)
}

// UnpackTar is Unpack of a plain tar.
func UnpackTar(ctx context.Context, r io.Reader, dir string, limit int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	u := unpacker{root: root, left: limit, owners: os.Geteuid() == 0, times: map[string]time.Time{}}
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.dirTimes()
		}
		if err == nil && n > maxEntries {
			err = fmt.Errorf("more than %d entries", maxEntries)
		}
		if err == nil {
			err = u.entry(h, tr)
		}
		if err != nil {
			return fmt.Errorf("unpack into %s: %w", dir, err)
		}
	}
}

type unpacker struct {
	root   *os.Root
	left   int64
	owners bool // files get their owners, which takes root
	times  map[string]time.Time
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if name == "." {
		return nil
	}
	if !filepath.IsLocal(name) || strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("%q: a name that leads elsewhere", h.Name)
	}
	if slices.Contains(skipped, path.Dir(name)) {
		return nil
	}
	if err := u.write(h, name, r); err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	return nil
}

func (u *unpacker) write(h *tar.Header, name string, r io.Reader) error {
	mode := fs.FileMode(h.Mode & 0o777)
	for bit, m := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if h.Mode&bit != 0 {
			mode |= m
		}
	}
	switch h.Typeflag {
	case tar.TypeBlock, tar.TypeFifo:
		return nil // a root for builds has none
	case tar.TypeChar:
		if h.Devmajor != 0 || h.Devminor != 0 {
			return nil
		}
	}
	if h.Typeflag != tar.TypeDir {
		if err := u.root.RemoveAll(name); err != nil {
			return err
		}
		if err := u.parent(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(h, name, mode)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.own(h, name)
	case tar.TypeLink:
		return u.root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	case tar.TypeReg:
		return u.file(h, name, mode, r)
	}
	return nil // a whiteout took the name away above; the rest has no content
}

func (u *unpacker) parent(name string) error {
	if d := path.Dir(name); d != "." {
		return u.root.MkdirAll(d, 0o755)
	}
	return nil
}

func (u *unpacker) directory(h *tar.Header, name string, mode fs.FileMode) error {
	info, err := u.root.Lstat(name)
	if err == nil && (!info.IsDir() || h.PAXRecords[xattrPrefix+opaqueNames[0]] != "") {
		if err := u.root.RemoveAll(name); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if err != nil {
		if err := u.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	if err := u.own(h, name); err != nil {
		return err
	}
	u.times[name] = h.ModTime
	return u.root.Chmod(name, mode)
}

func (u *unpacker) file(h *tar.Header, name string, mode fs.FileMode, r io.Reader) (err error) {
	if u.left -= h.Size; u.left < 0 {
		return errors.New("the archive holds more than was told")
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	// The owner first: a change of owner takes set-user-ID and capabilities.
	if u.owners {
		if err := f.Chown(h.Uid, h.Gid); err != nil {
			return err
		}
	}
	for k, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(k, xattrPrefix); ok && (attr == "security.capability" || strings.HasPrefix(attr, "user.")) {
			if err := unix.Fsetxattr(int(f.Fd()), attr, []byte(v), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
				return fmt.Errorf("set %s: %w", attr, err)
			}
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	at := unix.NsecToTimeval(h.ModTime.Unix() * int64(time.Second))
	tv := []unix.Timeval{at, at}
	return unix.Futimes(int(f.Fd()), tv)
}

func (u *unpacker) own(h *tar.Header, name string) error {
	if !u.owners {
		return nil
	}
	return u.root.Lchown(name, h.Uid, h.Gid)
}

// dirTimes sets the times of directories, which filling them changed.
func (u *unpacker) dirTimes() error {
	for name, t := range u.times {
		err := u.root.Chtimes(name, t, t)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set time of %s: %w", name, err)
		}
	}
	return nil
}
