package gpkg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
)

// Verify reads the image and every signature once: hashes against the
// Manifest, and that the image unpacks and holds nothing that leaves it. It
// holds a window of the image in memory, and the members' names. The content
// digest is a by-product.
func (p *Package) Verify(ctx context.Context) error {
	for _, name := range sortedKeys(p.members) {
		if strings.HasSuffix(name, ".sig") {
			if err := p.members[name].verify(ctx); err != nil {
				return fmt.Errorf("verify %s: %w", p.CPV, err)
			}
		}
	}
	h, err := newHasher()
	if err != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, err)
	}
	if _, err := p.image.data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, err)
	}
	src := io.TeeReader(&ctxReader{ctx: ctx, r: p.image.data}, h)
	d := newDigester()
	walkErr := p.walk(src, d.add)
	if ctx.Err() != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, ctx.Err())
	}
	// What the decompressor left unread is hashed too, so that a wrong byte is
	// told as a wrong hash and not as whatever it did to the unpacking.
	if _, err := io.Copy(io.Discard, src); err != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, err)
	}
	if err := h.check(p.image.name, p.image.sums); err != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, err)
	}
	if walkErr != nil {
		return fmt.Errorf("verify %s: %w", p.CPV, walkErr)
	}
	p.digest = d.sum(p.Metadata)
	return nil
}

// ContentDigest is the lower-case hex SHA-256 of what the package is, without
// what differs between two honest builds of the same: file times, the source
// times inside .pyc files (bytes 8 to 11), the metadata BUILD_TIME, BUILD_ID
// and environment.bz2, and what only quickpkg adds. It runs Verify if that has not been done.
func (p *Package) ContentDigest(ctx context.Context) (string, error) {
	if p.digest == "" {
		if err := p.Verify(ctx); err != nil {
			return "", err
		}
	}
	return p.digest, nil
}

// ListFiles lists the members of the image in the order of their names. It
// reads the whole image, without checking its hashes.
func (p *Package) ListFiles(ctx context.Context) ([]File, error) {
	var out []File
	err := p.Walk(ctx, func(f File, _ io.Reader) error {
		out = append(out, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// digestVersion is hashed first.
const digestVersion = "swarm content digest 1"

// digester collects one hash per member; they are sorted by name at the end,
// so the order of the tar does not count.
type digester struct{ lines []digestLine }

type digestLine struct {
	name string
	sum  [sha256.Size]byte
}

func newDigester() *digester { return &digester{} }

func (d *digester) add(f File, content io.Reader) error {
	h := sha256.New()
	writeText(h, f.Name, string(f.Kind), f.Link, f.User, f.Group)
	writeNumbers(h, f.Mode, int64(f.UID), int64(f.GID), f.Size, int64(len(f.Xattrs)))
	writeText(h, f.Xattrs...)
	if f.Kind == Regular {
		if _, err := io.Copy(masked(f.Name, h), content); err != nil {
			return err
		}
	}
	l := digestLine{name: f.Name}
	h.Sum(l.sum[:0])
	d.lines = append(d.lines, l)
	return nil
}

func (d *digester) sum(meta map[string]string) string {
	slices.SortFunc(d.lines, func(a, b digestLine) int { return strings.Compare(a.name, b.name) })
	h := sha256.New()
	writeText(h, digestVersion)
	writeNumbers(h, int64(len(d.lines)))
	for _, l := range d.lines {
		h.Write(l.sum[:])
	}
	for _, k := range sortedKeys(meta) {
		if !ofOneBuild(k) {
			writeText(h, k, meta[k])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ofOneBuild reports whether a name of the metadata has another value in every
// build.
func ofOneBuild(name string) bool {
	switch name {
	case "BUILD_TIME", "BUILD_ID", "environment.bz2",
		// What quickpkg copies from the record of an installed package: how
		// and when it was merged there.
		"CONTENTS", "COUNTER", "BINPKGMD5", "metadata":
		return true
	}
	return false
}

// writeText hashes strings, each preceded by its length.
func writeText(h hash.Hash, ss ...string) {
	for _, s := range ss {
		writeNumbers(h, int64(len(s)))
		h.Write([]byte(s))
	}
}

func writeNumbers(h hash.Hash, ns ...int64) {
	for _, n := range ns {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
}

// pycMask passes a .pyc on with zeros for bytes 8 to 11, which hold the time of
// the source (PEP 552).
type pycMask struct {
	w   io.Writer
	pos int64
}

func (m *pycMask) Write(p []byte) (int, error) {
	n := len(p)
	if m.pos < 12 && m.pos+int64(n) > 8 {
		p = slices.Clone(p)
		for i := max(8-m.pos, 0); i < min(12-m.pos, int64(n)); i++ {
			p[i] = 0
		}
	}
	m.pos += int64(n)
	if _, err := m.w.Write(p); err != nil {
		return 0, err
	}
	return n, nil
}
