package gpkg

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
)

// FirstDifference names the first thing, in the order of names, in which the
// content of two packages differs, and how: "usr/bin/true: other bytes". It is
// "" where their content digests are equal. It reads both images, without
// checking their hashes.
func FirstDifference(ctx context.Context, a, b *Package) (string, error) {
	one, err := a.summary(ctx)
	if err != nil {
		return "", err
	}
	two, err := b.summary(ctx)
	if err != nil {
		return "", err
	}
	for i, j := 0, 0; i < len(one) || j < len(two); {
		switch {
		case j == len(two) || i < len(one) && one[i].file.Name < two[j].file.Name:
			return one[i].file.Name + ": in the first one alone", nil
		case i == len(one) || two[j].file.Name < one[i].file.Name:
			return two[j].file.Name + ": in the second one alone", nil
		}
		if how := one[i].differs(&two[j]); how != "" {
			return one[i].file.Name + ": " + how, nil
		}
		i, j = i+1, j+1
	}
	names := append(sortedKeys(a.Metadata), sortedKeys(b.Metadata)...)
	slices.Sort(names)
	for _, k := range slices.Compact(names) {
		if !ofOneBuild(k) && a.Metadata[k] != b.Metadata[k] {
			return "metadata " + k + ": another value", nil
		}
	}
	return "", nil
}

// summed is one file of an image with a hash of its bytes, masked as in the
// content digest.
type summed struct {
	file File
	sum  [sha256.Size]byte
}

func (p *Package) summary(ctx context.Context) ([]summed, error) {
	var out []summed
	err := p.Walk(ctx, func(f File, content io.Reader) error {
		m := summed{file: f}
		if f.Kind == Regular {
			h := sha256.New()
			if _, err := io.Copy(masked(f.Name, h), content); err != nil {
				return err
			}
			h.Sum(m.sum[:0])
		}
		out = append(out, m)
		return nil
	})
	slices.SortFunc(out, func(a, b summed) int { return cmp.Compare(a.file.Name, b.file.Name) })
	return out, err
}

// masked hides from w what differs between honest builds of a file.
func masked(name string, w io.Writer) io.Writer {
	if path.Ext(name) == ".pyc" {
		return &pycMask{w: w}
	}
	return w
}

func (m *summed) differs(o *summed) string {
	a, b := &m.file, &o.file
	switch {
	case a.Kind != b.Kind:
		return "another kind of file"
	case a.Link != b.Link:
		return "another link"
	case a.Mode != b.Mode:
		return fmt.Sprintf("mode %o and %o", a.Mode, b.Mode)
	case a.UID != b.UID, a.GID != b.GID, a.User != b.User, a.Group != b.Group:
		return "another owner"
	case a.Size != b.Size:
		return fmt.Sprintf("%d and %d bytes", a.Size, b.Size)
	case m.sum != o.sum:
		return "other bytes"
	case !slices.Equal(a.Xattrs, b.Xattrs):
		return "other extended attributes"
	}
	return ""
}
