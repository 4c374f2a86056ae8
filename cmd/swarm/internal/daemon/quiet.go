package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/p2p"
)

// keepMost is how many peers a quiet one is told of, to stay connected to two of.
const keepMost = 4

// Quiet makes this peer one that costs its machine next to nothing: it leaves the
// gossip mesh, keeps two connections, and compares boards once a minute; what is
// asked of it, it does as ever. build/guest says when.
type Quiet struct {
	Board *agent.Agent
	Host  *p2p.Host
	Log   *slog.Logger

	on atomic.Bool
}

// Set makes this peer quiet, or ends that. It is called once in a while with on
// while that is to last, and looks at the connections then. That it is quiet the
// others must have been told before; that it is no more, after.
func (q *Quiet) Set(ctx context.Context, on bool) {
	was := q.on.Swap(on)
	if was != on {
		q.Log.Info("this peer is on battery and builds nothing", "quiet", on)
		if on {
			// One is enough, and for two the runtime wakes threads that look in vain
			// for something to do: a third of all wake-ups.
			runtime.GOMAXPROCS(1)
		} else {
			runtime.SetDefaultGOMAXPROCS()
		}
	}
	if err := q.Board.Quiet(on); err != nil {
		q.Log.Warn("the gossip of the swarm", "quiet", on, "error", err)
	}
	if on {
		q.Host.Rest(ctx, q.keep(ctx))
	} else {
		q.Host.Wake(ctx)
	}
}

// keep lists the peers that it is best to stay connected to: those that are always
// there, and of them other ones for every peer that asks.
func (q *Quiet) keep(ctx context.Context) (ids []string) {
	// It fails when the board is closed: then this peer ends, too.
	_ = q.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		list := slices.DeleteFunc(r.Peers(now), func(p claims.Peer) bool { return p.Self || !p.Live || p.Beat.Quiet })
		slices.SortFunc(list, func(a, b claims.Peer) int {
			if a.Beat.Steady != b.Beat.Steady {
				if a.Beat.Steady {
					return -1
				}
				return 1
			}
			return cmp.Compare(claims.Rendezvous(r.Self(), b.ID), claims.Rendezvous(r.Self(), a.ID))
		})
		for _, p := range list[:min(len(list), keepMost)] {
			ids = append(ids, p.ID)
		}
		return nil
	})
	return ids
}

// quietWork is how often a quiet peer does what follows from time alone. What
// changes on the board it hears once a minute and acts on at once.
const quietWork = 5 * time.Minute

// Every is how long work waits that is done every so often: as long as that, or,
// while this peer is quiet, until the next whole quietWork, so that all of it wakes
// the machine once.
func (q *Quiet) Every(d time.Duration) time.Duration {
	if !q.on.Load() {
		return d
	}
	now := time.Now()
	return max(d, now.Truncate(quietWork).Add(quietWork).Sub(now))
}

// Repeat calls f now and every so often, until ctx ends or f fails.
func (q *Quiet) Repeat(ctx context.Context, every time.Duration, f func() error) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f(); err != nil {
			return err
		}
		tick.Reset(q.Every(every))
	}
}
