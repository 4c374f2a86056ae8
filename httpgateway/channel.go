package httpgateway

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// channel is what the gateway serves for one target.
type channel struct {
	target string
	dir    string // where its generations are kept
	// shadowed: Config.Mount has paths under its name, which come first.
	shadowed bool

	current atomic.Pointer[generation] // nil until there is one
	paths   atomic.Pointer[paths]      // never nil

	// making is held while a generation is made, and guards the next three.
	making sync.Mutex
	shelf  *shelf          // that current lies on; nil when the process did not write it
	tried  release.Channel // the head that lacked holders last time
	again  time.Time       // when it is worth looking for them again

	mu      sync.Mutex // of the fields below
	wanted  release.Channel
	missing int
	lagging time.Time // since when wanted is not what is served; zero when it is
	err     error
}

// Status is what one channel of a gateway shows and why.
type Status struct {
	Target  string          `json:"target"`
	Served  release.Channel `json:"served,omitzero"` // zero when nothing is served
	Wanted  release.Channel `json:"wanted,omitzero"` // the head on the board
	Missing int             `json:"missing"`
	// Lagging says since when Wanted is not what is served; zero when it is.
	Lagging  time.Time `json:"lagging,omitzero"`
	Packages int       `json:"packages"`
	Problem  string    `json:"problem,omitempty"` // one line for people
}

// Status lists what the gateway serves, by target.
func (g *Gateway) Status() []Status {
	var out []Status
	for _, t := range g.targets() {
		ch, err := g.channel(t)
		if err != nil {
			out = append(out, Status{Target: t, Problem: build.OneLine(err.Error(), 300)})
			continue
		}
		ch.mu.Lock()
		s := Status{Target: t, Wanted: ch.wanted, Missing: ch.missing, Lagging: ch.lagging}
		if ch.err != nil {
			s.Problem = build.OneLine(ch.err.Error(), 300)
		}
		ch.mu.Unlock()
		if gen := ch.current.Load(); gen != nil {
			s.Served, s.Packages = gen.head, gen.packages
		}
		out = append(out, s)
	}
	return out
}

// targets lists all that the catalog has and all that was served before.
func (g *Gateway) targets() []string {
	out := slices.DeleteFunc(slices.Clone(g.cfg.Catalog.Targets()), func(t string) bool { return !build.ValidTarget(t) })
	g.mu.Lock()
	for t := range g.channels {
		out = append(out, t)
	}
	g.mu.Unlock()
	slices.Sort(out)
	return slices.Compact(out)
}

