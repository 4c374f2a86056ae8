package gpkg

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Kind is what a member of an image is.
type Kind byte

const (
	Dir      Kind = 'd'
	Regular  Kind = 'f'
	Symlink  Kind = 'l'
	Hardlink Kind = 'h' // to an earlier Regular of the same image
)

// File is one member of an image.
type File struct {
	// Name is relative to the image's root ("usr/bin/true"): clean, never
	// absolute, never with "..". The root itself is ".".
	Name string
	Kind Kind
	Mode int64 // permission bits, with setuid, setgid and sticky
	UID  int
	GID  int
	// User and Group are the names beside the numbers, "" if not written.
	User, Group string
	Size        int64  // of a Regular
	MTime       int64  // seconds since 1970
	Link        string // a Symlink's text as it is, or a Hardlink's File.Name
	// Xattrs are sorted "name=value" lines.
	Xattrs []string
}

// Walk reads the image from its beginning and calls f for every member in the
// order of the tar; content is that of a Regular, and f may leave it unread.
// Every name is checked before f sees it. Walk does not check the image's
// hashes: call Verify before, or treat what f does as void until Verify is
// done. An error of f ends the walk and is returned as it is.
func (p *Package) Walk(ctx context.Context, f func(file File, content io.Reader) error) error {
	if _, err := p.image.data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read image of %s: %w", p.CPV, err)
	}
	src := &ctxReader{ctx: ctx, r: p.image.data}
	if err := p.walk(src, f); err != nil {
		return fmt.Errorf("read image of %s: %w", p.CPV, err)
	}
	return nil
}

// walk is Walk over the packed image src, read to its end.
func (p *Package) walk(src io.Reader, f func(File, io.Reader) error) error {
	z, err := newDecompressor(src, p.Compression)
	if err != nil {
		return err
	}
	defer z.Close()
	limit := p.imageLimit()
	r := &limitReader{r: z, left: limit, what: "image"}
	c := imageChecker{seen: make(map[string]Kind), implied: make(map[string]bool), left: limit}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return tarError("image", err)
		}
		file, err := c.check(h)
		if err != nil {
			return err
		}
		if err := f(file, &contentReader{tr}); err != nil {
			return err
		}
	}
	if len(c.seen) == 0 {
		return damaged("image: no directory image")
	}
	return drain(r, "image")
}

// imageLimit is how large the image may be unpacked.
func (p *Package) imageLimit() int64 {
	limit := int64(freeImage)
	if n := p.image.data.Size(); n < maxImage/maxRatio {
		limit += n * maxRatio
	} else {
		limit = maxImage
	}
	return limit
}

// contentReader gives tar's errors their class.
type contentReader struct{ r io.Reader }

func (c *contentReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = tarError("image", err)
	}
	return n, err
}

// imageChecker holds what the members seen so far allow of the next.
type imageChecker struct {
	seen    map[string]Kind
	implied map[string]bool // directories that have members but were not listed so far
	names   int             // bytes of all names
	left    int64           // bytes that may still be declared
}

// check turns a tar header into a File or says why it must not be there.
func (c *imageChecker) check(h *tar.Header) (File, error) {
	if len(c.seen) == maxImageMembers {
		return File{}, damaged("image: more than %d members", maxImageMembers)
	}
	name, err := imageName(h.Name)
	if err != nil {
		return File{}, err
	}
	if c.names += len(name); c.names > maxImageNames {
		return File{}, damaged("image: more than %d bytes of names", maxImageNames)
	}
	if c.seen[name] != 0 {
		return File{}, damaged("image: %s twice", quote(name))
	}
	f := File{Name: name, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, User: h.Uname, Group: h.Gname,
		MTime: h.ModTime.Unix(), Xattrs: xattrs(h.PAXRecords)}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return File{}, damaged("image: %s is a sparse file", quote(name))
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f.Kind, f.Size = Regular, h.Size
		if h.Size < 0 || h.Size > c.left {
			return File{}, damaged("image: %s declares %d bytes, too large for the packed size", quote(name), h.Size)
		}
		c.left -= h.Size
	case tar.TypeDir:
		f.Kind = Dir
	case tar.TypeSymlink:
		f.Kind, f.Link = Symlink, h.Linkname
		if f.Link == "" || len(f.Link) > maxName || strings.ContainsRune(f.Link, 0) {
			return File{}, damaged("image: symlink %s has a bad target", quote(name))
		}
	case tar.TypeLink:
		f.Kind = Hardlink
		if f.Link, err = imageName(h.Linkname); err != nil {
			return File{}, err
		}
		if c.seen[f.Link] != Regular {
			return File{}, damaged("image: hard link %s to %s, which is not an earlier file", quote(name), quote(f.Link))
		}
	default:
		return File{}, damaged("image: %s is a device, a pipe or of an unknown type", quote(name))
	}
	if name == "." && f.Kind != Dir {
		return File{}, damaged("image: its root is not a directory")
	}
	// Nothing may stand below a member that is not a directory: unpacked, it
	// would go wherever a symlink of the package points.
	for dir := path.Dir(name); dir != "." && c.seen[dir] != Dir && !c.implied[dir]; dir = path.Dir(dir) {
		if c.seen[dir] != 0 {
			return File{}, damaged("image: %s is below %s, which is not a directory", quote(name), quote(dir))
		}
		c.implied[dir] = true
		c.names += len(dir)
	}
	if f.Kind != Dir && c.implied[name] {
		return File{}, damaged("image: %s has members below it and is not a directory", quote(name))
	}
	c.seen[name] = f.Kind
	return f, nil
}

// imageName turns "image/usr/bin/" into "usr/bin" and "image" into ".". Repeated
// slashes count as one: quickpkg writes "image//usr" where ROOT is not "/".
func imageName(raw string) (string, error) {
	if len(raw) > maxName {
		return "", damaged("image: name of %d bytes", len(raw))
	}
	parts := strings.Split(raw, "/")
	names := parts[:0]
	for i, p := range parts {
		if p == "." || p == ".." || strings.ContainsRune(p, 0) || i == 0 && p != "image" {
			return "", damaged("image: member name %s leaves the image", quote(raw))
		}
		if p != "" {
			names = append(names, p)
		}
	}
	if len(names) == 1 {
		return ".", nil
	}
	return strings.Join(names[1:], "/"), nil
}

// xattrs picks the extended attributes out of PAX records.
func xattrs(pax map[string]string) []string {
	var out []string
	for k, v := range pax {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			out = append(out, name+"="+v)
		}
	}
	slices.Sort(out)
	return out
}

// tarError gives an error of archive/tar its class.
func tarError(what string, err error) error {
	var src *sourceError
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrUnsupported), errors.As(err, &src):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("%s: cut short", what)
	}
	return damaged("%s: %v", what, err)
}
