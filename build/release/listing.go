package release

import (
	"fmt"

	"github.com/build-swarm/swarm/build"
)

// ListingState says whether a release can still be had.
type ListingState string

const (
	Kept   ListingState = "kept"
	Pruned ListingState = "pruned" // its packages may go where nothing else names them
)

// Listing is what the board says of one release, beside the head that shows it:
// it stays when the head moves on, is what rollback chooses from, and keeps the
// release's blobs.
type Listing struct {
	Target   string       `cbor:"target" json:"target"`
	Release  string       `cbor:"release" json:"release"` // CID of the Manifest
	Number   uint64       `cbor:"n" json:"number"`        // version of the channel that showed it first: its name for people
	Previous string       `cbor:"previous" json:"previous"`
	Created  int64        `cbor:"at" json:"created_unix_s"`
	Packages int          `cbor:"packages" json:"packages"`
	Bytes    int64        `cbor:"bytes" json:"bytes"` // of all its packages
	New      int          `cbor:"new" json:"new"`     // against Previous
	Changed  int          `cbor:"changed" json:"changed"`
	Gone     int          `cbor:"gone" json:"gone"`
	Tree     string       `cbor:"tree,omitempty" json:"tree"`
	State    ListingState `cbor:"state" json:"state"`
	Pin      bool         `cbor:"pin,omitempty" json:"pinned"` // not pruned for its age
}

// Validate checks the form of a listing.
func (l Listing) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: listing: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case !build.ValidTarget(l.Target):
		return bad("target %q", clip(l.Target))
	case l.Number == 0:
		return bad("number 0")
	case l.Created <= 0 || l.Created > maxTime:
		return bad("time %d", l.Created)
	case l.Packages < 0 || l.Packages > MaxEntries || l.Bytes < 0 || l.New < 0 || l.Changed < 0 || l.Gone < 0:
		return bad("figures")
	case len(l.Tree) > maxTree || !printable(l.Tree):
		return bad("tree %q", clip(l.Tree))
	case l.State != Kept && l.State != Pruned:
		return bad("state %q", clip(string(l.State)))
	}
	if _, err := Digest(l.Release); err != nil {
		return bad("%v", err)
	}
	if l.Previous != "" {
		if _, err := Digest(l.Previous); err != nil {
			return bad("previous: %v", err)
		}
	}
	return nil
}

// Subscription says that a machine installs a target's releases, and which blob
// says what it has installed.
type Subscription struct {
	Target    string `cbor:"target" json:"target"`
	Peer      string `cbor:"peer" json:"peer"`
	Installed string `cbor:"set" json:"installed"` // CID of an Installed; "" when Gone
	Packages  int    `cbor:"packages" json:"packages"`
	Gone      bool   `cbor:"gone,omitempty" json:"gone"` // it no longer installs from here
}

// Validate checks the form of a subscription.
func (s Subscription) Validate() error {
	switch {
	case !build.ValidTarget(s.Target):
		return fmt.Errorf("%w: subscription: target %q", ErrInvalid, clip(s.Target))
	case s.Packages < 0 || s.Packages > maxInstalled:
		return fmt.Errorf("%w: subscription: %d packages", ErrInvalid, s.Packages)
	case s.Gone != (s.Installed == ""):
		return fmt.Errorf("%w: subscription: with an installed set, or gone", ErrInvalid)
	case s.Gone:
		return nil
	}
	_, err := Digest(s.Installed)
	return err
}

// Clash says in one line that two heads of a channel were made without knowing
// one another: at once, or in a partition. "" when one follows the other, or
// when too much lies between to tell.
func Clash(a, b Channel) string {
	if a == b || a.Target != b.Target || a.Name != b.Name {
		return ""
	}
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	switch {
	case a.Version == b.Version && a.Release != b.Release:
		return fmt.Sprintf("version %d of %s/%s was made twice", a.Version, a.Target, a.Name)
	case b.Version == a.Version+1 && b.Previous != a.Release:
		return fmt.Sprintf("version %d of %s/%s was made without version %d", b.Version, b.Target, b.Name, a.Version)
	}
	return ""
}
