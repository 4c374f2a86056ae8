package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// Service is how the init system deals with this peer: it is told when the peer
// is ready and that it is alive (sd_notify(3), where there is NOTIFY_SOCKET), and
// asks for a process that goes on where this one ends.
type Service struct {
	Asked    <-chan os.Signal
	Check    func() error // why a new process would not start
	HandOver func()
	Board    *agent.Agent
	Log      *slog.Logger
}

// Run tells and waits until ctx ends, or everything was handed over. The watchdog
// is fed only while the board answers.
func (s Service) Run(ctx context.Context) error {
	s.notify("READY=1")
	var feed <-chan time.Time
	if us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
		tick := time.NewTicker(time.Duration(us) * time.Microsecond / 3)
		defer tick.Stop()
		feed = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			s.notify("STOPPING=1")
			return nil
		case <-feed:
			if s.Board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event { return nil }) == nil {
				s.notify("WATCHDOG=1")
			}
			continue
		case <-s.Asked:
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
			s.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
		}
		if err := s.Check(); err != nil {
			s.Log.Error("not restarted: the new settings or program would not start", "error", err)
			s.notify("READY=1")
			continue
		}
		s.Log.Info("going on in a new process")
		s.HandOver()
		return nil
	}
}

// notify tells the init system; one that does not listen misses nothing.
func (s Service) notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // "@name" is abstract
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		s.Log.Debug("the init system was not told", "state", state, "error", err)
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
		var holders []string
		takers := 0
		err := board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			holders = r.Holders(c.String(), true, now)
			for _, p := range r.Peers(now) {
				// A full one never takes it: it would be waited for in vain.
				if p.Live && !p.Self && p.Beat.Takes(0, 1) && !slices.Contains(holders, p.ID) {
					takers++
				}
			}
			return nil
		})
		if err != nil || len(holders) >= copies || takers == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
