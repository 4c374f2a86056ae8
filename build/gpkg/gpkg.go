package gpkg

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/build-swarm/swarm/build"
)

var (
	// ErrDamaged is wrapped by every error about a container that is not what
	// GLEP 78 and its own Manifest say: cut short, a bad hash or size, a member
	// that must not be there, a declared size beyond all limits.
	ErrDamaged = errors.New("damaged gpkg")
	// ErrUnsupported is wrapped where a container is not known to be damaged
	// but this reader cannot tell: a compression it does not know.
	ErrUnsupported = errors.New("unsupported gpkg")
	// ErrMismatch is wrapped where a package is sound but not what a job asks
	// for.
	ErrMismatch = errors.New("package is not what the job asks for")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// identity is the member that says "this is a gpkg, format 1".
const identity = "gpkg-1"

// Package is an opened container. Its image is not verified until Verify has
// returned nil. Its methods read the underlying io.ReaderAt; they may not be
// called at the same time.
type Package struct {
	CPV build.CPV
	// Metadata holds the members of metadata.tar by their names (SLOT, USE,
	// RDEPEND, environment.bz2, ...). Text values stand without their trailing
	// newline; values of names with a dot (files) stand as they are.
	Metadata map[string]string
	// Dir is the directory of the container: PF or PF-BUILD_ID.
	Dir string
	// Compression of the image.
	Compression Compression
	// Signed says that the Manifest is clear-signed or that a member has a
	// signature. No signature is checked here.
	Signed bool

	size    int64
	members map[string]*member // by base name
	image   *member
	digest  string // set by Verify
}

// member is one file of the container.
type member struct {
	name string
	data *io.SectionReader
	sums *sums // from the Manifest; nil for the Manifest itself
}

// Size is the size of the container in bytes.
func (p *Package) Size() int64 { return p.size }

// Open reads the layout, the Manifest and the metadata of a container of size
// bytes, and checks them. The image's content is left to Verify. Errors wrap
// ErrDamaged or ErrUnsupported, or are those of r.
func Open(r io.ReaderAt, size int64) (*Package, error) {
	p := &Package{size: size, members: make(map[string]*member)}
	if err := p.readLayout(r, size); err != nil {
		return nil, fmt.Errorf("open gpkg: %w", err)
	}
	if err := p.readManifest(); err != nil {
		return nil, fmt.Errorf("open gpkg %s: %w", build.OneLine(p.Dir, 100), err)
	}
	if err := p.readMetadata(); err != nil {
		return nil, fmt.Errorf("open gpkg %s: %w", build.OneLine(p.Dir, 100), err)
	}
	if err := p.identify(); err != nil {
		return nil, fmt.Errorf("open gpkg %s: %w", build.OneLine(p.Dir, 100), err)
	}
	return p, nil
}

// readLayout walks the outer tar: headers only.
func (p *Package) readLayout(r io.ReaderAt, size int64) error {
	section := io.NewSectionReader(r, 0, size)
	all := &struct {
		sourceReader
		io.Seeker
	}{sourceReader{r: section}, section}
	tr := tar.NewReader(all)
	end := int64(0)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if all.err != nil {
			return &sourceError{all.err}
		}
		if err != nil {
			return tarError("container", err)
		}
		if len(p.members) == maxContainerMembers {
			return damaged("more than %d members", maxContainerMembers)
		}
		if h.Typeflag != tar.TypeReg || len(h.PAXRecords) > 0 {
			return damaged("member %s is not a plain file", quote(h.Name))
		}
		dir, name, ok := strings.Cut(h.Name, "/")
		if !ok || dir == "" || dir == "." || dir == ".." || strings.Contains(name, "/") || name == "" {
			return damaged("member %s is not in the package's one directory", quote(h.Name))
		}
		if p.Dir == "" {
			p.Dir = dir
		}
		if dir != p.Dir {
			return damaged("members in two directories, %s and %s", quote(p.Dir), quote(dir))
		}
		// archive/tar reads whole blocks and never ahead, so the position after
		// Next is where the member's data begins.
		at, err := all.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("read container: %w", err)
		}
		if h.Size < 0 || h.Size > size-at {
			return damaged("cut short: member %s declares %d bytes, %d are left", quote(name), h.Size, size-at)
		}
		if p.members[name] != nil {
			return damaged("member %s twice", quote(name))
		}
		p.members[name] = &member{name: name, data: io.NewSectionReader(r, at, h.Size)}
		end = at + (h.Size+511)/512*512
	}
	if len(p.members) == 0 {
		return damaged("no members")
	}
	return checkTail(r, end, size)
}

// checkTail makes sure that a tar ends with its two zero blocks and that only
// zeros follow: anything else is either cut short or hides something.
func checkTail(r io.ReaderAt, end, size int64) error {
	if size-end < 1024 {
		return damaged("cut short: no end of the container")
	}
	if size-end > maxTail {
		return damaged("%d bytes after the end of the container", size-end)
	}
	tail := make([]byte, size-end)
	if _, err := r.ReadAt(tail, end); err != nil && err != io.EOF {
		return &sourceError{err}
	}
	if len(bytes.Trim(tail, "\x00")) > 0 {
		return damaged("data after the end of the container")
	}
	return nil
}

