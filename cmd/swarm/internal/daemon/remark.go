package daemon

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
)

// remarkAfter is after how long what matters is found out anew once a release, a
// round or a pin has changed. Until the next collection, which may be a quarter of
// an hour away, a new release would be copied and counted as something lesser.
const remarkAfter = 10 * time.Second

// remark finds out anew what the board refers to, if that has changed.
func (c *Collector) remark(ctx context.Context) error {
	var now uint64
	err := c.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		if ok, _ := r.MayClaim(); ok {
			now = refersTo(r)
		}
		return nil
	})
	c.mu.Lock()
	same := now == c.refers || now == 0
	c.mu.Unlock()
	if err != nil || same {
		return err
	}
	if _, err := c.mark(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.refers = now
	c.mu.Unlock()
	return nil
}

// refersTo is a number over what decides how much blobs matter: channels, kept
// releases, rounds and pins.
func refersTo(r *claims.Replica) uint64 {
	h := fnv.New64a()
	for _, ch := range r.Channels() {
		fmt.Fprintln(h, "shown", ch.Target, ch.Name, ch.Release)
	}
	for _, l := range r.Releases("") {
		if l.State == release.Kept {
			fmt.Fprintln(h, "kept", l.Release)
		}
	}
	for _, rd := range r.Rounds() {
		fmt.Fprintln(h, "round", rd.ID, rd.State)
	}
	for _, d := range r.Directives() {
		if d.Verb == claims.VerbPin {
			fmt.Fprintln(h, "pin", d.Scope, d.Off)
		}
	}
	return h.Sum64()
}
