// Package request turns a plan into a round on the board: what `swarm build`
// and `swarm fresh` do after Portage, or the built-in planner, has answered.
//
// A plan up to build.MaxInlinePlan bytes stands in the round's record. A larger
// one becomes a blob that two peers hold before the round is published (one,
// while no other peer stores): a laptop that asks and leaves takes no plan with
// it. The same goes for the blobs that a plan brings with it: snapshots of the
// repositories, the configuration, packages that are lent.
package request

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// ErrNothing is returned for a plan without jobs.
var ErrNothing = errors.New("nothing to build")

// SmallRound is up to how many wanted packages a person is taken to wait for.
const SmallRound = 20

// Requester submits rounds for one peer.
type Requester struct {
	Self   string
	Manual bool // what is built is released by a person, not by itself
	Board  *agent.Agent
	Store  cas.Store
	// Announce puts a stored blob on this peer's holdings.
	Announce func(ctx context.Context, c cid.Cid) error
	// Replicate returns when that many peers hold the blob, or as many as
	// store blobs at all.
	Replicate func(ctx context.Context, c cid.Cid, copies int) error
	// Fetch brings a blob into Store.
	Fetch func(ctx context.Context, c cid.Cid) error
}

// Submit publishes a plan as a round and returns its ID.
func (q *Requester) Submit(ctx context.Context, p *build.Plan, prio build.Priority) (string, error) {
	if len(p.Jobs) == 0 {
		return "", ErrNothing
	}
	if err := p.Validate(); err != nil {
		return "", err
	}
	var id [5]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("make a round ID: %w", err)
	}
	rd := build.Round{
		ID: hex.EncodeToString(id[:]), Target: p.Target, Priority: prio, Requester: q.Self,
		State: build.RoundOpen, Counter: 1, Command: build.OneLine(p.Command, 200), Jobs: len(p.Jobs), Manual: q.Manual,
	}
	b, err := build.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode the plan: %w", err)
	}
	if len(b) <= build.MaxInlinePlan {
		rd.Plan = p
	} else if rd.PlanCID, err = q.keepPlan(ctx, b); err != nil {
		return "", err
	}
	if err := q.spread(ctx, p); err != nil {
		return "", err
	}
	err = q.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		rd.Created = uint64(r.Stamp(now))
		evs := []claims.Event{claims.Post{Body: claims.NewRound(rd)}}
		if rd.Plan == nil {
			evs = append(evs, claims.PlanLoaded{Round: rd.ID, Plan: p})
		}
		return evs
	})
	if err != nil {
		return "", fmt.Errorf("publish the round: %w", err)
	}
	return rd.ID, nil
}

// spread has a second peer hold what the plan brings with it: the configuration,
// the repositories, the packages that are lent.
func (q *Requester) spread(ctx context.Context, p *build.Plan) error {
	names := []string{p.Bundle}
	for _, t := range p.Trees {
		names = append(names, t.CID)
	}
	seen := map[string]bool{}
	for i := range p.Jobs {
		for _, e := range p.Jobs[i].Root.All() {
			if e.Seed != "" && !seen[e.Seed] {
				seen[e.Seed] = true
				names = append(names, e.Seed)
			}
		}
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		c, err := cas.Parse(name)
		if err != nil {
			return fmt.Errorf("spread what the plan brings: %w", err)
		}
		if err := q.Replicate(ctx, c, 2); err != nil {
			return fmt.Errorf("copy what the plan brings to a second peer: %w", err)
		}
	}
	return nil
}

func (q *Requester) keepPlan(ctx context.Context, b []byte) (string, error) {
	info, err := q.Store.Put(ctx, bytes.NewReader(b), cid.Undef)
	if err != nil {
		return "", fmt.Errorf("keep the plan: %w", err)
	}
	if err := q.Announce(ctx, info.CID); err != nil {
		return "", fmt.Errorf("announce the plan: %w", err)
	}
	if err := q.Replicate(ctx, info.CID, 2); err != nil {
		return "", fmt.Errorf("copy the plan to a second peer: %w", err)
	}
	return info.CID.String(), nil
}

// maxPlan bounds the blob of a plan, in bytes.
const maxPlan = 256 << 20

// LoadPlan reads a plan from the blob that a round names, and validates it:
// what it says came from another peer.
func (q *Requester) LoadPlan(ctx context.Context, cidText string) (*build.Plan, error) {
	c, err := cas.Parse(cidText)
	if err != nil {
		return nil, err
	}
	if err := q.Fetch(ctx, c); err != nil {
		return nil, fmt.Errorf("fetch plan %s: %w", cidText, err)
	}
	b, err := q.Store.Open(c)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size() > maxPlan {
		return nil, fmt.Errorf("plan %s: %w: %d bytes", cidText, build.ErrPlan, b.Size())
	}
	buf := make([]byte, b.Size())
	if _, err := io.ReadFull(b, buf); err != nil {
		return nil, fmt.Errorf("read plan %s: %w", cidText, err)
	}
	var p build.Plan
	if err := build.Unmarshal(buf, &p); err != nil {
		return nil, fmt.Errorf("decode plan %s: %w", cidText, err)
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("plan %s: %w", cidText, err)
	}
	return &p, nil
}
