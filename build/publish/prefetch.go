package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// Prefetcher brings what a consumer will install onto its own disk as soon as a
// release shows it, so that emerge reads from there, also without a network. It
// does one package at a time: builds and people come first.
type Prefetcher struct {
	Board *agent.Agent
	Store cas.Store
	Fetch func(ctx context.Context, c cid.Cid) error // into Store
	Wait  time.Duration                              // between attempts; 0 = 10 s
	Done  func(target string, fetched int)           // for tests; may be nil
}

// Run follows the channels to which this machine is subscribed until ctx ends.
// What cannot be had is tried again after Wait.
func (p *Prefetcher) Run(ctx context.Context) error {
	wait := p.Wait
	if wait <= 0 {
		wait = 10 * time.Second
	}
	done := map[string]string{} // target to release and installed set
	changed := p.Board.Changed()
	for {
		again := false
		for _, s := range p.subscribed(ctx) {
			mark := s.head.Release + s.sub.Installed
			if done[s.sub.Target] == mark {
				continue
			}
			n, err := p.bring(ctx, s.sub, s.head)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				again = true
				continue
			}
			done[s.sub.Target] = mark
			if p.Done != nil {
				p.Done(s.sub.Target, n)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

type subscribed struct {
	sub  release.Subscription
	head release.Channel
}

// subscribed lists this machine's subscriptions with what they show now.
func (p *Prefetcher) subscribed(ctx context.Context) (out []subscribed) {
	// It fails when the board is closed: then Run ends, too.
	_ = p.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, s := range r.Subscriptions("") {
			if head := r.Channel(s.Target, release.Stable); s.Peer == r.Self() && head != nil {
				out = append(out, subscribed{s, *head})
			}
		}
		return nil
	})
	return out
}

// WantedHere tells which artifacts this machine's own subscriptions want of what
// their channels show: what Prefetcher brings, by CID. They are not surplus here,
// however many others hold them.
func WantedHere(board *agent.Agent, store cas.Store, fetch func(context.Context, cid.Cid) error) func(context.Context) (map[string]bool, error) {
	p := &Prefetcher{Board: board, Store: store, Fetch: fetch}
	return func(ctx context.Context) (map[string]bool, error) {
		out := map[string]bool{}
		for _, s := range p.subscribed(ctx) {
			list, err := p.wanted(ctx, s.sub, s.head)
			if err != nil {
				return nil, fmt.Errorf("work out what this machine installs: %w", err)
			}
			for _, c := range list {
				out[c.String()] = true
			}
		}
		return out, nil
	}
}

// wanted lists what a machine wants of a release.
func (p *Prefetcher) wanted(ctx context.Context, s release.Subscription, head release.Channel) (out []cid.Cid, err error) {
	m, err := LoadManifest(ctx, p.Store, p.Fetch, head.Release)
	if err != nil {
		return nil, err
	}
	set, err := LoadInstalled(ctx, p.Store, p.Fetch, s.Installed)
	if err != nil {
		return nil, err
	}
	for _, i := range release.Wanted(m, set) {
		c, err := cas.Parse(m.Entries[i].Artifact.CID)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// bring fetches what a machine wants of a release and returns how many packages
// came. What one holder has not, another may have: the rest goes on.
func (p *Prefetcher) bring(ctx context.Context, s release.Subscription, head release.Channel) (int, error) {
	list, err := p.wanted(ctx, s, head)
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	for _, c := range list {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if _, err := p.Store.Stat(c); err == nil {
			continue
		}
		if err := p.Fetch(ctx, c); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}
