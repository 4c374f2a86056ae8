package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/p2p/exchange"
)

// Catalog is what the gateway serves from: the channels on the board, their
// releases, and blobs of this store or of peers. Run keeps it up to date, so
// that its answers need no wait.
type Catalog struct {
	Board  *agent.Agent
	Store  cas.Store
	Fetch  func(context.Context, cid.Cid) error // into Store
	Stream *exchange.Fetcher
	Log    *slog.Logger
	Moved  func()                            // a head changed, or what peers hold
	Every  func(time.Duration) time.Duration // stretches what is done every so often

	mu        sync.Mutex
	heads     map[string]release.Channel // by target/channel
	manifests map[string]*release.Manifest
	live      map[[32]byte]bool // blobs that a reachable peer holds
}

const (
	// catalogPoll is how often the board is looked at though nothing changed: a
	// release that could not be read is tried again. That a peer fell silent is
	// a change.
	catalogPoll = 10 * time.Second
	// catalogRest is between two looks. While packages are built the board
	// changes many times a second, and a look goes over every blob.
	catalogRest = 100 * time.Millisecond
)

// Prefetch brings what this machine installs onto its own disk until ctx ends.
func (c *Catalog) Prefetch(ctx context.Context) error {
	return (&publish.Prefetcher{Board: c.Board, Store: c.Store, Fetch: c.Fetch}).Run(ctx)
}

// Run follows the board until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	changed := c.Board.Changed()
	tick := time.NewTimer(catalogPoll)
	defer tick.Stop()
	for {
		if err := c.refresh(ctx); err != nil && ctx.Err() == nil {
			c.Log.Debug("catalog not refreshed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(catalogRest):
		}
		tick.Reset(c.Every(catalogPoll))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

func (c *Catalog) refresh(ctx context.Context) error {
	var heads []release.Channel
	live := map[[32]byte]bool{}
	err := c.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		heads = r.Channels()
		alive := map[string]bool{}
		for _, p := range r.Peers(now) {
			alive[p.ID] = p.Live
		}
		for d, holders := range r.Blobs() {
			live[d] = slices.ContainsFunc(holders, func(p string) bool { return alive[p] })
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	moved := !maps.Equal(c.live, live) // a head that waited for a holder may be whole now
	c.live = live
	c.mu.Unlock()
	for _, h := range heads {
		moved = c.follow(ctx, h) || moved
	}
	c.forget()
	if moved {
		c.Moved()
	}
	return nil
}

// follow takes over a channel's head once its release can be read, and reports
// whether it moved.
func (c *Catalog) follow(ctx context.Context, h release.Channel) bool {
	key := h.Target + "/" + h.Name
	c.mu.Lock()
	same, m := c.heads[key] == h, c.manifests[h.Release]
	c.mu.Unlock()
	if same {
		return false
	}
	if m == nil {
		var err error
		if m, err = publish.LoadManifest(ctx, c.Store, c.Fetch, h.Release); err != nil {
			c.Log.Debug("release not loaded yet", "target", h.Target, "error", err)
			return false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heads == nil {
		c.heads, c.manifests = map[string]release.Channel{}, map[string]*release.Manifest{}
	}
	if c.manifests[h.Release] == nil {
		m.Share(c.manifests[c.heads[key].Release])
	}
	c.heads[key], c.manifests[h.Release] = h, m
	return true
}

// forget drops releases that no head shows any more: what the gateway serves
// until the new one is whole, it holds itself.
func (c *Catalog) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	shown := map[string]bool{}
	for _, h := range c.heads {
		shown[h.Release] = true
	}
	maps.DeleteFunc(c.manifests, func(id string, _ *release.Manifest) bool { return !shown[id] })
}

// Targets lists the targets that have a head.
func (c *Catalog) Targets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, h := range c.heads {
		seen[h.Target] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Head returns a channel's head and its release.
func (c *Catalog) Head(target, channel string) (release.Channel, *release.Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.heads[target+"/"+channel]
	if !ok {
		return release.Channel{}, nil, fmt.Errorf("%s/%s: %w", target, channel, httpgateway.ErrNoRelease)
	}
	return h, c.manifests[h.Release], nil
}

// Available reports whether a blob is here or with a live peer.
func (c *Catalog) Available(id cid.Cid) bool {
	if _, err := c.Store.Stat(id); err == nil {
		return true
	}
	d, err := cas.Digest(id)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live[d]
}

// Local opens a blob that lies here.
func (c *Catalog) Local(id cid.Cid) (httpgateway.LocalBlob, error) {
	b, err := c.Store.Open(id)
	if err != nil {
		return nil, err
	}
	if f, ok := b.(httpgateway.LocalBlob); ok {
		return f, nil
	}
	return nil, errors.Join(fmt.Errorf("blob %s does not lie in a file", id), b.Close())
}

// Open opens a blob: the file that lies here, or a verified stream from its
// holders.
func (c *Catalog) Open(ctx context.Context, id cid.Cid, size int64) (io.ReadSeekCloser, error) {
	if b, err := c.Store.Open(id); err == nil {
		return b, nil
	}
	var holders []string
	err := c.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		holders = r.Holders(id.String(), true, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(holders) == 0 {
		return nil, fmt.Errorf("blob %s: %w on any peer that is here", id, cas.ErrNotFound)
	}
	return c.Stream.Open(ctx, id, size, holders)
}
