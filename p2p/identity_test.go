package p2p_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/build-swarm/swarm/p2p"
)

func TestAnIdentityIsMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	first, err := p2p.LoadOrCreateIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p2p.LoadOrCreateIdentity(dir)
	if err != nil || again.ID() != first.ID() || !again.PrivateKey().Equal(first.PrivateKey()) {
		t.Errorf("read back as %v (%v), want %v", again, err, first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files in the directory: %v (%v), want one", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	pub, err := p2p.PublicKeyOf(first.ID())
	if err != nil {
		t.Fatal(err)
	}
	if msg := []byte("hello"); !ed25519.Verify(pub, msg, ed25519.Sign(first.PrivateKey(), msg)) {
		t.Error("the key in the peer ID is not the identity's")
	}
}

func TestABadIdentityFileIsNamedAndKept(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		mode    fs.FileMode
		want    error
	}{
		"garbage":        {[]byte("hello"), 0o600, p2p.ErrIdentity},
		"empty":          {nil, 0o600, p2p.ErrIdentity},
		"bad DER":        {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600, p2p.ErrIdentity},
		"another kind":   {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600, p2p.ErrIdentity},
		"world-readable": {[]byte("x"), 0o644, p2p.ErrExposed},
		"huge":           {make([]byte, 1<<20), 0o600, p2p.ErrTooLarge},
	} {
		path := filepath.Join(t.TempDir(), "identity.pem")
		if err := os.WriteFile(path, c.content, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := p2p.LoadOrCreateIdentity(filepath.Dir(path)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if now, err := os.ReadFile(path); err != nil || len(now) != len(c.content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestPublicKeyOfTakesOnlyPeerIDs(t *testing.T) {
	for _, id := range []string{"", "x", "12D3Koo", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"} {
		if _, err := p2p.PublicKeyOf(id); err == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}

func TestASwarmKeyIsWrittenOnceInLibp2psFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), p2p.SwarmKeyFile)
	key := p2p.NewSwarmKey()
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if got, err := p2p.ReadSwarmKey(path); err != nil || got != key || got.Fingerprint() != key.Fingerprint() {
		t.Errorf("read back as %v, %v", got, err)
	}
	if err := p2p.NewSwarmKey().WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key: %v, want fs.ErrExist", err)
	}
	if got, err := p2p.ReadSwarmKey(path); err != nil || got != key {
		t.Errorf("after the refusal it reads %v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestABadSwarmKeyFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	if _, err := p2p.ReadSwarmKey(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key: %v", err)
	}
	for name, content := range map[string]string{
		"empty":      "",
		"other":      "hello\n",
		"short":      "/key/swarm/psk/1.0.0/\n/base16/\nabcd\n",
		"not hex":    "/key/swarm/psk/1.0.0/\n/base16/\nzz\n",
		"all zeroes": "/key/swarm/psk/1.0.0/\n/base16/\n" + "0000000000000000000000000000000000000000000000000000000000000000\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p2p.ReadSwarmKey(path); !errors.Is(err, p2p.ErrSwarmKey) {
			t.Errorf("%s: %v, want ErrSwarmKey", name, err)
		}
	}
	path := filepath.Join(dir, "exposed")
	if err := os.WriteFile(path, []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := p2p.ReadSwarmKey(path); !errors.Is(err, p2p.ErrExposed) {
		t.Errorf("a readable key: %v, want ErrExposed", err)
	}
}
