package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func testKey(n byte) (ed25519.PrivateKey, string) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	return key, PeerID(key.Public().(ed25519.PublicKey))
}

func sealed(t testing.TB, n byte, change func(*Record)) Opened {
	t.Helper()
	key, id := testKey(n)
	r := Record{Type: "claim", Key: "claim/abc", Order: []byte{1, 2}, Author: id, Stamp: 7, Body: []byte("body")}
	if change != nil {
		change(&r)
	}
	o, err := Seal(key, r)
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return o
}

// The bytes of version 1 for ever: a change here is a change of the protocol.
func TestGoldenBytes(t *testing.T) {
	o := sealed(t, 1, nil)
	got := hex.EncodeToString(o.Raw())
	_, id := testKey(1)
	prefix := "8765636c61696d69636c61696d2f616263420102" + "7834" + hex.EncodeToString([]byte(id)) + "0744" + hex.EncodeToString([]byte("body")) + "5840"
	if !strings.HasPrefix(got, prefix) {
		t.Errorf("encoding\n got %s\nwant %s...", got, prefix)
	}
	if len(o.Raw()) != len(prefix)/2+ed25519.SignatureSize {
		t.Errorf("record of %d bytes", len(o.Raw()))
	}
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	o := sealed(t, 1, nil)
	got, err := Open(o.Raw())
	if err != nil {
		t.Fatal(err)
	}
	if got.Key() != o.Key() || got.Author() != o.Author() || got.Hash() != o.Hash() || !bytes.Equal(got.Body(), o.Body()) {
		t.Errorf("Open = %+v, want %+v", got, o)
	}
}

func TestAnyFlippedBitIsRefused(t *testing.T) {
	raw := sealed(t, 1, nil).Raw()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := Open(bad); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d was accepted", i, len(raw))
		}
	}
	for n := range raw {
		if _, err := Open(raw[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d were accepted", n, len(raw))
		}
	}
}

func TestSealRefusesAnotherAuthor(t *testing.T) {
	key, _ := testKey(1)
	_, other := testKey(2)
	if _, err := Seal(key, Record{Type: "x", Key: "x/1", Author: other}); err == nil {
		t.Fatal("sealed in another peer's name")
	}
}

func TestBounds(t *testing.T) {
	key, id := testKey(1)
	for name, r := range map[string]Record{
		"no type":    {Key: "a", Author: id},
		"no key":     {Type: "a", Author: id},
		"space":      {Type: "a", Key: "a b", Author: id},
		"long key":   {Type: "a", Key: strings.Repeat("k", maxKey+1), Author: id},
		"long order": {Type: "a", Key: "k", Author: id, Order: make([]byte, maxOrder+1)},
		"large body": {Type: "a", Key: "k", Author: id, Body: make([]byte, MaxRecord)},
	} {
		if _, err := Seal(key, r); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: Seal err = %v", name, err)
		}
	}
	if _, err := Open(make([]byte, MaxRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized: %v", err)
	}
}

func TestTheGreaterOrderWinsThenTheLowerHash(t *testing.T) {
	a := sealed(t, 1, func(r *Record) { r.Order = []byte{1} })
	b := sealed(t, 2, func(r *Record) { r.Order = []byte{2} })
	if a.Wins(b) || !b.Wins(a) {
		t.Error("the greater order does not win")
	}
	c := sealed(t, 2, func(r *Record) { r.Order = []byte{1} })
	ha, hc := a.Hash(), c.Hash()
	if a.Wins(c) != (bytes.Compare(ha[:], hc[:]) < 0) || a.Wins(c) == c.Wins(a) {
		t.Error("equal orders are not decided by the lower hash")
	}
	if a.Wins(a) {
		t.Error("a record replaces itself")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(sealed(f, 1, nil).Raw())
	f.Add([]byte{})
	f.Add([]byte{0x87, 0x60})
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Open(raw)
		if err != nil {
			return
		}
		if again, err := Open(o.Raw()); err != nil || again.Hash() != o.Hash() {
			t.Fatalf("a record that opened once does not open again: %v", err)
		}
	})
}
