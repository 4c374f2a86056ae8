package cas

import (
	"fmt"

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
	p := c.Prefix()
	h := c.Hash()
	if p.Version != 1 || p.Codec != cid.Raw || p.MhType != mh.BLAKE3 || p.MhLength != digestSize || len(h) != 2+digestSize {
		return sum, fmt.Errorf("%s is not CIDv1 raw BLAKE3-256: %w", c, ErrBadCID)
	}
	copy(sum[:], h[2:])
	return sum, nil
}
