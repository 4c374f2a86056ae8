package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
)

// ErrUnknown: no such release, or several.
var ErrUnknown = errors.New("unknown release")

// minCIDEnd is how much of a CID's end names a release, in characters.
const minCIDEnd = 6

// Find picks a release by its number, its CID, or the end of that. "" is the
// newest one older than the head's that is kept.
func Find(all []claims.Listed, head *release.Channel, name string) (claims.Listed, error) {
	if name == "" {
		return before(all, head)
	}
	number, numErr := strconv.ParseUint(name, 10, 64)
	var hits []claims.Listed
	for _, l := range all {
		if numErr == nil && l.Number == number || l.Release == name || len(name) >= minCIDEnd && strings.HasSuffix(l.Release, name) {
			hits = append(hits, l)
		}
	}
	switch {
	case len(hits) == 0:
		return claims.Listed{}, fmt.Errorf("%w: no release %s", ErrUnknown, build.OneLine(name, 80))
	case len(hits) > 1:
		var ends []string
		for _, h := range hits {
			ends = append(ends, Short(h.Release))
		}
		return claims.Listed{}, fmt.Errorf("%w: %s names several: %s", ErrUnknown, build.OneLine(name, 80), strings.Join(ends, ", "))
	}
	return hits[0], nil
}

// Short is the end of a release's CID, for people.
func Short(cid string) string { return cid[max(0, len(cid)-10):] }

func before(all []claims.Listed, head *release.Channel) (claims.Listed, error) {
	if head == nil {
		return claims.Listed{}, fmt.Errorf("%w: nothing is released yet", ErrUnknown)
	}
	number := head.Version
	for _, l := range all {
		if l.Release == head.Release {
			number = l.Number
		}
	}
	for _, l := range all { // the newest first
		if l.Number < number && l.State == release.Kept {
			return l, nil
		}
	}
	return claims.Listed{}, fmt.Errorf("%w: there is none before release %d", ErrUnknown, number)
}

// Down is a package that a move to another release takes to an older version.
type Down struct {
	CP   string `json:"package"`
	Slot string `json:"slot"`
	From string `json:"from"`
	To   string `json:"to"` // "" = the release has none
}

// Downgrades lists what becomes older from one release to another, by name:
// the newest version of each slot counts.
func Downgrades(from, to *release.Manifest) []Down {
	type place struct{ cp, slot string }
	newest := func(m *release.Manifest) map[place]string {
		out := map[place]string{}
		for i := range m.Entries {
			e := &m.Entries[i]
			slot, _, _ := strings.Cut(e.Slot, "/")
			at := place{e.CPV.CP(), slot}
			if v, ok := out[at]; !ok || release.CompareVersions(e.CPV.Version, v) > 0 {
				out[at] = e.CPV.Version
			}
		}
		return out
	}
	then, now := newest(to), newest(from)
	var out []Down
	for at, v := range now {
		if old, ok := then[at]; !ok || release.CompareVersions(old, v) < 0 {
			out = append(out, Down{at.cp, at.slot, v, old})
		}
	}
	slices.SortFunc(out, func(a, b Down) int { return cmp.Or(strings.Compare(a.CP, b.CP), strings.Compare(a.Slot, b.Slot)) })
	return out
}

// glibc is never downgraded: whatever was built against the newer one would
// not start.
const glibc = "sys-libs/glibc"

// Back is a rollback: what it would do, or did.
type Back struct {
	From, To claims.Listed
	Downs    []Down
	Unread   bool             // what goes down is not known: nobody has the list of From
	Repos    []build.Revision // of the tree that To was made of
	Shown    release.Channel  // after the fact
}

