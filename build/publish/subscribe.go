package publish

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// Subscribe tells the swarm what this machine has installed: a blob, and a
// record that names it. The last word of a machine counts.
func Subscribe(ctx context.Context, board *agent.Agent, store cas.Store, announce func(context.Context, cid.Cid) error, set *release.Installed) error {
	b, err := set.Encode()
	if err != nil {
		return err
	}
	info, err := store.Put(ctx, bytes.NewReader(b), cid.Undef)
	if err != nil {
		return fmt.Errorf("keep the installed set: %w", err)
	}
	if err := announce(ctx, info.CID); err != nil {
		return err
	}
	return board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		s := release.Subscription{Target: set.Target, Peer: r.Self(), Installed: info.CID.String(), Packages: len(set.Packages)}
		for _, old := range r.Subscriptions(set.Target) {
			if old == s {
				return nil
			}
		}
		return []claims.Event{claims.Post{Body: claims.NewSubscription(s)}}
	})
}

// Unsubscribe takes this machine's word back.
func Unsubscribe(ctx context.Context, board *agent.Agent, target string) error {
	return board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, s := range r.Subscriptions(target) {
			if s.Peer == r.Self() {
				return []claims.Event{claims.Post{Body: claims.NewSubscription(release.Subscription{Target: s.Target, Peer: s.Peer, Gone: true})}}
			}
		}
		return nil
	})
}
