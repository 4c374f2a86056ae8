package emerge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/build-swarm/swarm/build"
)

// maxEbuild bounds one ebuild; the largest known is below 100 KiB.
const maxEbuild = 4 << 20

// fileReader reads digests of the files that a plan names. A file that many
// packages share (a bashrc) is read once. For one goroutine.
type fileReader struct {
	trees map[string]string
	moved map[string]string // where files lie that Portage is not to read, by where it looks
}

func (p *Portage) files() *fileReader {
	return &fileReader{trees: make(map[string]string), moved: p.moved}
}

// Ebuild is the digest of an ebuild without KEYWORDS and comments.
func (r *fileReader) Ebuild(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read ebuild: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEbuild+1))
	if err != nil {
		return "", fmt.Errorf("read ebuild: %w", err)
	}
	if len(b) > maxEbuild {
		return "", fmt.Errorf("read ebuild %s: larger than %d bytes", path, maxEbuild)
	}
	sum := sha256.Sum256(normalEbuild(b))
	return hex.EncodeToString(sum[:]), nil
}

// Tree is the digest of a file or of all files below a directory; "" if there
// is none.
func (r *fileReader) Tree(path string) (string, error) {
	if to, ok := r.moved[path]; ok {
		path = to
	}
	if d, ok := r.trees[path]; ok {
		return d, nil
	}
	d, err := digestTree(context.Background(), path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = "", nil
	}
	if err != nil {
		return "", err
	}
	r.trees[path] = d
	return d, nil
}

// Patches is Tree of the patches below a directory.
func (r *fileReader) Patches(path string) (string, error) {
	d, err := digestTree(context.Background(), path, func(rel string, isDir bool) bool {
		return !isDir && !strings.HasSuffix(rel, ".patch") && !strings.HasSuffix(rel, ".diff")
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return d, err
}

// TreeDigest names the content of an ebuild repository: equal digests mean
// that Portage reads the same ebuilds, eclasses, profiles and files. How the
// tree came (git, rsync, an archive), its times and its metadata cache do not
// count. The result is hex SHA-256.
func TreeDigest(ctx context.Context, dir string) (string, error) {
	d, err := digestTree(ctx, dir, skipInRepository)
	if err != nil {
		return "", fmt.Errorf("digest repository %s: %w", dir, err)
	}
	return d, nil
}

// skipInRepository leaves out what a sync writes and what is not the tree's.
func skipInRepository(rel string, isDir bool) bool {
	switch rel {
	case ".git", ".svn", ".hg", ".bzr", "distfiles", "packages", "local", "lost+found", ".gitignore", ".unreal":
		return true
	}
	rest, ok := strings.CutPrefix(rel, "metadata/")
	if !ok {
		return false
	}
	switch rest {
	case "md5-cache", "cache", "news", "glsa", "dtd", "xml-schema", "pkg_desc_index", "AUTHORS", "Manifest":
		return true
	}
	return strings.HasPrefix(rest, "timestamp") || strings.HasPrefix(rest, "Manifest.")
}

// walkTree calls visit for everything below root that is no directory, sorted. What
// skip names is left out, with all below it; skip may be nil.
func walkTree(ctx context.Context, root string, skip func(rel string, isDir bool) bool, visit func(rel, path string, e fs.DirEntry) error) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case skip != nil && rel != "." && skip(rel, e.IsDir()):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return nil
		}
		return visit(rel, path, e)
	})
}

// digestTree hashes the relative names and contents of all files, sorted.
// Empty directories do not count. skip may be nil.
func digestTree(ctx context.Context, root string, skip func(rel string, isDir bool) bool) (string, error) {
	h := sha256.New()
	err := walkTree(ctx, root, skip, func(rel, path string, e fs.DirEntry) error {
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			entry(h, rel, "link", []byte(to))
		case e.Type().IsRegular():
			sum, err := sumFile(path)
			if err != nil {
				return err
			}
			entry(h, rel, "file", sum)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func entry(h hash.Hash, rel, kind string, data []byte) {
	fmt.Fprintf(h, "%d %s %s %x\n", len(rel), rel, kind, data)
}

func sumFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// treeCache remembers the digest of a repository as long as no file below it
// has another size or time: that takes a second for ::gentoo where
// hashing takes twenty.
type treeCache struct {
	mu   sync.Mutex
	seen map[string]seenTree
}

type seenTree struct{ stamp, digest string }

func newTreeCache() *treeCache { return &treeCache{seen: make(map[string]seenTree)} }

func (c *treeCache) digest(ctx context.Context, dir string) (string, error) {
	stamp, err := stampTree(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("look through repository %s: %w", dir, err)
	}
	c.mu.Lock()
	old := c.seen[dir]
	c.mu.Unlock()
	if old.stamp == stamp {
		return old.digest, nil
	}
	d, err := TreeDigest(ctx, dir)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.seen[dir] = seenTree{stamp, d}
	c.mu.Unlock()
	return d, nil
}

// stampTree hashes what lstat says of every file.
func stampTree(ctx context.Context, root string) (string, error) {
	h := sha256.New()
	err := walkTree(ctx, root, skipInRepository, func(rel, _ string, e fs.DirEntry) error {
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d %d\n", rel, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// treesOf digests the repositories of a configuration, by name.
func (p *Portage) treesOf(ctx context.Context, repos []repo) ([]build.Snapshot, error) {
	out := make([]build.Snapshot, 0, len(repos))
	for _, r := range repos {
		d, err := p.trees.digest(ctx, r.Path)
		if err != nil {
			return nil, err
		}
		out = append(out, build.Snapshot{Name: r.Name, Digest: d})
	}
	slices.SortFunc(out, func(a, b build.Snapshot) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// TreeOf names the content of all repositories together, as a plan does.
func TreeOf(list []Tree) string {
	out := make([]build.Snapshot, 0, len(list))
	for _, t := range list {
		out = append(out, build.Snapshot{Name: t.Name, Digest: t.Digest})
	}
	return build.TreeOf(out)
}

// treeOf names the content of all repositories of a configuration together.
func (p *Portage) treeOf(ctx context.Context, repos []repo) (string, error) {
	list, err := p.treesOf(ctx, repos)
	return build.TreeOf(list), err
}

// Places are directories of a machine's Portage; "" where it says none.
type Places struct {
	Distdir string // of what is downloaded
	Pkgdir  string // of binary packages made or fetched here
}

// Places asks for them once.
func (p *Portage) Places(ctx context.Context) (Places, error) {
	p.places.mu.Lock()
	defer p.places.mu.Unlock()
	if p.places.known {
		return p.places.Places, nil
	}
	var doc evaluation
	env := append(p.environment(p.cfg.ConfigRoot, p.cfg.EPrefix), "SWARM_EMERGE="+p.who.script)
	if err := p.ask(ctx, env, map[string]any{"mode": "target", "keyed": keyedGlobals()}, &doc); err != nil {
		return Places{}, fmt.Errorf("ask Portage for its directories: %w", err)
	}
	vars := doc.Env.Vars // of make.conf alone
	p.places.Places, p.places.known = Places{cmp.Or(doc.Env.Distdir, vars["DISTDIR"]), cmp.Or(doc.Env.Pkgdir, vars["PKGDIR"])}, true
	return p.places.Places, nil
}