// channel returns the channel of a target, or the error of Catalog.Head for
// one that has never had a release. A generation of an earlier run is taken
// up again.
func (g *Gateway) channel(target string) (*channel, error) {
	if !build.ValidTarget(target) {
		return nil, fmt.Errorf("find target: %w: not a name for one", ErrNoRelease)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch := g.channels[target]; ch != nil {
		return ch, nil
	}
	ch := &channel{target: target, dir: channelDir(g.cfg.CacheDir, target)}
	for pattern := range g.cfg.Mount {
		ch.shadowed = ch.shadowed || strings.HasPrefix(pattern, "/"+target+"/")
	}
	ch.paths.Store(&paths{})
	gen, table, err := load(ch.dir, target)
	switch {
	case err == nil:
		ch.current.Store(gen)
		ch.paths.Store(table)
	case !errors.Is(err, os.ErrNotExist):
		g.log.Warn("kept index is not usable, making it again", "target", target, "err", err)
	}
	if err != nil {
		if _, _, err := g.cfg.Catalog.Head(target, release.Stable); err != nil {
			return nil, fmt.Errorf("find a release of %s: %w", target, err)
		}
	}
	g.channels[target] = ch
	return ch, nil
}

// maxInline is the most entries that a request waits for: rendering them takes
// some 100 ms, and Portage waits 10 s for an index. While Run runs, a larger
// release is left to it and what is there is served meanwhile.
const maxInline = 4_000

// look is refresh for a request.
func (ch *channel) look(g *Gateway) {
	if gen := ch.current.Load(); gen != nil && g.running.Load() && !gen.broken.Load() {
		head, m, err := g.cfg.Catalog.Head(ch.target, release.Stable)
		if err == nil && head != gen.head && m != nil && len(m.Entries) > maxInline {
			g.Kick()
			return
		}
	}
	ch.refresh(g)
}

// refresh moves to the catalog's head when it is newer than what is served
// and can be served whole. When another goroutine is at it, that is left to
// it, unless there is nothing to serve until it is done.
func (ch *channel) refresh(g *Gateway) {
	if ch.current.Load() == nil {
		ch.making.Lock()
	} else if !ch.making.TryLock() {
		return
	}
	defer ch.making.Unlock()
	head, m, err := g.cfg.Catalog.Head(ch.target, release.Stable)
	missing := 0
	if err == nil {
		missing, err = ch.move(g, head, m)
	}
	served := release.Channel{}
	if gen := ch.current.Load(); gen != nil {
		served = gen.head
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.missing, ch.err = missing, err
	switch {
	case head.IsZero(): // nothing to compare with
	case head == served:
		ch.wanted, ch.lagging = head, time.Time{}
	default:
		ch.wanted = head
		if ch.lagging.IsZero() {
			ch.lagging = time.Now()
		}
	}
}

// move makes the generation of head and shows it. It returns how many
// entries have no live holder.
func (ch *channel) move(g *Gateway, head release.Channel, m *release.Manifest) (missing int, err error) {
	now := ch.current.Load()
	if now != nil && head == now.head && !now.broken.Load() {
		return 0, nil
	}
	if err := head.Validate(); err != nil {
		return 0, err
	}
	if m == nil || head.Target != ch.target || head.Name != release.Stable || m.Target != ch.target {
		return 0, fmt.Errorf("move %s to a new head: it is that of %s/%s", ch.target, head.Target, head.Name)
	}
	if now != nil && head != now.head && head.Timestamp <= now.head.Timestamp {
		return 0, fmt.Errorf("%s: the board's head (version %d) is not newer than the one served (version %d), which stays", ch.target, head.Version, now.head.Version)
	}
	start := time.Now()
	if head == ch.tried && start.Before(ch.again) {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return ch.missing, ch.err
	}
	chunks, err := ch.shelf.cut(m)
	if err != nil {
		return 0, fmt.Errorf("move %s to a new head: %w", ch.target, err)
	}
	for _, c := range chunks {
		for _, id := range c.cids {
			if !g.cfg.Catalog.Available(id) {
				missing++
			}
		}
	}
	if missing > 0 {
		// To look takes a while in a large release, so not on each request.
		if took := time.Since(start); took > 2*time.Millisecond {
			ch.tried, ch.again = head, time.Now().Add(min(10*took, time.Second))
		}
		return missing, fmt.Errorf("%s: %d of %d packages of the newest release have no live holder", ch.target, missing, len(m.Entries))
	}
	on := ch.shelf
	if !on.takes(now) {
		on = nil
	}
	gen, table, err := ch.make(on, head, m, chunks)
	if err != nil && on != nil {
		g.log.Warn("index could not be added to those before it, beginning anew", "target", ch.target, "err", err)
		gen, table, err = ch.make(nil, head, m, chunks)
	}
	if err != nil {
		return 0, err
	}
	ch.paths.Store(table)
	ch.current.Store(gen)
	g.log.Info("serving a new release", "target", ch.target, "version", head.Version, "packages", len(m.Entries), "timestamp", head.Timestamp)
	return 0, nil
}

// make writes the generation onto a shelf, nil for a new one.
func (ch *channel) make(on *shelf, head release.Channel, m *release.Manifest, chunks []chunk) (*generation, *paths, error) {
	var table *paths
	if on != nil {
		table = ch.paths.Load().next(on.change(chunks))
	} else {
		all := make([]known, 0, len(m.Entries))
		for _, c := range chunks {
			for i, it := range c.Items() {
				all = append(all, newKnown(it, c.cids[i]))
			}
		}
		table = ch.paths.Load().replace(all)
	}
	gen, next, err := store(ch.dir, on, m, head, chunks, table)
	if err != nil {
		ch.shelf = nil // what it has at its end is not known any more
		return nil, nil, err
	}
	ch.shelf = next
	return gen, table, nil
}
