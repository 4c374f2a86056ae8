package gpkg

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/build-swarm/swarm/build"
)

// Spec is a package to write.
type Spec struct {
	CPV build.CPV
	// BuildID above 0 becomes part of the directory's name and the metadata
	// BUILD_ID, as Portage has it with binpkg-multi-instance.
	BuildID int64
	// Metadata by name, text without its trailing newline. CATEGORY, PF and
	// BUILD_ID are filled in.
	Metadata map[string]string
	// Image lists the members; the order does not count. Parents that are
	// missing are added, owned by root with mode 0755.
	Image []SourceFile
	// MTime is the time of the container's members and of the metadata, in
	// seconds since 1970.
	MTime       int64
	Compression Compression // "" is Zstd; else Gzip or None
	// TempDir is where the packed image waits until its size is known; "" is
	// the system's.
	TempDir string
}

// SourceFile is a member of an image and where its content comes from.
type SourceFile struct {
	File
	// Open gives the content of a Regular: exactly File.Size bytes.
	Open func() (io.ReadCloser, error)
}

// Write writes s as Portage does: members gpkg-1, metadata, image, Manifest;
// ustar, or GNU where names are too long for it; owner 0:0, mode 0644; padded
// to 10,240 bytes. The same Spec gives the same bytes (with the same version
// of the compressor).
func Write(w io.Writer, s Spec) error {
	if err := s.complete(); err != nil {
		return fmt.Errorf("write gpkg of %s: %w", s.CPV, err)
	}
	if err := s.write(w); err != nil {
		return fmt.Errorf("write gpkg of %s: %w", s.CPV, err)
	}
	return nil
}

// complete fills in what follows from the rest, and checks it.
func (s *Spec) complete() error {
	if err := s.CPV.Validate(); err != nil {
		return err
	}
	meta := make(map[string]string, len(s.Metadata)+3)
	for k, v := range s.Metadata {
		if !plainName(k) {
			return fmt.Errorf("metadata name %q", k)
		}
		meta[k] = v
	}
	meta["CATEGORY"], meta["PF"] = s.CPV.Category, s.CPV.PF()
	if s.BuildID > 0 {
		meta["BUILD_ID"] = strconv.FormatInt(s.BuildID, 10)
	}
	s.Metadata = meta
	switch s.Compression {
	case "":
		s.Compression = Zstd
	case Zstd, Gzip, None:
	default:
		return fmt.Errorf("%w: cannot write compression %q", ErrUnsupported, s.Compression)
	}
	image, err := withParents(s.Image, s.MTime)
	s.Image = image
	return err
}

// withParents adds missing directories, checks and sorts.
func withParents(in []SourceFile, mtime int64) ([]SourceFile, error) {
	byName := make(map[string]SourceFile, len(in)+1)
	for _, f := range in {
		if _, err := imageName("image/" + f.Name); err != nil && f.Name != "." {
			return nil, err
		}
		if _, twice := byName[f.Name]; twice {
			return nil, fmt.Errorf("image: %q twice", f.Name)
		}
		byName[f.Name] = f
	}
	dir := func(name string) {
		if _, ok := byName[name]; !ok {
			byName[name] = SourceFile{File: File{Name: name, Kind: Dir, Mode: 0o755, MTime: mtime, User: "root", Group: "root"}}
		}
	}
	dir(".")
	for _, f := range in {
		for d := path.Dir(f.Name); d != "."; d = path.Dir(d) {
			dir(d)
		}
	}
	// Sorted as a walk goes: a directory before what is in it.
	out := make([]SourceFile, 0, len(byName))
	for _, name := range sortedKeys(byName) {
		out = append(out, byName[name])
	}
	slices.SortStableFunc(out, func(a, b SourceFile) int {
		return slices.Compare(strings.Split(key(a.Name), "/"), strings.Split(key(b.Name), "/"))
	})
	return out, nil
}

// key sorts the root first.
func key(name string) string {
	if name == "." {
		return ""
	}
	return name
}

