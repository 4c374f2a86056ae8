package daemon

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// Holdings puts what the store holds on the board. A digest stands there only
// after the blob is durable: it is this peer's receipt.
type Holdings struct {
	Board Board
	Store cas.Store

	mu    sync.Mutex
	later map[cid.Cid]bool // what Run is to speak of
	wake  chan struct{}
}

// NewHoldings is how one is made.
func NewHoldings(board Board, store cas.Store) *Holdings {
	return &Holdings{Board: board, Store: store, later: map[cid.Cid]bool{}, wake: make(chan struct{}, 1)}
}

// Announce adds a stored blob.
func (h *Holdings) Announce(ctx context.Context, c cid.Cid) error {
	return h.Change(ctx, []cid.Cid{c}, true)
}

// Later has Run say soon whether the store holds a blob. It never blocks.
func (h *Holdings) Later(c cid.Cid) {
	h.mu.Lock()
	h.later[c] = true
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// holdingsRest is how long a word waits for more: a record holds a whole shard,
// and two thousand small blobs that were copied need not write it each.
const holdingsRest = 50 * time.Millisecond

// Run says what Later was told, until ctx ends; Reconcile at the next start says
// the rest.
func (h *Holdings) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(holdingsRest):
		}
		h.mu.Lock()
		now := h.later
		h.later = map[cid.Cid]bool{}
		h.mu.Unlock()
		var add, drop []cid.Cid
		for c := range now {
			// As it is now: a damaged blob may have been fetched again already.
			if _, err := h.Store.Stat(c); err == nil {
				add = append(add, c)
			} else {
				drop = append(drop, c)
			}
		}
		if err := errors.Join(h.Change(ctx, add, true), h.Change(ctx, drop, false)); err != nil && ctx.Err() == nil && !errors.Is(err, agent.ErrStopped) {
			return err
		}
	}
}

// Change adds stored blobs, or takes blobs off before they are deleted.
func (h *Holdings) Change(ctx context.Context, list []cid.Cid, add bool) error {
	shards := map[int][][32]byte{}
	for _, c := range list {
		d, err := cas.Digest(c)
		if err != nil {
			return err
		}
		n := int(d[0]) % claims.HoldShards
		shards[n] = append(shards[n], d)
	}
	if len(shards) == 0 {
		return nil
	}
	return h.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		var evs []claims.Event
		for n, list := range shards {
			have := r.OwnHoldings(n)
			before := len(have)
			for _, d := range list {
				i, found := slices.BinarySearchFunc(have, d, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
				switch {
				case add && !found:
					have = slices.Insert(have, i, d)
				case !add && found:
					have = slices.Delete(have, i, i+1)
				}
			}
			if len(have) != before {
				evs = append(evs, claims.Post{Body: shardOf(n, have)})
			}
		}
		return evs
	})
}

// Reconcile makes the board say what the store really holds, after a start.
func (h *Holdings) Reconcile(ctx context.Context) error {
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
