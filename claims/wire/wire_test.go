package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"reflect"
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
	for _, change := range []func(*Record){
		nil,
		func(r *Record) { r.Order = nil },
		func(r *Record) { r.Order = []byte{} },
		func(r *Record) { r.Body, r.Stamp = nil, 1<<62 },
	} {
		o := sealed(t, 1, change)
		got, err := Open(o.Raw())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, o) {
			t.Errorf("Open = %+v, want %+v", got, o)
		}
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

// Whoever passes a record on could else make others of it that hold as well.
func TestARecordHasOneEncoding(t *testing.T) {
	raw := sealed(t, 1, func(r *Record) { r.Body = bytes.Repeat([]byte("b"), 300) }).Raw()
	for name, change := range map[string][2]string{
		"the type's length in two bytes":       {"\x65claim", "\x78\x05claim"},
		"the key's length in three bytes":      {"\x69claim/", "\x79\x00\x09claim/"},
		"the stamp in nine bytes":              {"\x07\x59", "\x1b\x00\x00\x00\x00\x00\x00\x00\x07\x59"},
		"the body's length in five bytes":      {"\x59\x01\x2cbb", "\x5a\x00\x00\x01\x2cbb"},
		"the signature's length in five bytes": {"b\x58\x40", "b\x5a\x00\x00\x00\x40"},
		"the array's length in two bytes":      {"\x87\x65", "\x98\x07\x65"},
		"the order as text":                    {"\x42\x01\x02", "\x62\x01\x02"},
		"a length of the kind that is none":    {"\x65claim", "\x7cclaim"},
		"a field of no end":                    {"\x65claim", "\x7f\x65claim\xff"},
	} {
		other := bytes.Replace(raw, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(other, raw) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Open(other); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: err = %v, want ErrMalformed", name, err)
		}
	}
	if _, err := Open(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte after the record: err = %v", err)
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

// What decode takes, the library encodes to the same bytes: so it is the core
// deterministic encoding of that record, and nothing else is taken.
func FuzzOpen(f *testing.F) {
	f.Add(sealed(f, 1, nil).Raw())
	f.Add(sealed(f, 1, func(r *Record) { r.Order, r.Body, r.Stamp = nil, bytes.Repeat([]byte("x"), 300), 1<<62 }).Raw())
	f.Add([]byte{})
	f.Add([]byte{0x87, 0x60})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, _, sig, ok := decode(raw); ok {
			again, err := encMode.Marshal(signed{Type: r.Type, Key: r.Key, Order: r.Order, Author: r.Author, Stamp: r.Stamp, Body: r.Body, Sig: sig})
			if err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("%x was read, and is encoded as %x (%v)", raw, again, err)
			}
		}
		o, err := Open(raw)
		if err != nil {
			return
		}
		if again, err := Open(o.Raw()); err != nil || again.Hash() != o.Hash() {
			t.Fatalf("a record that opened once does not open again: %v", err)
		}
	})
}
