package release

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
)

// HeldBack is what the gates took out of a target's release when one was made
// last, package by package: every peer knows it then, and nobody tries the same
// again before there is something new. What stays out because it needs one of
// these is not in it; Compose finds that.
type HeldBack struct {
	Target   string        `cbor:"target" json:"target"`
	At       int64         `cbor:"at" json:"at_unix_s"`
	Packages []HeldPackage `cbor:"held" json:"packages"` // by name, MaxHeldBack at the most
	More     int           `cbor:"more,omitempty" json:"more"`
}

// HeldPackage is one package that a gate refused.
type HeldPackage struct {
	CID    string    `cbor:"cid" json:"cid"`
	CPV    build.CPV `cbor:"cpv" json:"cpv"`
	Reason string    `cbor:"why" json:"reason"`
	// Installing says that it failed when a peer installed it: it is not taken for
	// mended before one could install it.
	Installing bool `cbor:"inst,omitempty" json:"installing"`
}

const (
	// MaxHeldBack bounds a HeldBack, so that it fits a record of the board.
	MaxHeldBack = 40
	// MaxReason is the most bytes of a reason.
	MaxReason = 300
)

// NewHeldBack puts packages into the form of a record: sorted, clipped, and no
// more than fit.
func NewHeldBack(target string, at int64, list []HeldPackage) HeldBack {
	list = slices.Clone(list)
	slices.SortFunc(list, compareHeld)
	h := HeldBack{Target: target, At: at, More: max(0, len(list)-MaxHeldBack)}
	for _, p := range list[:min(len(list), MaxHeldBack)] {
		p.Reason = build.OneLine(p.Reason, MaxReason)
		h.Packages = append(h.Packages, p)
	}
	return h
}

func compareHeld(a, b HeldPackage) int {
	return cmp.Or(strings.Compare(a.CPV.String(), b.CPV.String()), strings.Compare(a.CID, b.CID))
}

// Of returns why a package was refused.
func (h *HeldBack) Of(cid string) (HeldPackage, bool) {
	i := slices.IndexFunc(h.Packages, func(p HeldPackage) bool { return p.CID == cid })
	if i < 0 {
		return HeldPackage{}, false
	}
	return h.Packages[i], true
}

// Same reports whether two say the same of the same packages, whenever it was.
func (h *HeldBack) Same(o *HeldBack) bool {
	return h.Target == o.Target && h.More == o.More && slices.Equal(h.Packages, o.Packages)
}

// Validate checks the form of what a peer says was held back.
func (h HeldBack) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: held back: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case !build.ValidTarget(h.Target):
		return bad("target %q", clip(h.Target))
	case h.At <= 0 || h.At > maxTime:
		return bad("time %d", h.At)
	case len(h.Packages) > MaxHeldBack || h.More < 0 || h.More > MaxEntries:
		return bad("%d packages and %d more", len(h.Packages), h.More)
	}
	for i, p := range h.Packages {
		if err := p.CPV.Validate(); err != nil {
			return bad("%v", err)
		}
		if _, err := Digest(p.CID); err != nil {
			return bad("%s: %v", clip(p.CPV.String()), err)
		}
		if len(p.Reason) > MaxReason || !printable(p.Reason) {
			return bad("%s: reason", clip(p.CPV.String()))
		}
		if i > 0 && compareHeld(h.Packages[i-1], p) >= 0 {
			return bad("%s is not in order, or twice", clip(p.CPV.String()))
		}
	}
	return nil
}
