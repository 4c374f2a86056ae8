package build

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// ErrSource is wrapped by errors about a file that is not the source its Manifest
// names.
var ErrSource = errors.New("not what the Manifest says")

// Source is one file that a build unpacks (a distfile), as the Manifest of its
// ebuild repository has it (GLEP 74).
type Source struct {
	Name string `cbor:"n" json:"name"`
	Size int64  `cbor:"s" json:"size"`
	Hash string `cbor:"h" json:"hash"` // "BLAKE2B:hex", "SHA512:hex" or "SHA256:hex"
	// Restricted: no program may download it (RESTRICT=fetch). A round brings it,
	// as CID, from the machine that asks.
	Restricted bool   `cbor:"r,omitempty" json:"restricted,omitempty"`
	CID        string `cbor:"c,omitempty" json:"cid,omitempty"`
}

// maxSource bounds the size of a source; the largest known game has 40 GB.
const maxSource = 1 << 40

// Valid reports whether the source is well formed: its name becomes a file's, its
// hash a part of a line.
func (s Source) Valid() bool {
	if s.Name == "" || len(s.Name) > 255 || s.Name[0] == '.' || s.Name[0] == '-' || s.Size < 0 || s.Size > maxSource || len(s.CID) > 128 {
		return false
	}
	if strings.ContainsFunc(s.Name, func(r rune) bool { return r <= ' ' || r == '/' || r == '\\' || r == 0x7f || r == '\ufffd' }) {
		return false
	}
	h, want := s.hasher()
	return h != nil && len(want) == h.Size()
}

func (s Source) hasher() (hash.Hash, []byte) {
	kind, text, _ := strings.Cut(s.Hash, ":")
	if text != strings.ToLower(text) {
		return nil, nil
	}
	want, err := hex.DecodeString(text)
	if err != nil {
		return nil, nil
	}
	switch kind {
	case "BLAKE2B":
		h, err := blake2b.New512(nil)
		if err != nil { // only of a key, and there is none
			return nil, nil
		}
		return h, want
	case "SHA512":
		return sha512.New(), want
	case "SHA256":
		return sha256.New(), want
	}
	return nil, nil
}

// Check reads r to its end and says whether it is the source; the error wraps
// ErrSource if it is another file, or r's own.
func (s Source) Check(r io.Reader) error {
	h, want := s.hasher()
	if h == nil {
		return fmt.Errorf("%s: %w: no hash is known", s.Name, ErrSource)
	}
	n, err := io.Copy(h, io.LimitReader(r, s.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", s.Name, err)
	case n != s.Size:
		return fmt.Errorf("%s: %w: its size differs", s.Name, ErrSource)
	case string(h.Sum(nil)) != string(want):
		return fmt.Errorf("%s: %w: its %s differs", s.Name, ErrSource, strings.SplitN(s.Hash, ":", 2)[0])
	}
	return nil
}

// SourceOf is a source by what a Manifest's line says: "KIND:hex" words. Not
// Valid if the line has no hash that is strong enough to share the file by.
func SourceOf(name string, size int64, hashes string) Source {
	s := Source{Name: name, Size: size}
	for _, kind := range []string{"BLAKE2B", "SHA512", "SHA256"} {
		for _, w := range strings.Fields(hashes) {
			if strings.HasPrefix(w, kind+":") && s.Hash == "" {
				s.Hash = kind + ":" + strings.ToLower(w[len(kind)+1:])
			}
		}
	}
	return s
}
