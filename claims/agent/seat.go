package agent

import (
	"context"
	"fmt"
	"sync"

	"github.com/build-swarm/swarm/p2p/gossip"
)

// seat is this peer's place on the board's topic, which it gives up while it is
// quiet: a gossip mesh beats its heart every second whether it has news or not.
type seat struct {
	join func() (gossip.Topic, error)

	mu    sync.Mutex
	topic gossip.Topic  // nil while it is given up
	moved chan struct{} // closed when the topic is another
}

func newSeat(join func() (gossip.Topic, error)) *seat {
	return &seat{join: join, moved: make(chan struct{})}
}

// now is the topic, or nil, and a signal for when that is not so any more.
func (s *seat) now() (gossip.Topic, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topic, s.moved
}

// take joins the topic, unless it is joined.
func (s *seat) take() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topic != nil {
		return nil
	}
	t, err := s.join()
	if err != nil {
		return fmt.Errorf("join the board's topic: %w", err)
	}
	s.move(t)
	return nil
}

// leave gives it up.
func (s *seat) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topic == nil {
		return nil
	}
	t := s.topic
	s.move(nil)
	return t.Close()
}

// move replaces the topic; s.mu is held.
func (s *seat) move(t gossip.Topic) {
	s.topic = t
	close(s.moved)
	s.moved = make(chan struct{})
}

// drain takes messages off the topic until ctx ends; the validator has already
// given their records to the loop.
func (s *seat) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		topic, moved := s.now()
		for topic != nil {
			if _, err := topic.Next(ctx); err != nil {
				break // it has ended, or ctx has
			}
		}
		select {
		case <-ctx.Done():
		case <-moved:
		}
	}
	return nil
}

// Quiet takes this peer off the gossip, or lets it back. What it says meanwhile
// others hear by the exchange; that it is quiet, its Beats have to say themselves
// (claims.Beat). It may be called while Run runs.
func (a *Agent) Quiet(on bool) error {
	if on {
		return a.seat.leave()
	}
	return a.seat.take()
}
