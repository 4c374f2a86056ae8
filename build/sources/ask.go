package sources

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/p2p"
)

// Proto asks a peer for sources.
const Proto = "/swarm/sources/1"

const (
	maxAsk     = 1 << 20
	maxSources = 2000 // of one question
	askTimeout = 50 * time.Second
)

// state is what a peer says of a source.
type state uint8

const (
	unknown     state = iota // it has nothing to do with it
	held                     // it has it, as CID
	downloading              // it downloads it
	asking                   // it asks for it, as the one who hears this does
)

// question asks for sources that the asker will download if nobody has them.
type question struct {
	Sources []build.Source `cbor:"s"`
}

type answer struct {
	State state  `cbor:"s"`
	CID   string `cbor:"c,omitempty"`
}

type reply struct {
	Answers []answer `cbor:"a"`
}

// Serve answers other peers, from now on.
func (s *Sharer) Serve() {
	p2p.Serve(s.cfg.Net, Proto, maxAsk, func(ctx context.Context, from string, req []byte) ([]byte, error) {
		var q question
		if err := build.Unmarshal(req, &q); err != nil {
			return nil, fmt.Errorf("decode question about sources: %w", err)
		}
		if len(q.Sources) > maxSources {
			return nil, fmt.Errorf("%d sources are asked for, at most %d", len(q.Sources), maxSources)
		}
		var r reply
		for _, src := range q.Sources {
			r.Answers = append(r.Answers, s.answer(ctx, from, src))
		}
		return build.Marshal(r)
	})
}

func (s *Sharer) answer(ctx context.Context, from string, src build.Source) answer {
	if !src.Valid() {
		return answer{}
	}
	if c, ok := s.Distfile(ctx, src); ok {
		return answer{State: held, CID: c.String()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.index[src.Hash] // it may have come just now, and its mark gone
	switch m := s.marks[src.Hash]; {
	case ok:
		return answer{State: held, CID: c.String()}
	case m == nil:
		return answer{}
	case m.download:
		return answer{State: downloading}
	default:
		m.rivals[from] = true
		return answer{State: asking}
	}
}

// ask asks every connected peer. Who does not answer has nothing.
func (s *Sharer) ask(ctx context.Context, list []build.Source) map[string]reply {
	out := map[string]reply{}
	q, err := build.Marshal(question{Sources: list[:min(len(list), maxSources)]})
	if err != nil {
		s.cfg.Log.Warn("peers are not asked for sources", "error", err)
		return out
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, peer := range s.cfg.Net.Peers() {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(gctx, askTimeout)
			defer cancel()
			var r reply
			raw, err := p2p.Request(ctx, s.cfg.Net, peer, Proto, q, maxAsk)
			if err == nil {
				err = build.Unmarshal(raw, &r)
			}
			if err != nil {
				s.cfg.Log.Debug("a peer did not say what sources it has", "peer", peer, "error", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			out[peer] = r
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
	return out
}
