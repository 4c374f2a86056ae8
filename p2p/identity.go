package p2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// identityFile is the name of the key inside the state directory: PKCS #8 in
// PEM, so that any tool can read it.
const identityFile = "identity.pem"

// ErrIdentity: an identity file is not what it should be.
var ErrIdentity = errors.New("bad identity")

// Identity is a peer's Ed25519 key and the peer ID made from it. The zero value
// is not an identity.
type Identity struct {
	key ed25519.PrivateKey
	id  peer.ID
}

// NewIdentity makes an identity from 32 bytes of random; nil means the
// operating system's.
func NewIdentity(random io.Reader) (Identity, error) {
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return Identity{}, fmt.Errorf("make an identity: %w", err)
	}
	return identityOf(ed25519.NewKeyFromSeed(seed))
}

func identityOf(key ed25519.PrivateKey) (Identity, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		return Identity{}, fmt.Errorf("make an identity: %w", err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return Identity{}, fmt.Errorf("make an identity: %w", err)
	}
	return Identity{key: key, id: id}, nil
}

// ID is the peer ID, "12D3Koo...".
func (i Identity) ID() string { return i.id.String() }

// PrivateKey is the key that signs what this peer says. Callers do not change
// its bytes.
func (i Identity) PrivateKey() ed25519.PrivateKey { return i.key }

// String hides the key.
func (i Identity) String() string { return "identity " + i.ID() }

// PublicKeyOf returns the Ed25519 key that a peer ID contains. Any other text,
// and any other kind of key, is an error.
func PublicKeyOf(id string) (ed25519.PublicKey, error) {
	p, err := peer.Decode(id)
	if err != nil {
		return nil, fmt.Errorf("peer ID %.80q: %w", id, err)
	}
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("peer ID %.80q: %w", id, err)
	}
	if pub.Type() != crypto.Ed25519 || p.String() != id {
		return nil, fmt.Errorf("peer ID %.80q is not the text form of an Ed25519 key", id)
	}
	raw, err := pub.Raw()
	if err != nil {
		return nil, fmt.Errorf("peer ID %.80q: %w", id, err)
	}
	return raw, nil
}

// LoadOrCreateIdentity reads the identity in dir, or makes one. The file is 0600
// and durable before the identity is returned. A key that others may read is
// refused, as ssh does.
func LoadOrCreateIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	id, err := loadIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if id, err = NewIdentity(nil); err != nil {
		return Identity{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return Identity{}, fmt.Errorf("encode the identity: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	switch err := writeSecret(path, text); {
	case errors.Is(err, fs.ErrExist): // another process was faster: its identity counts
		return loadIdentity(path)
	case err != nil:
		return Identity{}, fmt.Errorf("write the identity: %w", err)
	}
	return id, nil
}

func loadIdentity(path string) (Identity, error) {
	text, err := readSecret(path)
	if err != nil {
		return Identity{}, fmt.Errorf("read the identity: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Identity{}, fmt.Errorf("read %s: no PEM private key in it: %w", path, ErrIdentity)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Identity{}, fmt.Errorf("read %s: %w: %w", path, ErrIdentity, err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return Identity{}, fmt.Errorf("read %s: a %T, not an Ed25519 key: %w", path, key, ErrIdentity)
	}
	return identityOf(ed)
}