// readManifest checks the set of members, reads the Manifest, and holds the
// sizes against it.
func (p *Package) readManifest() error {
	m := p.members["Manifest"]
	if m == nil {
		return damaged("no Manifest")
	}
	if p.members[identity] == nil {
		return damaged("no %s member, so not a package of this format", identity)
	}
	if m.data.Size() > maxManifest {
		return damaged("Manifest of %d bytes, at most %d", m.data.Size(), maxManifest)
	}
	text, err := io.ReadAll(m.data)
	if err != nil {
		return fmt.Errorf("read Manifest: %w", err)
	}
	entries, signed, err := parseManifest(text)
	if err != nil {
		return err
	}
	p.Signed = signed
	for name, m := range p.members {
		if name == "Manifest" {
			continue
		}
		s := entries[name]
		if s == nil {
			return damaged("member %s is not in the Manifest", quote(name))
		}
		if s.size != m.data.Size() {
			return damaged("member %s has %d bytes, the Manifest says %d", quote(name), m.data.Size(), s.size)
		}
		m.sums = s
		delete(entries, name)
		if strings.HasSuffix(name, ".sig") {
			p.Signed = true
		}
	}
	for _, name := range sortedKeys(entries) {
		return damaged("member %s of the Manifest is missing", quote(name))
	}
	return p.classify()
}

// classify says which member is which and refuses all others.
func (p *Package) classify() error {
	var meta *member
	for _, name := range sortedKeys(p.members) {
		m := p.members[name]
		kind, _, _ := strings.Cut(name, ".")
		switch {
		case name == "Manifest":
		case name == identity:
			if m.data.Size() > maxIdentity {
				return damaged("member %s of %d bytes", identity, m.data.Size())
			}
		case strings.HasSuffix(name, ".sig"):
			if of := strings.TrimSuffix(name, ".sig"); p.members[of] == nil || of == "Manifest" {
				return damaged("signature %s of a member that is not there", quote(name))
			}
			if m.data.Size() > maxSignature {
				return damaged("signature %s of %d bytes", quote(name), m.data.Size())
			}
		case kind == "metadata" || kind == "image":
			c, err := compressionOf(strings.TrimPrefix(name, kind))
			if err != nil {
				return err
			}
			if kind == "metadata" {
				if meta != nil {
					return damaged("two metadata members")
				}
				meta = m
				continue
			}
			if p.image != nil {
				return damaged("two image members")
			}
			p.image, p.Compression = m, c
		default:
			return damaged("unknown member %s", quote(name))
		}
	}
	switch {
	case meta == nil:
		return damaged("no metadata member")
	case p.image == nil:
		return damaged("no image member")
	}
	p.members["metadata"] = meta
	return nil
}

// readMetadata verifies and unpacks the metadata, and verifies gpkg-1.
func (p *Package) readMetadata() error {
	// Both are small: there is nothing to cancel.
	ctx := context.Background()
	if err := p.members[identity].verify(ctx); err != nil {
		return err
	}
	m := p.members["metadata"]
	if m.data.Size() > maxMetadata {
		return damaged("metadata of %d bytes, at most %d", m.data.Size(), maxMetadata)
	}
	if err := m.verify(ctx); err != nil {
		return err
	}
	c, err := compressionOf(strings.TrimPrefix(m.name, "metadata"))
	if err != nil {
		return err
	}
	if _, err := m.data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	rd, err := newDecompressor(m.data, c)
	if err != nil {
		return err
	}
	defer rd.Close()
	p.Metadata, err = readMetadataTar(&limitReader{r: rd, left: maxMetadata, what: "metadata"})
	return err
}

// readMetadataTar reads "metadata/KEY" files into a map.
func readMetadataTar(r io.Reader) (map[string]string, error) {
	out := make(map[string]string)
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, tarError("metadata", err)
		}
		if h.Typeflag == tar.TypeDir && path.Clean(h.Name) == "metadata" {
			continue
		}
		key, ok := strings.CutPrefix(h.Name, "metadata/")
		if h.Typeflag != tar.TypeReg || !ok || !plainName(key) {
			return nil, damaged("metadata member %s", quote(h.Name))
		}
		if _, twice := out[key]; twice {
			return nil, damaged("metadata %s twice", quote(key))
		}
		if len(out) == maxMetadataKeys {
			return nil, damaged("more than %d metadata keys", maxMetadataKeys)
		}
		if h.Size > maxMetadata {
			return nil, damaged("metadata %s of %d bytes", quote(key), h.Size)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return nil, tarError("metadata", err)
		}
		v := string(b)
		if !strings.Contains(key, ".") {
			v = strings.TrimRight(v, "\n")
		}
		out[key] = v
	}
	return out, drain(r, "metadata")
}

// identify reads the package's name out of its metadata and holds it against
// the directory.
func (p *Package) identify() error {
	for _, k := range []string{"CATEGORY", "PF", "SLOT"} {
		if p.Metadata[k] == "" {
			return damaged("metadata has no %s", k)
		}
	}
	c, err := build.ParseCPV(p.Metadata["CATEGORY"] + "/" + p.Metadata["PF"])
	if err != nil {
		return damaged("metadata: %v", err)
	}
	if _, err := build.ParseSlot(p.Metadata["SLOT"]); err != nil {
		return damaged("metadata: %v", err)
	}
	if id, ok := strings.CutPrefix(p.Dir, c.PF()+"-"); p.Dir != c.PF() && (!ok || !isNumber(id)) {
		return damaged("directory %s is not that of %s", quote(p.Dir), c.PF())
	}
	for _, k := range indexKeys {
		if !cleanText(p.Metadata[k]) {
			return damaged("metadata %s holds control characters", k)
		}
	}
	p.CPV = c
	return nil
}
