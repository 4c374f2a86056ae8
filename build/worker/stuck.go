package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

// A build is stuck when it writes nothing and computes nothing for longer than
// such a build takes in whole, or when it does not come to an end. Times are of a
// clock that stops in suspend: what slept was not stuck.
const (
	stuckEvery    = 30 * time.Second // between two looks at a build
	quietMost     = 2 * time.Hour    // without history, and the most with it
	quietLeast    = 10 * time.Minute // a link step of a giant, a slow test
	longestLeast  = 24 * time.Hour   // no build is ended before, if it does something
	longestFactor = 10               // times its estimate
	// idleShare is what a process tree that waits uses of a core, at the most.
	idleShare = 0.01
)

// errStuck is the cause of a build's end when it was stuck.
var errStuck = errors.New("stuck")

// progress is what a build has done so far.
type progress struct {
	log int64         // bytes written
	cpu time.Duration // of its processes
}

// stuckWatch judges one build. expect is how long such a build takes here, and
// measured says that it is known from builds of the package.
type stuckWatch struct {
	began, moved time.Time
	last         progress
	looked       time.Time
	expect       time.Duration
	measured     bool
}

// look takes in what the build has done by now and says why it is stuck, "" when
// it is not.
func (s *stuckWatch) look(now time.Time, p progress) string {
	idle := time.Duration(float64(now.Sub(s.looked)) * idleShare)
	// Less than before means that processes left the tree: they ran.
	if d := p.cpu - s.last.cpu; p.log != s.last.log || d > idle || d < 0 {
		s.moved = now
	}
	s.last, s.looked = p, now
	quiet := quietMost
	if s.measured {
		quiet = min(quietMost, max(quietLeast, s.expect))
	}
	longest := max(longestLeast, longestFactor*s.expect)
	switch {
	case now.Sub(s.moved) >= quiet:
		return fmt.Sprintf("no output and no CPU time for %s", now.Sub(s.moved).Round(time.Second))
	case now.Sub(s.began) >= longest:
		return fmt.Sprintf("not done after %s; about %s were expected", now.Sub(s.began).Round(time.Minute), s.expect.Round(time.Minute))
	}
	return ""
}

// wait passes over a time in which the build was not let run.
func (s *stuckWatch) wait(now time.Time) {
	d := now.Sub(s.looked)
	s.began, s.moved, s.looked = s.began.Add(d), s.moved.Add(d), now
}

func (r *run) isFrozen() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held.level == guest.Frozen
}

// watchStuck ends the returned context, with errStuck, when the build is stuck.
// The returned function ends the watching.
func (r *run) watchStuck(ctx context.Context, log *logFile) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	now := time.Now()
	s := stuckWatch{began: now, moved: now, looked: now, expect: time.Duration(r.work*1000/max(1, r.w.cfg.Speed)) * time.Millisecond, measured: r.measured}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(stuckEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			now := time.Now()
			if r.isFrozen() {
				s.wait(now)
				continue
			}
			p := progress{log.size(), childCPU()}
			if r.resumed != nil {
				// Its processes are not below this one, and whether they compute is
				// not seen here: only its length is judged.
				p.cpu = s.last.cpu + stuckEvery
			}
			if why := s.look(now, p); why != "" {
				cancel(fmt.Errorf("%w: %s", errStuck, why))
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// stuckFailure is the end of a stuck build as its outcome tells it; nil when that
// was not why it ended.
func stuckFailure(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStuck) {
		return &build.Failure{Class: build.Stuck, Reason: cause.Error()}
	}
	return nil
}

// clockTick is the unit of times in /proc, fixed by the kernel's interface.
const clockTick = 10 * time.Millisecond

// childCPU is the CPU time of all processes below this one. Of two builds that
// run side by side neither is taken for idle while the other computes: better a
// stuck build that waits for the other's end than one that is ended wrongly.
func childCPU() time.Duration {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0 // output alone counts then
	}
	type proc struct {
		parent int
		ticks  int64
	}
	procs := map[int]proc{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything; fields count after it.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 15 {
			continue
		}
		p := proc{}
		if p.parent, err = strconv.Atoi(f[1]); err != nil {
			continue
		}
		own := f[11:15] // utime, stime, and of reaped children
		if pid == os.Getpid() {
			own = f[13:15]
		}
		for _, t := range own {
			n, err := strconv.ParseInt(t, 10, 64)
			if err == nil {
				p.ticks += n
			}
		}
		procs[pid] = p
	}
	var sum int64
	for pid, p := range procs {
		at := pid
		for n := 0; at != os.Getpid() && at > 1 && n < len(procs); n++ {
			at = procs[at].parent
		}
		if at == os.Getpid() {
			sum += p.ticks
		}
	}
	return time.Duration(sum) * clockTick
}
