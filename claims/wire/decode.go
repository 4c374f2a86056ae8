package wire

import (
	"crypto/ed25519"
	"encoding/binary"
)

// The CBOR major types of an envelope (RFC 8949, 3.1), in the upper three bits,
// and the one other item in it.
const (
	majorUint  = 0 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	null       = 0xf6 // a simple value
)

// An envelope is an array of seven, what is signed the array of the first six.
const (
	headSealed = majorArray | 7
	headSigned = majorArray | 6
)

// decode reads an envelope in the one encoding that Seal makes; the signature is
// its last bytes. A reader that took others, too, would let whoever passes a
// record on make more of it: with another hash, which decides between equal
// orders, and with a signature that holds. It is also why what is signed need
// not be encoded anew: it is raw with another first byte, up to the signature.
//
// Order and Body are parts of raw.
func decode(raw []byte) (r Record, signed, sig []byte, ok bool) {
	if len(raw) == 0 || raw[0] != headSealed {
		return Record{}, nil, nil, false
	}
	p := parser{rest: raw[1:], ok: true}
	typ, key, order, author := p.field(majorText), p.field(majorText), p.field(majorBytes), p.field(majorText)
	stamp, body := p.head(majorUint), p.field(majorBytes)
	signed = raw[1 : len(raw)-len(p.rest)]
	sig = p.field(majorBytes)
	if !p.ok || len(p.rest) != 0 || len(sig) != ed25519.SignatureSize {
		return Record{}, nil, nil, false
	}
	r = Record{Type: string(typ), Key: string(key), Order: order, Author: string(author), Stamp: stamp, Body: body}
	return r, signed, sig, true
}

// parser takes fields off the front of an encoding; ok is false once one was not
// as it has to be.
type parser struct {
	rest []byte
	ok   bool
}

// field takes a string of bytes or text; instead of bytes there may be none, which
// is not the same as an empty string of them.
func (p *parser) field(major byte) []byte {
	if major == majorBytes && len(p.rest) > 0 && p.rest[0] == null {
		p.rest = p.rest[1:]
		return nil
	}
	n := p.head(major)
	if n > uint64(len(p.rest)) {
		p.ok = false
	}
	if !p.ok {
		return nil
	}
	out := p.rest[:n:n]
	p.rest = p.rest[n:]
	return out
}

// head takes the head of an item: its type and, in as few bytes as hold it, its
// value or length.
func (p *parser) head(major byte) uint64 {
	if !p.ok || len(p.rest) == 0 || p.rest[0]&0xe0 != major {
		p.ok = false
		return 0
	}
	short := p.rest[0] & 0x1f
	p.rest = p.rest[1:]
	if short < 24 {
		return uint64(short)
	}
	size := 1 << (short - 24) // 1, 2, 4 or 8 bytes follow; above that is no length
	if short > 27 || len(p.rest) < size {
		p.ok = false
		return 0
	}
	var wide [8]byte
	copy(wide[8-size:], p.rest[:size])
	n := binary.BigEndian.Uint64(wide[:])
	p.rest = p.rest[size:]
	// What would have fitted into the next shorter form is not the one encoding.
	if size == 1 && n < 24 || size > 1 && n>>(4*size) == 0 {
		p.ok = false
	}
	return n
}
