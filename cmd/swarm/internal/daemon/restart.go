package daemon

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// AwaitRestart waits for the wish to go on in a new process, and hands over then.
// One that would not start is not tried.
func AwaitRestart(ctx context.Context, asked <-chan os.Signal, check func() error, handOver func(), log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
		}
		if err := check(); err != nil {
			log.Error("not restarted: the new settings or program would not start", "error", err)
			continue
		}
		log.Info("going on in a new process")
		handOver()
		return nil
	}
}

// Drain lets builds end before the peer does, for as long as limit.
func Drain(w *worker.Worker, limit time.Duration, log *slog.Logger) {
	if w == nil || limit <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	log.Info("builds may end first", "limit", limit.String())
	w.Drain(ctx)
}

// Replicate waits until copies peers hold a blob, or as many as store blobs at
// all. Nothing is pushed: peers that should hold it pull it.
func Replicate(ctx context.Context, board *agent.Agent, c cid.Cid, copies int) error {
	changed := board.Changed()
	for {
		held, storing := 0, 0
		err := board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			held = len(r.Holders(c.String(), true, now))
			for _, p := range r.Peers(now) {
				if p.Live && p.Beat.Stores {
					storing++
				}
			}
			return nil
		})
		if err != nil || held >= min(copies, max(1, storing)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
