package build

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/cas"
)

// ErrBase is wrapped by every error about a base that cannot be used.
var ErrBase = errors.New("invalid base")

// BaseKind says what a base was made from.
type BaseKind string

const (
	// BaseStage3 is a stage archive of Gentoo's.
	BaseStage3 BaseKind = "stage3"
	// BaseSystem is the packages of a machine's @system with all they need,
	// installed into an empty directory.
	BaseSystem BaseKind = "system"
	// BaseHost is a machine's own root, read-only. Nothing makes it immutable
	// but its owner, so what is built on it is provisional.
	BaseHost BaseKind = "host"
)

// Base is the manifest of a base: the immutable root directory that builds
// start from. Its encoding (Marshal) is a blob, and the hash of that names the
// base: BaseRef.Digest. The files are the blobs of Layers.
type Base struct {
	Format     int      `cbor:"format" json:"format"` // BaseFormat
	Kind       BaseKind `cbor:"kind" json:"kind"`
	Arch       string   `cbor:"arch" json:"arch"` // as Portage names it
	Generation int      `cbor:"gen" json:"generation"`
	From       string   `cbor:"from,omitempty" json:"from,omitempty"` // digest of the generation before
	Source     string   `cbor:"source" json:"source"`                 // for people: file and who signed it
	// Layers are unpacked over one another, the first lowest.
	Layers []BaseLayer `cbor:"layers" json:"layers"`
	// Host is the state of the machine, for BaseHost alone: a drone whose own
	// differs has another base.
	Host string `cbor:"host,omitempty" json:"host,omitempty"`
	// Portage is the version that the base carries.
	Portage string `cbor:"portage" json:"portage"`
	// Packages are what its package database holds, sorted by CPV.
	Packages []Installed `cbor:"packages" json:"packages"`
}

// BaseLayer is one archive of a base: a tar, compressed by zstd.
type BaseLayer struct {
	CID   string `cbor:"cid" json:"cid"`
	Bytes int64  `cbor:"bytes" json:"bytes"` // of the archive
	Files int64  `cbor:"files" json:"files"` // bytes of the files in it
}

// BaseFormat is the version of the manifest that this code writes and reads.
const BaseFormat = 1

// Bounds of a manifest that came from elsewhere.
const (
	MaxBase         = 8 << 20 // encoded bytes
	maxBaseLayers   = 64
	maxBasePackages = 20_000
)

// Provisional reports that what is built on the base is not to be relied on as
// what its target asks for.
func (b *Base) Provisional() bool { return b.Kind == BaseHost }

// Bytes is what the archives of the base come to.
func (b *Base) Bytes() int64 {
	var n int64
	for _, l := range b.Layers {
		n += l.Bytes
	}
	return n
}

// Validate checks what unpacking and comparing rely on. A manifest from a peer
// is validated before anything else looks at it.
func (b *Base) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrBase, OneLine(fmt.Sprintf(format, args...), 300))
	}
	switch {
	case b.Format != BaseFormat:
		return bad("format %d, this version reads %d", b.Format, BaseFormat)
	case b.Kind != BaseStage3 && b.Kind != BaseSystem && b.Kind != BaseHost:
		return bad("kind %q", b.Kind)
	case b.Kind == BaseHost && (b.Host == "" || len(b.Host) > 200 || len(b.Layers) > 0):
		return bad("a host base wants the host's state and has no layers")
	case b.Kind != BaseHost && (len(b.Layers) == 0 || b.Host != ""):
		return bad("no layers")
	case len(b.Layers) > maxBaseLayers || len(b.Packages) > maxBasePackages || len(b.Source) > 500 || len(b.Portage) > 100 || b.Generation < 0:
		return bad("%d layers, %d packages", len(b.Layers), len(b.Packages))
	}
	for _, l := range b.Layers {
		if _, err := cas.Parse(l.CID); err != nil || l.Bytes < 0 || l.Files < 0 {
			return bad("layer %q", l.CID)
		}
	}
	for i, p := range b.Packages {
		if err := p.CPV.Validate(); err != nil {
			return bad("package %v", err)
		}
		if _, err := ParseSlot(p.Slot); err != nil {
			return bad("package %s: slot %q", p.CPV, p.Slot)
		}
		if i > 0 && b.Packages[i-1].CPV.String() >= p.CPV.String() {
			return bad("package %s: not sorted", p.CPV)
		}
	}
	return nil
}

// Ref names the base: equal manifests have equal names.
func (b *Base) Ref(name string) (BaseRef, error) {
	if err := b.Validate(); err != nil {
		return BaseRef{}, err
	}
	data, err := Marshal(b)
	if err != nil {
		return BaseRef{}, fmt.Errorf("name base %s: %w", name, err)
	}
	digest, err := cas.Digest(cas.Sum(data))
	if err != nil {
		return BaseRef{}, fmt.Errorf("name base %s: %w", name, err)
	}
	return BaseRef{Name: name, Digest: hex.EncodeToString(digest[:])}, nil
}

// CID names the blob of the base's manifest.
func (r BaseRef) CID() (cid.Cid, error) {
	var sum [32]byte
	b, err := hex.DecodeString(r.Digest)
	if err != nil || len(b) != len(sum) {
		return cid.Undef, fmt.Errorf("%w: digest %q", ErrBase, OneLine(r.Digest, 80))
	}
	copy(sum[:], b)
	return cas.NewCID(sum), nil
}

// ReadBase decodes and validates a manifest.
func ReadBase(data []byte) (*Base, error) {
	if len(data) > MaxBase {
		return nil, fmt.Errorf("%w: a manifest of %d bytes", ErrBase, len(data))
	}
	var b Base
	if err := Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBase, err)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return &b, nil
}

// SortInstalled puts packages into the order that manifests have.
func SortInstalled(list []Installed) {
	slices.SortFunc(list, func(a, b Installed) int {
		x, y := a.CPV.String(), b.CPV.String()
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
}
