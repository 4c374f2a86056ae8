package cas

import (
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// digestSize is the size of a BLAKE3-256 digest in bytes.
const digestSize = 32

// maxCIDText bounds what Parse looks at: base32 of 36 bytes and its prefix are
// 59 characters, and a longer text is no CID of ours.
const maxCIDText = 128

// NewCID names the blob whose BLAKE3-256 digest is sum.
func NewCID(sum [32]byte) cid.Cid {
	// A multihash is <code><length><digest>; both numbers fit one byte here.
	b := make([]byte, 0, 2+digestSize)
	b = append(b, mh.BLAKE3, digestSize)
	return cid.NewCidV1(cid.Raw, append(b, sum[:]...))
}

// Sum names the blob b.
func Sum(b []byte) cid.Cid {
	h := NewHasher()
	_, _ = h.Write(b) // never fails
	return h.CID()
}

// Parse reads the text form of a CID. Anything but CIDv1, raw, BLAKE3-256 in
// its canonical lower-case base32 is ErrBadCID, so that one blob has one name
// in every file name, record and URL.
func Parse(s string) (cid.Cid, error) {
	if len(s) > maxCIDText {
		return cid.Undef, fmt.Errorf("parse %q...: %w", s[:32], ErrBadCID)
	}
	c, err := cid.Decode(s)
	if err != nil {
		return cid.Undef, fmt.Errorf("parse %q: %w: %w", s, ErrBadCID, err)
	}
	if _, err := Digest(c); err != nil {
		return cid.Undef, err
	}
	if c.String() != s {
		return cid.Undef, fmt.Errorf("parse %q: %w: not the canonical text", s, ErrBadCID)
	}
	return c, nil
}

// Digest is the BLAKE3-256 digest in c, or ErrBadCID when c has another form.
func Digest(c cid.Cid) ([32]byte, error) {
	var sum [32]byte
	if !c.Defined() {
		return sum, fmt.Errorf("undefined CID: %w", ErrBadCID)
	}
	// The binary form, since to take it apart allocates, and a gateway asks this
	// of every package of a release.
	digest, ok := strings.CutPrefix(c.KeyString(), cidPrefix)
	if !ok || len(digest) != digestSize {
		return sum, fmt.Errorf("%s is not CIDv1 raw BLAKE3-256: %w", c, ErrBadCID)
	}
	copy(sum[:], digest)
	return sum, nil
}

// cidPrefix begins the binary form of our CIDs, four varints of a byte each:
// CIDv1, the raw codec, BLAKE3, 32 bytes.
const cidPrefix = "\x01\x55\x1e\x20"
