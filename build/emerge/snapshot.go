package emerge

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/build-swarm/swarm/build"
)

// Tree is an ebuild repository as it lies on this machine.
type Tree struct {
	Name     string `cbor:"name" json:"name"`
	Path     string `cbor:"-" json:"-"`
	Digest   string `cbor:"digest" json:"digest"`     // TreeDigest
	Revision string `cbor:"rev" json:"revision"`      // of git, or what a sync wrote; "" where nothing tells
	Stamp    int64  `cbor:"stamp" json:"stamp"`       // seconds since 1970 of the revision; 0 = unknown
	Git      bool   `cbor:"git,omitempty" json:"git"` // it is a checkout
}

// Trees lists the repositories of the configuration, by name. The first call
// reads every file; later ones only what changed.
func (p *Portage) Trees(ctx context.Context) ([]Tree, error) {
	doc, err := p.evaluated(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the repositories: %w", err)
	}
	var out []Tree
	for _, r := range doc.Env.Repos {
		t := Tree{Name: build.OneLine(r.Name, 100), Path: r.Path}
		if t.Digest, err = p.trees.digest(ctx, r.Path); err != nil {
			return nil, fmt.Errorf("look at repository %s: %w", r.Name, err)
		}
		t.Revision, t.Stamp, t.Git = revisionOf(ctx, r.Path)
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tree) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// LostTrees lists the repositories of the configuration whose place is not there, with
// that: Portage goes on without them.
func (p *Portage) LostTrees(ctx context.Context) ([]Tree, error) {
	doc, err := p.evaluated(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the repositories: %w", err)
	}
	var out []Tree
	for _, r := range doc.Lost {
		out = append(out, Tree{Name: build.OneLine(r.Name, 100), Path: r.Path})
	}
	return out, nil
}

// revisionOf is what says of a repository which one it is. It proves nothing:
// the digest does.
func revisionOf(ctx context.Context, dir string) (rev string, stamp int64, git bool) {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		git = true
		cmd := exec.CommandContext(ctx, "git", "-C", dir, "-c", "safe.directory="+dir, "log", "-1", "--format=%H %ct")
		if out, err := cmd.Output(); err == nil {
			if f := strings.Fields(string(out)); len(f) == 2 {
				n, _ := strconv.ParseInt(f[1], 10, 64) // git's own figure
				return f[0], n, true
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "metadata/timestamp.commit")); err == nil {
		if f := strings.Fields(string(b)); len(f) >= 2 { // HASH EPOCH ISO
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return build.OneLine(f[0], 64), n, git
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "metadata/timestamp.chk")); err == nil {
		text := strings.TrimSpace(string(b))
		if t, err := time.Parse("Mon, 02 Jan 2006 15:04:05 -0700", text); err == nil {
			return "", t.Unix(), git
		}
	}
	return "", 0, git
}

// Bounds of a snapshot that came from elsewhere. ::gentoo has 180,000 files in
// 700 MiB.
const (
	maxTreeFiles = 2_000_000
	maxTreeBytes = 8 << 30
)

// unpacked is what a snapshot leaves out: what a sync keeps for itself. The
// metadata cache is in it, since without it planning takes minutes.
func leftOutOfSnapshot(rel string) bool {
	switch rel {
	case ".git", ".svn", ".hg", ".bzr", "distfiles", "packages", "lost+found", ".unreal":
		return true
	}
	return false
}

// Pack writes a repository as a compressed archive: equal content (the metadata
// cache and the words of its sync included) gives equal bytes, whatever the
// times, owners and order of its files.
func Pack(ctx context.Context, dir string, w io.Writer) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("pack repository: %w", err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return fmt.Errorf("pack repository: %w", err)
	}
	t := tar.NewWriter(z)
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if leftOutOfSnapshot(rel) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return packEntry(t, path, filepath.ToSlash(rel), e)
	})
	if err := errors.Join(err, t.Close(), z.Close()); err != nil {
		return fmt.Errorf("pack repository %s: %w", dir, err)
	}
	return nil
}

