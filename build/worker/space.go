package worker

import (
	"context"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/guest"
)

// space is how much disk a build's directory takes, and the most that it took.
//
// No file system keeps that figure for a directory (project quotas are an option of
// the mount that few machines have), and what is free on the whole disk moves for
// everybody's reasons. So the directory is walked: when a phase ends, since that is
// when a build has most, at its end, and in between at a pace of the walk's own
// length. A directory of a thousand files is looked at every other second, one of a
// million every few minutes.
type space struct {
	size  func(ctx context.Context, dir string) (int64, error)
	phase chan struct{} // one has ended

	mu        sync.Mutex
	now, most int64 // bytes
}

const (
	spaceEvery = 2 * time.Second // between two walks, at the least
	spaceShare = 50              // times what a walk took: it costs 2 % of a core at the most
	spacePhase = 4               // the same where a phase has ended
)

func newSpace(size func(context.Context, string) (int64, error)) *space {
	return &space{size: size, phase: make(chan struct{}, 1)}
}

// ended tells that a phase has ended.
func (s *space) ended() {
	select {
	case s.phase <- struct{}{}:
	default:
	}
}

// look walks dir. One that cannot be walked stays at what it was.
func (s *space) look(ctx context.Context, dir string) {
	if s.size == nil {
		return
	}
	n, err := s.size(ctx, dir)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.most = n, max(s.most, n)
}

// watch walks dir at its pace until ctx ends, but not while rests says so: a walk
// is felt by who sits at the machine.
func (s *space) watch(ctx context.Context, dir string, rests func() bool) {
	if s.size == nil {
		return
	}
	var took time.Duration
	for {
		timer := time.NewTimer(spacePhase * took)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		timer.Reset(max(spaceEvery, (spaceShare-spacePhase)*took))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.phase:
			timer.Stop()
		case <-timer.C:
		}
		if rests() {
			continue
		}
		began := time.Now()
		s.look(ctx, dir)
		took = time.Since(began)
	}
}

// mib are what is taken now, and the most that was; a part of one counts whole.
func (s *space) mib() (now, most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.now + 1<<20 - 1) >> 20, (s.most + 1<<20 - 1) >> 20
}

// measure watches a build's directory until the returned function is called, which
// looks once more: a failed build has left everything where it was.
func (r *run) measure(ctx context.Context, dir string) (done func()) {
	wctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.space.watch(wctx, dir, r.heldBack)
	}()
	return func() {
		cancel()
		<-ended
		r.space.look(ctx, dir)
	}
}

// shortOf is how much disk is to be tried after a build that failed for want of it:
// what it says itself, else half as much again as it had; 0 = it failed for another
// reason.
func shortOf(f *build.Failure, had int64) int64 {
	switch {
	case f.SpaceMiB == build.Unsaid:
		return had + had/2
	case f.Class == build.BadMachine:
		return max(0, f.SpaceMiB)
	}
	return 0
}

// heldBack reports whether the build gets less than everything.
func (r *run) heldBack() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held.level != guest.Full
}
