package daemon

import (
	"bytes"
	"context"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// Holdings puts what the store holds on the board. A digest stands there only
// after the blob is durable: it is this peer's receipt.
type Holdings struct {
	Board *agent.Agent
	Store cas.Store
}

// Announce adds a stored blob.
func (h Holdings) Announce(ctx context.Context, c cid.Cid) error { return h.change(ctx, c, true) }

// Forget takes a blob off before it is deleted.
func (h Holdings) Forget(ctx context.Context, c cid.Cid) error { return h.change(ctx, c, false) }

func (h Holdings) change(ctx context.Context, c cid.Cid, add bool) error {
	d, err := cas.Digest(c)
	if err != nil {
		return err
	}
	shard := int(d[0]) % claims.HoldShards
	return h.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		have := r.OwnHoldings(shard)
		n, found := slices.BinarySearchFunc(have, d, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
		switch {
		case add && !found:
			have = slices.Insert(have, n, d)
		case !add && found:
			have = slices.Delete(have, n, n+1)
		default:
			return nil
		}
		return []claims.Event{claims.Post{Body: shardOf(shard, have)}}
	})
}

// Reconcile makes the board say what the store really holds, after a start.
func (h Holdings) Reconcile(ctx context.Context) error {
	shards := make([][][32]byte, claims.HoldShards)
	for info, err := range h.Store.All() {
		if err != nil {
			return err
		}
		d, err := cas.Digest(info.CID)
		if err != nil {
			return err
		}
		n := int(d[0]) % claims.HoldShards
		shards[n] = append(shards[n], d)
	}
	return h.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		var evs []claims.Event
		for n, list := range shards {
			slices.SortFunc(list, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
			if !slices.Equal(list, r.OwnHoldings(n)) {
				evs = append(evs, claims.Post{Body: shardOf(n, list)})
			}
		}
		return evs
	})
}

func shardOf(n int, list [][32]byte) claims.Holdings {
	out := claims.Holdings{Shard: n, CIDs: make([][]byte, len(list))}
	for i := range list {
		out.CIDs[i] = list[i][:]
	}
	return out
}
