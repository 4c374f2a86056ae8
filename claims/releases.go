package claims

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims/hlc"
)

// Release and consumer records.
const (
	TypeRelease  = "release"
	TypeConsumer = "consumer"
	TypeHeldBack = "heldback"
)

type (
	listingBody      struct{ release.Listing }
	subscriptionBody struct{ release.Subscription }
	heldBackBody     struct{ release.HeldBack }
)

// NewListing, NewSubscription and NewHeldBack let values of package release
// stand on the board.
func NewListing(l release.Listing) Body           { return listingBody{l} }
func NewSubscription(s release.Subscription) Body { return subscriptionBody{s} }
func NewHeldBack(h release.HeldBack) Body         { return heldBackBody{h} }

func (listingBody) recordType() string      { return TypeRelease }
func (subscriptionBody) recordType() string { return TypeConsumer }
func (heldBackBody) recordType() string     { return TypeHeldBack }

func (l listingBody) recordKey(string, hlc.Time) string {
	return TypeRelease + "/" + l.Target + "/" + l.Release
}
func (s subscriptionBody) recordKey(author string, _ hlc.Time) string {
	return TypeConsumer + "/" + s.Target + "/" + author
}
func (h heldBackBody) recordKey(string, hlc.Time) string         { return TypeHeldBack + "/" + h.Target }
func (listingBody) recordOrder(a string, s hlc.Time) []byte      { return lww(a, s) }
func (heldBackBody) recordOrder(a string, s hlc.Time) []byte     { return lww(a, s) }
func (subscriptionBody) recordOrder(a string, s hlc.Time) []byte { return lww(a, s) }

func (l listingBody) check(string) error {
	if err := l.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

func (h heldBackBody) check(string) error {
	if err := h.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

func (s subscriptionBody) check(author string) error {
	if s.Peer != author {
		return ErrAuthor
	}
	if err := s.Validate(); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

// Listed is a release with who wrote its record last.
type Listed struct {
	release.Listing
	Author string
}

// Releases lists the releases that the board knows of a target, or of all
// ("" as target): by target, the newest number first, then by CID.
func (r *Replica) Releases(target string) []Listed {
	var out []Listed
	for n := range r.board.bucket {
		for _, e := range r.board.bucket[n] {
			if l, ok := e.body.(listingBody); ok && (target == "" || l.Target == target) {
				out = append(out, Listed{l.Listing, e.rec.Author()})
			}
		}
	}
	slices.SortFunc(out, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(b.Number, a.Number), cmp.Compare(a.Release, b.Release))
	})
	return out
}

// HeldBack is what the gates took out of a target's release when one was made
// last; its At is 0 where nobody said anything.
func (r *Replica) HeldBack(target string) release.HeldBack {
	e := r.board.get(TypeHeldBack + "/" + target)
	if e == nil {
		return release.HeldBack{Target: target}
	}
	return e.body.(heldBackBody).HeldBack
}

// Contested lists the kept releases whose number another kept one has, too:
// they were made at once, or in a partition.
func Contested(all []Listed) []Listed {
	type name struct {
		target string
		number uint64
	}
	count := map[name]int{}
	for _, l := range all {
		if l.State == release.Kept {
			count[name{l.Target, l.Number}]++
		}
	}
	var out []Listed
	for _, l := range all {
		if l.State == release.Kept && count[name{l.Target, l.Number}] > 1 {
			out = append(out, l)
		}
	}
	return out
}

// RolledBack reports whether a target's channel shows an older release because
// a person went back to it: then nothing is released by itself.
func (r *Replica) RolledBack(target string) bool {
	head := r.Channel(target, release.Stable)
	if head == nil {
		return false
	}
	for _, l := range r.Releases(target) {
		if l.Release == head.Release {
			return l.Number < head.Version
		}
	}
	return false
}

// Subscriptions lists the machines that install a target's releases ("" = of
// any target), by target and peer.
func (r *Replica) Subscriptions(target string) []release.Subscription {
	var out []release.Subscription
	for n := range r.board.bucket {
		for _, e := range r.board.bucket[n] {
			if s, ok := e.body.(subscriptionBody); ok && !s.Gone && (target == "" || s.Target == target) {
				out = append(out, s.Subscription)
			}
		}
	}
	slices.SortFunc(out, func(a, b release.Subscription) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Peer, b.Peer))
	})
	return out
}

// Subscribed is when a machine last told what it has installed for a target; zero if
// it has not, or has taken it back.
func (r *Replica) Subscribed(s release.Subscription) hlc.Time {
	e := r.board.get(subscriptionBody{s}.recordKey(s.Peer, 0))
	if e == nil {
		return 0
	}
	if b, ok := e.body.(subscriptionBody); !ok || b.Gone {
		return 0
	}
	return hlc.Time(e.rec.Stamp())
}

// clash tells a person when a head and the one that stands on the board were
// made without knowing one another. The greater holds on every peer.
func (r *Replica) clash(c release.Channel) {
	old := r.Channel(c.Target, c.Name)
	if old == nil {
		return
	}
	if text := release.Clash(*old, c); text != "" {
		shown := c
		if old.Compare(c) > 0 {
			shown = *old
		}
		r.emit(Alarm{"channel", fmt.Sprintf("%s; every peer shows release %s; swarm releases lists both", text, shown.Release)})
	}
}
