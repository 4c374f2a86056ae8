// Package wire is the signed envelope that everything on the board and every
// Beat travels in, and its encoding. It knows the envelope alone: what a body
// means is the business of the package that owns the type.
//
// An envelope is {type, key, order, author, stamp, body, signature}, encoded
// as a CBOR array (RFC 8949, core deterministic). The signature is Ed25519
// over a context string and the array without the signature. The author is a
// libp2p peer ID that holds its public key, so nothing else is needed to check
// it.
//
// An Opened record is one whose signature held; only Seal and Open make one,
// so code that takes an Opened never has to ask.
package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/mr-tron/base58"
)

// Bounds, in bytes. A record that is larger is refused before it is decoded.
const (
	MaxRecord = 32 << 10
	maxType   = 32
	maxKey    = 512
	maxOrder  = 256
)

// Errors of Open. ErrMalformed wraps everything about the form.
var (
	ErrMalformed = errors.New("malformed record")
	ErrTooLarge  = errors.New("record is larger than 32 KiB")
	ErrSignature = errors.New("signature does not hold")
)

// Record is an envelope without its signature.
type Record struct {
	_      struct{} `cbor:",toarray"`
	Type   string
	Key    string
	Order  []byte // the greater wins
	Author string // peer ID, text
	Stamp  uint64 // HLC at which the author wrote it
	Body   []byte
}

// signed is a Record and its signature in one array.
type signed struct {
	_      struct{} `cbor:",toarray"`
	Type   string
	Key    string
	Order  []byte
	Author string
	Stamp  uint64
	Body   []byte
	Sig    []byte
}

// Opened is a record whose signature held. It is immutable and may be shared.
type Opened struct {
	rec  Record
	raw  []byte
	hash [32]byte
}

// Record returns the envelope; its slices must not be written to.
func (o Opened) Record() Record { return o.rec }

// Type, Key, Author, Stamp and Body are the envelope's fields.
func (o Opened) Type() string   { return o.rec.Type }
func (o Opened) Key() string    { return o.rec.Key }
func (o Opened) Author() string { return o.rec.Author }
func (o Opened) Stamp() uint64  { return o.rec.Stamp }
func (o Opened) Body() []byte   { return o.rec.Body }

// Raw is the encoded record as it travels.
func (o Opened) Raw() []byte { return o.raw }

// Hash is SHA-256 of Raw.
func (o Opened) Hash() [32]byte { return o.hash }

// IsZero reports whether o is no record at all.
func (o Opened) IsZero() bool { return o.raw == nil }

// Wins reports whether o replaces other under the one merge: the greater
// order, then the lower hash.
func (o Opened) Wins(other Opened) bool {
	if c := bytes.Compare(o.rec.Order, other.rec.Order); c != 0 {
		return c > 0
	}
	return bytes.Compare(o.hash[:], other.hash[:]) < 0
}

const context = "swarm record 1\n"

// Seal signs a record. The author must be the peer ID of key.
func Seal(key ed25519.PrivateKey, r Record) (Opened, error) {
	if want := PeerID(key.Public().(ed25519.PublicKey)); r.Author != want {
		return Opened{}, fmt.Errorf("seal %s %s: author %s is not the signing key's %s", r.Type, r.Key, r.Author, want)
	}
	return SealBy(func(msg []byte) []byte { return ed25519.Sign(key, msg) }, r)
}

