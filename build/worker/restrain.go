package worker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
	"github.com/build-swarm/swarm/claims"
)

// errReturned ends a build that goes back to the swarm.
var errReturned = errors.New("given back")

// Stopped reports whether a build's context ended because the build is to end,
// rather than the daemon.
func Stopped(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, errStopped) || errors.Is(cause, errReturned) || errors.Is(cause, errStuck)
}

// Builds lists what runs here, with how soon a free drone would have each from
// the start.
func (w *Worker) Builds(ctx context.Context) []guest.Build {
	w.mu.Lock()
	runs := make([]*run, 0, len(w.running))
	for _, r := range w.running {
		runs = append(runs, r)
	}
	w.mu.Unlock()
	slices.SortFunc(runs, func(a, b *run) int { return cmp.Compare(a.job.Key, b.job.Key) })
	out := make([]guest.Build, 0, len(runs))
	for _, r := range runs {
		j := r.beatJob()
		out = append(out, guest.Build{Key: r.job.Key, Name: r.job.CPV.String(), InvestedMS: j.InvestedMS, LeftMS: j.LeftMS})
	}
	if len(out) == 0 {
		return out
	}
	err := w.cfg.Board.Do(ctx, func(rep *claims.Replica, now claims.Now) []claims.Event {
		peers := rep.Peers(now)
		for n, r := range runs {
			out[n].ElsewhereMS = elsewhere(rep, peers, &r.job, w.cfg.Self, now)
		}
		return nil
	})
	if err != nil {
		w.cfg.Log.Debug("other drones not asked after", "error", err)
	}
	return out
}

// elsewhere is how long the fastest drone that is free takes for a job from the
// start, in milliseconds; 0 when none is free.
func elsewhere(rep *claims.Replica, peers []claims.Peer, job *build.Job, self string, now claims.Now) int64 {
	best := int64(0)
	for i := range peers {
		b := &peers[i].Beat
		if peers[i].ID == self || !peers[i].Live || !b.Accepting || len(b.Jobs) >= b.Slots || rep.FailedOn(job.Key, peers[i].ID) {
			continue
		}
		if fits, _ := rep.Fits(b, job); !fits {
			continue
		}
		if _, no := rep.Declined(job.Key, peers[i].ID, now); no {
			continue
		}
		ms := rep.Work(job)*1000/max(1, cmp.Or(b.Speed, 1000)/int64(b.Slots)) + 1
		if best == 0 || ms < best {
			best = ms
		}
	}
	return best
}

// Restrain notes what running builds get from now on, for how long each is kept
// frozen yet, and how long that will probably last: the board is told.
func (w *Worker) Restrain(level guest.Level, keep map[build.Key]int64, waitMS int64) {
	w.mu.Lock()
	runs := make([]*run, 0, len(w.running))
	for _, r := range w.running {
		runs = append(runs, r)
	}
	w.mu.Unlock()
	for _, r := range runs {
		if r.restrain(level, keep[r.job.Key], waitMS, time.Now()) {
			r.tell()
		}
	}
}

// Drain takes nothing more and waits until no build runs, or ctx ends.
func (w *Worker) Drain(ctx context.Context) {
	w.mu.Lock()
	w.draining = true
	w.mu.Unlock()
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for w.Running() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const drainLook = 200 * time.Millisecond

// admit says why a build does not fit beside those that run here.
func (w *Worker) admit(need guest.Need) error {
	if w.cfg.Free == nil {
		return nil
	}
	if why := guest.Admit(need, w.Room()); why != "" {
		return errors.New(why)
	}
	return nil
}

// Room is what the machine has for builds, with those that run; zero where nobody
// says what is free.
func (w *Worker) Room() guest.Room {
	if w.cfg.Free == nil {
		return guest.Room{}
	}
	room := w.cfg.Free()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.running {
		b := guest.Booked{Need: r.need}
		if u, ok := w.cfg.Builders[r.job.Builder].(interface{ Used(build.Key) guest.Need }); ok {
			b.Used = u.Used(r.job.Key)
		}
		b.Used.DiskMiB, _ = r.space.mib()
		room.Running = append(room.Running, b)
	}
	return room
}

// Return ends a build and gives its claim back.
func (w *Worker) Return(k build.Key, reason string) {
	w.mu.Lock()
	r := w.running[k]
	if r != nil {
		r.stopped = reason
	}
	w.mu.Unlock()
	if r != nil {
		r.cancel(errReturned)
	}
}

// restraint is what a build was held back for.
type restraint struct {
	level  guest.Level
	since  time.Time     // frozen since; zero: it runs
	frozen time.Duration // before that
	keepMS int64
	waitMS int64
}

// restrain reports whether others should hear of it.
func (r *run) restrain(level guest.Level, keepMS, waitMS int64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.held
	changed := h.level != level
	switch {
	case level == guest.Frozen && h.since.IsZero():
		h.since = now
	case level != guest.Frozen && !h.since.IsZero():
		h.frozen += now.Sub(h.since)
		h.since = time.Time{}
	}
	h.level, h.keepMS, h.waitMS = level, keepMS, waitMS
	if level != guest.Frozen {
		h.keepMS, h.waitMS = 0, 0
	}
	return changed
}

// worked is how long the build has run, without the time it was frozen; r.mu is
// held.
func (r *run) worked(now time.Time) time.Duration {
	if r.compiling.IsZero() {
		return 0
	}
	d := now.Sub(r.compiling) - r.held.frozen
	if !r.held.since.IsZero() {
		d -= now.Sub(r.held.since)
	}
	return max(0, d)
}

// maxKept bounds what a Beat says of a frozen build, in milliseconds.
const maxKept = 24 * 3_600_000

// beatJob is what the board is told of the build.
func (r *run) beatJob() claims.BeatJob {
	r.mu.Lock()
	defer r.mu.Unlock()
	worked := r.worked(time.Now())
	j := claims.BeatJob{Key: r.job.Key, Phase: r.phase, Compiling: !r.compiling.IsZero(), InvestedMS: worked.Milliseconds()}
	expect := r.setup + r.work*1000/max(1, r.w.cfg.Speed)
	j.Done = r.course.look(worked, time.Duration(expect)*time.Millisecond)
	j.LeftMS = claims.Left(claims.Whole(expect, j.InvestedMS, j.Done, r.unsure, r.measured), j.InvestedMS)
	if r.held.level == guest.Frozen {
		j.Phase = "frozen"
		j.LeftMS += max(0, r.held.waitMS)
		j.FrozenMS = min(max(1, r.held.keepMS), maxKept)
	}
	return j
}