// Rollback moves a channel to another kept release, with its tree: the head is
// a new one, its time later than that of the last, so that no client keeps the
// index it has. With try set nothing moves. The error wraps ErrUnknown or
// ErrRefused.
func (p *Publisher) Rollback(ctx context.Context, target, name string, try bool) (*Back, error) {
	p.making.Lock()
	defer p.making.Unlock()
	var head *release.Channel
	var all []claims.Listed
	err := p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		head, all = r.Channel(target, release.Stable), r.Releases(target)
		return nil
	})
	if err != nil {
		return nil, err
	}
	to, err := Find(all, head, name)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, fmt.Errorf("%w: nothing is released yet", ErrUnknown)
	}
	b := &Back{To: to}
	for _, l := range all {
		if l.Release == head.Release {
			b.From = l
		}
	}
	if head.Release == to.Release {
		return b, fmt.Errorf("%w: release %d is what is shown", ErrNothing, to.Number)
	}
	if to.State != release.Kept {
		return b, fmt.Errorf("%w: release %d was pruned, its packages may be gone", ErrRefused, to.Number)
	}
	m, err := LoadManifest(ctx, p.Store, p.Fetch, to.Release)
	if err != nil {
		return b, err
	}
	b.Repos = m.Repos
	from, err := LoadManifest(ctx, p.Store, p.Fetch, head.Release)
	if err == nil {
		b.Downs = Downgrades(from, m)
	} else if b.Unread = p.nowhere(ctx, head.Release); !b.Unread {
		return b, err
	} else if from, err = p.installedGlibc(ctx, target); err != nil {
		return b, err
	}
	for _, d := range Downgrades(from, m) {
		if d.CP == glibc {
			return b, fmt.Errorf("%w: %s would go from %s to %s, and nothing built against the newer one would start", ErrRefused, glibc, d.From, orNone(d.To))
		}
	}
	if err := p.reachable(ctx, m); err != nil {
		return b, err
	}
	if try {
		return b, nil
	}
	return b, p.moveBack(ctx, b, head)
}

func orNone(v string) string {
	if v == "" {
		return "none"
	}
	return v
}

// nowhere reports whether no peer that is here has a blob.
func (p *Publisher) nowhere(ctx context.Context, cid string) (is bool) {
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		is = len(r.Holders(cid, true, now)) == 0
		return nil
	})
	return is && err == nil
}

// installedGlibc stands in for a release that nobody has: it holds what consumers
// have installed of the one package that may not go down.
func (p *Publisher) installedGlibc(ctx context.Context, target string) (*release.Manifest, error) {
	var subs []release.Subscription
	err := p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		subs = r.Subscriptions(target)
		return nil
	})
	m := &release.Manifest{Target: target}
	for _, sub := range subs {
		var set *release.Installed
		if set, err = LoadInstalled(ctx, p.Store, p.Fetch, sub.Installed); err != nil {
			return nil, fmt.Errorf("what a consumer has installed cannot be read, and neither can what is shown: %w", err)
		}
		for _, x := range set.Packages {
			if x.CPV.CP() == glibc {
				m.Entries = append(m.Entries, release.Entry{CPV: x.CPV, Slot: x.Slot})
			}
		}
	}
	return m, err
}

// reachable refuses a release of which something is nowhere.
func (p *Publisher) reachable(ctx context.Context, m *release.Manifest) error {
	lost := ""
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for i := range m.Entries {
			if len(r.Holders(m.Entries[i].Artifact.CID, true, now)) == 0 {
				lost = m.Entries[i].CPV.String()
				return nil
			}
		}
		return nil
	})
	if err == nil && lost != "" {
		err = fmt.Errorf("%w: %s of that release is on no peer that is here", ErrRefused, lost)
	}
	return err
}

func (p *Publisher) moveBack(ctx context.Context, b *Back, head *release.Channel) error {
	moved := false
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if !sameHead(r.Channel(head.Target, head.Name), head) {
			return nil
		}
		moved = true
		b.Shown = release.Next(head, b.To.Release, time.UnixMilli(now.Wall))
		return []claims.Event{claims.Post{Body: claims.NewChannel(b.Shown)}}
	})
	if err == nil && !moved {
		err = fmt.Errorf("%w: somebody moved the channel meanwhile", ErrRefused)
	}
	return err
}

// Mark changes whether a release is kept: pinned against its age, or pruned.
// What is shown is not pruned.
func (p *Publisher) Mark(ctx context.Context, target, name string, pin, prune bool) (claims.Listed, error) {
	var l claims.Listed
	var refused error
	err := p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		head := r.Channel(target, release.Stable)
		if l, refused = Find(r.Releases(target), head, name); refused != nil {
			return nil
		}
		switch {
		case prune && head != nil && head.Release == l.Release:
			refused = fmt.Errorf("%w: release %d is what %s shows", ErrRefused, l.Number, target)
		case !prune && l.State == release.Pruned:
			refused = fmt.Errorf("%w: release %d was pruned, its packages may be gone", ErrRefused, l.Number)
		}
		if refused != nil {
			return nil
		}
		l.Pin = pin
		if prune {
			l.State = release.Pruned
		}
		return []claims.Event{claims.Post{Body: claims.NewListing(l.Listing)}}
	})
	return l, errors.Join(err, refused)
}