// SealBy is Seal with a signer in the place of a key. A record that another
// than its author's key signed opens nowhere.
func SealBy(sign func(msg []byte) []byte, r Record) (Opened, error) {
	if err := r.bounds(); err != nil {
		return Opened{}, fmt.Errorf("seal %s %s: %w", r.Type, r.Key, err)
	}
	b, err := encMode.Marshal(r)
	if err != nil {
		return Opened{}, fmt.Errorf("seal %s %s: %w", r.Type, r.Key, err)
	}
	raw, err := encMode.Marshal(signed{Type: r.Type, Key: r.Key, Order: r.Order, Author: r.Author, Stamp: r.Stamp, Body: r.Body, Sig: sign(append([]byte(context), b...))})
	if err != nil {
		return Opened{}, fmt.Errorf("seal %s %s: %w", r.Type, r.Key, err)
	}
	if len(raw) > MaxRecord {
		return Opened{}, fmt.Errorf("seal %s %s of %d bytes: %w", r.Type, r.Key, len(raw), ErrTooLarge)
	}
	return Opened{rec: r, raw: raw, hash: sha256.Sum256(raw)}, nil
}

// Open decodes a record and checks its signature. It keeps raw, which must
// not be written to afterwards.
func Open(raw []byte) (Opened, error) {
	if len(raw) > MaxRecord {
		return Opened{}, fmt.Errorf("open record of %d bytes: %w", len(raw), ErrTooLarge)
	}
	r, signed, sig, ok := decode(raw)
	if !ok {
		return Opened{}, fmt.Errorf("open record of %d bytes: %w", len(raw), ErrMalformed)
	}
	if err := r.bounds(); err != nil {
		return Opened{}, fmt.Errorf("open record: %w", err)
	}
	pub, err := PublicKey(r.Author)
	if err != nil {
		return Opened{}, fmt.Errorf("open record %s: %w", r.Key, err)
	}
	msg := make([]byte, 0, len(context)+1+len(signed))
	msg = append(append(append(msg, context...), headSigned), signed...)
	if !ed25519.Verify(pub, msg, sig) {
		return Opened{}, fmt.Errorf("open record %s by %s: %w", r.Key, r.Author, ErrSignature)
	}
	return Opened{rec: r, raw: raw, hash: sha256.Sum256(raw)}, nil
}

func (r *Record) bounds() error {
	switch {
	case r.Type == "" || len(r.Type) > maxType:
		return fmt.Errorf("%w: type of %d bytes", ErrMalformed, len(r.Type))
	case r.Key == "" || len(r.Key) > maxKey:
		return fmt.Errorf("%w: key of %d bytes", ErrMalformed, len(r.Key))
	case len(r.Order) > maxOrder:
		return fmt.Errorf("%w: order of %d bytes", ErrMalformed, len(r.Order))
	case len(r.Body) > MaxRecord:
		return fmt.Errorf("%w: body of %d bytes", ErrTooLarge, len(r.Body))
	}
	for _, s := range []string{r.Type, r.Key} {
		for i := range len(s) {
			if s[i] <= ' ' || s[i] > '~' {
				return fmt.Errorf("%w: type or key with byte %#x", ErrMalformed, s[i])
			}
		}
	}
	return nil
}

// idPrefix starts every Ed25519 peer ID: identity multihash of 36 bytes, a
// protobuf with key type Ed25519 and 32 bytes (libp2p peer-ids spec).
var idPrefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// PeerID is the libp2p peer ID of an Ed25519 key, in its text form.
func PeerID(pub ed25519.PublicKey) string {
	return base58.Encode(append(idPrefix[:len(idPrefix):len(idPrefix)], pub...))
}

// PublicKey is the key inside an Ed25519 peer ID. Other kinds of identity are
// refused: the swarm makes none.
func PublicKey(id string) (ed25519.PublicKey, error) {
	if len(id) > 64 {
		return nil, fmt.Errorf("%w: peer ID of %d bytes", ErrMalformed, len(id))
	}
	b, err := base58.Decode(id)
	if err != nil || len(b) != len(idPrefix)+ed25519.PublicKeySize || !bytes.Equal(b[:len(idPrefix)], idPrefix[:]) {
		return nil, fmt.Errorf("%w: %q is not an Ed25519 peer ID", ErrMalformed, id)
	}
	return ed25519.PublicKey(b[len(idPrefix):]), nil
}

// encMode is immutable and safe for concurrent use.
var encMode = mode()

func mode() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}