func packEntry(t *tar.Writer, path, rel string, e fs.DirEntry) (err error) {
	h := &tar.Header{Name: rel, Format: tar.FormatPAX}
	switch {
	case e.IsDir():
		h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, rel+"/"
		return t.WriteHeader(h)
	case e.Type()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		h.Typeflag, h.Mode, h.Linkname = tar.TypeSymlink, 0o777, to
		return t.WriteHeader(h)
	case !e.Type().IsRegular():
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size, h.Mode = tar.TypeReg, info.Size(), 0o644
	if info.Mode().Perm()&0o100 != 0 {
		h.Mode = 0o755
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Unpack writes a snapshot below dir, which must be empty, and checks that what
// came of it is the tree with that digest. The archive is a peer's: nothing in it
// gets outside of dir, and links that lead there are refused.
func Unpack(ctx context.Context, r io.Reader, dir, digest string) error {
	_, err := unpackTree(ctx, r, dir, digest)
	return err
}

// unpackTree is Unpack, and says about how many bytes the tree takes on disk.
func unpackTree(ctx context.Context, r io.Reader, dir, digest string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("unpack repository: %w", err)
	}
	size, err := unpackInto(ctx, r, root)
	if err = errors.Join(err, root.Close()); err != nil {
		return 0, fmt.Errorf("unpack repository: %w", err)
	}
	got, err := TreeDigest(ctx, dir)
	if err != nil {
		return 0, err
	}
	if got != digest {
		return 0, fmt.Errorf("unpack repository: it is %s, wanted %s", short8(got), short8(digest))
	}
	return size, nil
}

func short8(s string) string { return s[:min(8, len(s))] }

func unpackInto(ctx context.Context, r io.Reader, root *os.Root) (size int64, err error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return 0, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	var files, bytes int64
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return 0, err
		}
		name := filepath.Clean(filepath.FromSlash(h.Name))
		if files++; !filepath.IsLocal(name) || files > maxTreeFiles {
			return 0, fmt.Errorf("entry %q", build.OneLine(h.Name, 100))
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			if to := filepath.Join(filepath.Dir(name), h.Linkname); filepath.IsAbs(h.Linkname) || !filepath.IsLocal(to) {
				return 0, fmt.Errorf("link %q leads out of the repository", build.OneLine(h.Name, 100))
			}
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			if bytes += h.Size; bytes > maxTreeBytes {
				return 0, fmt.Errorf("more than %d GiB", maxTreeBytes>>30)
			}
			size += (h.Size + treeBlock - 1) / treeBlock * treeBlock
			err = writeMember(root, name, fs.FileMode(h.Mode)&0o755, t)
		default:
			return 0, fmt.Errorf("entry %q of a kind that no repository has", build.OneLine(h.Name, 100))
		}
		if err != nil {
			return 0, err
		}
	}
}

func writeMember(root *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// Adopt puts the tree of a snapshot in the place of a repository of this
// machine: unpacked beside it, checked, then exchanged, so that there is never a
// half one. A checkout of git is its owner's and is left alone.
func (p *Portage) Adopt(ctx context.Context, t Tree, snapshot io.Reader, digest string) (err error) {
	if t.Digest == digest {
		return nil
	}
	if t.Git {
		return fmt.Errorf("take over repository %s: it is a checkout of git: pull in %s, or let swarm have it without .git", t.Name, t.Path)
	}
	if sum, err := hex.DecodeString(digest); err != nil || len(sum) != 32 {
		return fmt.Errorf("take over repository %s: digest %q", t.Name, build.OneLine(digest, 80))
	}
	at, err := filepath.EvalSymlinks(t.Path)
	if err != nil {
		return fmt.Errorf("take over repository %s: %w", t.Name, err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(at), ".swarm-tree-")
	if err != nil {
		return fmt.Errorf("take over repository %s: %w", t.Name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	now := filepath.Join(fresh, "new")
	if err := os.Mkdir(now, 0o755); err != nil {
		return err
	}
	if err := Unpack(ctx, snapshot, now, digest); err != nil {
		return fmt.Errorf("take over repository %s: %w", t.Name, err)
	}
	old := filepath.Join(fresh, "old")
	if err := os.Rename(at, old); err != nil {
		return fmt.Errorf("take over repository %s: %w", t.Name, err)
	}
	if err := os.Rename(now, at); err != nil {
		return fmt.Errorf("take over repository %s: %w", t.Name, errors.Join(err, os.Rename(old, at)))
	}
	return nil
}

// Sync has Portage sync this machine's repositories, as "emerge --sync" does.
func (p *Portage) Sync(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.Emerge, "--sync", "--ignore-default-opts", "--color=n", "--quiet")
	cmd.Env = p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix)
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("emerge --sync: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// keepTrees stores the repositories that a plan was made of, and makes sure that
// what is stored is what was planned: somebody may sync meanwhile.
func (p *Portage) keepTrees(ctx context.Context, list []build.Snapshot, repos []repo, keep func(context.Context, Tree) (string, error)) ([]build.Snapshot, error) {
	out := slices.Clone(list)
	for i, s := range out {
		at := slices.IndexFunc(repos, func(r repo) bool { return r.Name == s.Name })
		cid, err := keep(ctx, Tree{Name: s.Name, Path: repos[at].Path, Digest: s.Digest})
		if err != nil {
			return nil, fmt.Errorf("keep a snapshot of repository %s: %w", s.Name, err)
		}
		out[i].CID = cid
		switch now, err := p.trees.digest(ctx, repos[at].Path); {
		case err != nil:
			return nil, err
		case now != s.Digest:
			return nil, fmt.Errorf("keep a snapshot of repository %s: it changed while the plan was made: plan again when its sync has ended", s.Name)
		}
	}
	return out, nil
}
