package p2p

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/pnet"
)

// SwarmKeyFile is the usual name of a swarm key's file.
const SwarmKeyFile = "swarm.key"

// ErrSwarmKey: a file is not a swarm key.
var ErrSwarmKey = errors.New("not a swarm key")

// SwarmKey is the secret that all peers of a swarm share: libp2p's private-network
// key. The zero value is no key, and NewHost refuses it.
type SwarmKey struct{ secret [32]byte }

// NewSwarmKey makes a key from the operating system's randomness.
func NewSwarmKey() SwarmKey {
	var k SwarmKey
	rand.Read(k.secret[:]) //nolint:errcheck // crypto/rand.Read never returns an error since Go 1.24
	return k
}

// IsZero says whether there is no key.
func (k SwarmKey) IsZero() bool { return k == SwarmKey{} }

// Fingerprint names the swarm: 16 hex digits that say nothing about the key.
func (k SwarmKey) Fingerprint() string {
	sum := sha256.Sum256(append([]byte("build swarm fingerprint 1\n"), k.secret[:]...))
	return hex.EncodeToString(sum[:8])
}

// String names the key and hides it, in logs too.
func (k SwarmKey) String() string { return "swarm key " + k.Fingerprint() }

// GoString hides the key from %#v.
func (k SwarmKey) GoString() string { return k.String() }

// ReadSwarmKey reads a key file in libp2p's format (/key/swarm/psk/1.0.0/, any of
// its three encodings). The error wraps fs.ErrNotExist, ErrExposed or ErrSwarmKey.
func ReadSwarmKey(path string) (SwarmKey, error) {
	text, err := readSecret(path)
	if err != nil {
		return SwarmKey{}, fmt.Errorf("read the swarm key: %w", err)
	}
	psk, err := pnet.DecodeV1PSK(bytes.NewReader(text))
	if err != nil {
		return SwarmKey{}, fmt.Errorf("read the swarm key in %s: %w: %w", path, ErrSwarmKey, err)
	}
	var k SwarmKey
	if copy(k.secret[:], psk) != len(k.secret) || k.IsZero() {
		return SwarmKey{}, fmt.Errorf("read the swarm key in %s: %w: it is empty or too short", path, ErrSwarmKey)
	}
	return k, nil
}

// WriteFile writes the key in libp2p's format with mode 0600, durable on return.
// A file that exists stays, and is fs.ErrExist: a swarm key is never overwritten.
func (k SwarmKey) WriteFile(path string) error {
	text := "/key/swarm/psk/1.0.0/\n/base16/\n" + hex.EncodeToString(k.secret[:]) + "\n"
	if err := writeSecret(path, []byte(text)); err != nil {
		return fmt.Errorf("write the swarm key to %s: %w", path, err)
	}
	return nil
}

// ReplaceFile writes the key over the one that is there, durable on return, whole
// or not at all. There is no way back to the old one.
func (k SwarmKey) ReplaceFile(path string) error {
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the swarm key: %w", err)
	}
	if err := k.WriteFile(next); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replace the swarm key: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