// write writes the four members.
func (s *Spec) write(w io.Writer) error {
	dir := s.CPV.PF()
	if s.BuildID > 0 {
		dir += "-" + strconv.FormatInt(s.BuildID, 10)
	}
	out := &padWriter{w: w}
	tw := tar.NewWriter(out)
	var manifest strings.Builder
	member := func(name string, size int64, content io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: dir + "/" + name, Mode: 0o644, Size: size,
			ModTime: time.Unix(s.MTime, 0), Format: tar.FormatUSTAR}
		if len(dir) >= 154 || size >= 8_000_000_000 {
			h.Format = tar.FormatGNU
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		sum, err := newHasher()
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.MultiWriter(tw, sum), content); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		manifest.WriteString(sum.line(name))
		return nil
	}
	if err := member(identity, 0, strings.NewReader("")); err != nil {
		return err
	}
	if err := s.spool("metadata"+s.Compression.suffix(), s.writeMetadata, member); err != nil {
		return err
	}
	if err := s.spool("image"+s.Compression.suffix(), s.writeImage, member); err != nil {
		return err
	}
	text := manifest.String()
	if err := member("Manifest", int64(len(text)), strings.NewReader(text)); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return out.pad()
}

// spool packs what fill writes into a temporary file, since a tar wants sizes
// before content, and adds it as a member.
func (s *Spec) spool(name string, fill func(*tar.Writer) error, member func(string, int64, io.Reader) error) error {
	f, err := os.CreateTemp(s.TempDir, "gpkg-*")
	if err != nil {
		return fmt.Errorf("spool %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := s.pack(f, fill); err != nil {
		return fmt.Errorf("spool %s: %w", name, err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("spool %s: %w", name, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("spool %s: %w", name, err)
	}
	return member(name, size, f)
}

// pack writes a compressed tar.
func (s *Spec) pack(w io.Writer, fill func(*tar.Writer) error) error {
	var z io.WriteCloser
	switch s.Compression {
	case Gzip:
		z = gzip.NewWriter(w)
	case None:
		z = nopCloser{w}
	default:
		e, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		z = e
	}
	out := &padWriter{w: z}
	tw := tar.NewWriter(out)
	if err := fill(tw); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := out.pad(); err != nil {
		return err
	}
	return z.Close()
}

func (s *Spec) writeMetadata(tw *tar.Writer) error {
	for _, k := range sortedKeys(s.Metadata) {
		v := s.Metadata[k]
		if !strings.Contains(k, ".") {
			v += "\n"
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "metadata/" + k, Mode: 0o644, Size: int64(len(v)),
			ModTime: time.Unix(s.MTime, 0), Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("metadata %s: %w", k, err)
		}
		if _, err := io.WriteString(tw, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) writeImage(tw *tar.Writer) error {
	format := s.imageFormat()
	for _, f := range s.Image {
		h := &tar.Header{Name: "image/" + f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Uname: f.User,
			Gname: f.Group, ModTime: time.Unix(f.MTime, 0), Format: format}
		if f.Name == "." {
			h.Name = "image"
		}
		switch f.Kind {
		case Dir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case Regular:
			h.Typeflag, h.Size = tar.TypeReg, f.Size
		case Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		case Hardlink:
			h.Typeflag, h.Linkname = tar.TypeLink, "image/"+f.Link
		default:
			return fmt.Errorf("image: %q is of unknown kind", f.Name)
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("image: %q: %w", f.Name, err)
		}
		if f.Kind == Regular {
			if err := copyContent(tw, f); err != nil {
				return fmt.Errorf("image: %q: %w", f.Name, err)
			}
		}
	}
	return nil
}

func copyContent(w io.Writer, f SourceFile) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err != nil {
		return err
	}
	if n != f.Size {
		return fmt.Errorf("%d bytes, was to have %d", n, f.Size)
	}
	return nil
}

// imageFormat is ustar unless a name or a size does not fit into it, by the
// same limits as Portage's _get_tar_format_from_stats.
func (s *Spec) imageFormat() tar.Format {
	for _, f := range s.Image {
		name := "image/" + f.Name
		if f.Size >= 8_000_000_000 || len(f.Link) >= 94 || len(path.Dir(name)) >= 154 || len(path.Base(name)) >= 99 ||
			!ascii(name) || !ascii(f.Link) {
			return tar.FormatGNU
		}
	}
	return tar.FormatUSTAR
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// padWriter counts, so that a tar can be filled up to Python's record size.
type padWriter struct {
	w io.Writer
	n int64
}

func (p *padWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

func (p *padWriter) pad() error {
	const record = 10240
	_, err := p.Write(make([]byte, (record-p.n%record)%record))
	return err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
