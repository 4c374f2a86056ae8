// Package publish makes releases of what rounds built.
//
// Until `swarm finalize` exists, a round whose jobs have all ended (built,
// blocked, or waiting for a blocked one) is published by itself: the largest
// closed set of what was built, on top of what the channel shows now. Any peer
// could do it, and one does: the requester while it is there, else the first by
// rendezvous. The manifest is a function of the board, so two peers that do it
// at once make the same release.
//
// Only blobs with a second copy enter a release, where the swarm has a second
// peer that stores.
package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
)

// recheck is how often the board is looked at though nothing changed: copies
// become safe by time.
const recheck = 5 * time.Second

// Publisher runs on every peer that stores blobs.
type Publisher struct {
	Self     string
	Board    *agent.Agent
	Store    cas.Store
	Announce func(ctx context.Context, c cid.Cid) error
	// Fetch brings a blob into Store.
	Fetch func(ctx context.Context, c cid.Cid) error
	Log   *slog.Logger

	tried map[string]string // what was last composed for a round; Run only
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	p.tried = map[string]string{}
	changed := p.Board.Changed()
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		due, err := p.due(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, agent.ErrStopped) {
				return nil
			}
			return err
		}
		for _, d := range due {
			mark := d.mark()
			if p.tried[d.round.ID] == mark {
				continue
			}
			if err := p.publish(ctx, d); err != nil && ctx.Err() == nil {
				p.Log.Warn("release not published; tried again", "round", d.round.ID, "error", err)
				continue
			}
			p.tried[d.round.ID] = mark
		}
	}
}

// ended is a round of which nothing more will come by itself.
type ended struct {
	round   build.Round
	plan    *build.Plan
	entries []release.Entry
	all     bool // every job is built
	head    *release.Channel
}

// mark changes when composing the round again could give something else.
func (e *ended) mark() string {
	var b strings.Builder
	if e.head != nil {
		fmt.Fprintf(&b, "%s %d ", e.head.Release, e.head.Version)
	}
	for i := range e.entries {
		b.WriteString(e.entries[i].Artifact.CID)
	}
	return b.String()
}

// due lists the rounds that this peer is to publish now.
func (p *Publisher) due(ctx context.Context) ([]ended, error) {
	var out []ended
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if ok, _ := r.MayClaim(); !ok {
			return nil
		}
		for _, rd := range slices.Backward(r.Rounds()) {
			if rd.State != build.RoundOpen || Elect(r, rd, now) != p.Self {
				continue
			}
			_, plan, _ := r.Round(rd.ID)
			if plan == nil {
				continue
			}
			e := ended{round: rd, plan: plan, all: true}
			if e.gather(r, now) {
				e.head = r.Channel(rd.Target, release.Stable)
				out = append(out, e)
			}
		}
		return nil
	})
	return out, err
}

// Elect names the peer that publishes a round: its requester while it lives,
// else the live storing peer of the greatest rendezvous weight.
func Elect(r *claims.Replica, rd build.Round, now claims.Now) string {
	best, weight := "", uint64(0)
	for _, p := range r.Peers(now) {
		if !p.Live || !p.Beat.Stores {
			continue
		}
		if p.ID == rd.Requester {
			return p.ID
		}
		if w := claims.Rendezvous(rd.ID, p.ID); best == "" || w > weight {
			best, weight = p.ID, w
		}
	}
	return best
}

// gather collects the entries of a round; false while something is under way.
func (e *ended) gather(r *claims.Replica, now claims.Now) bool {
	need := min(2, storing(r, now))
	stuck := map[build.Key]bool{} // will not move by itself
	for _, info := range r.SurveyRound(e.round.ID, now) {
		switch {
		case info.State.Done() && info.Job.Seed: // it was for others to be built with
		case info.State.Done() && info.Copies >= need:
			e.entries = append(e.entries, entryOf(info))
		case info.State == claims.JobBlocked, info.State == claims.JobUnfit,
			info.State == claims.JobWaiting && slices.ContainsFunc(info.WaitsFor, func(k build.Key) bool { return stuck[k] }):
			stuck[info.Job.Key], e.all = true, false
		default:
			return false
		}
	}
	return len(e.entries) > 0
}

func storing(r *claims.Replica, now claims.Now) int {
	n := 0
	for _, p := range r.Peers(now) {
		if p.Live && p.Beat.Stores {
			n++
		}
	}
	return n
}

func entryOf(info claims.JobInfo) release.Entry {
	e := release.Entry{Key: info.Job.Key, CPV: info.Job.CPV, Slot: info.Job.Slot, Artifact: *info.Good.Artifact}
	for _, m := range e.Artifact.Meta {
		if m.Name == "KEYWORDS" {
			e.Keywords = m.Value
		}
	}
	for _, n := range info.Job.Needs {
		if n.Kind&(build.Runtime|build.RuntimePost) != 0 {
			e.Needs = append(e.Needs, n.Key)
		}
	}
	slices.Sort(e.Needs)
	return e
}

// publish composes the release, keeps it, and moves the channel to it. Nothing
// happens when the channel shows just this already.
func (p *Publisher) publish(ctx context.Context, e ended) error {
	var prev *release.Manifest
	if e.head != nil {
		m, err := LoadManifest(ctx, p.Store, p.Fetch, e.head.Release)
		if err != nil {
			return err
		}
		prev = m
	}
	m, held, err := release.Compose(prev, e.entries, release.Options{Target: e.round.Target, Tree: e.plan.Tree, Header: e.plan.Header})
	if err != nil {
		return err
	}
	for _, h := range held {
		p.Log.Info("held back from the release", "package", h.Entry.CPV.String(), "reason", h.Reason)
	}
	if len(m.Entries) == 0 {
		return nil
	}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	info, err := p.Store.Put(ctx, bytes.NewReader(b), cid.Undef)
	if err != nil {
		return fmt.Errorf("keep the release: %w", err)
	}
	if err := p.Announce(ctx, info.CID); err != nil {
		return err
	}
	same := e.head != nil && e.head.Release == info.CID.String()
	return p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		var evs []claims.Event
		if head := r.Channel(e.round.Target, release.Stable); !same && sameHead(head, e.head) {
			from := head
			if from == nil {
				from = &release.Channel{Target: e.round.Target, Name: release.Stable}
			}
			evs = append(evs, claims.Post{Body: claims.NewChannel(release.Next(from, info.CID.String(), time.UnixMilli(now.Wall)))})
		} else if !same {
			return nil // somebody moved the channel meanwhile: compose again
		}
		if e.all {
			rd, _, ok := r.Round(e.round.ID)
			if ok && rd.State == build.RoundOpen {
				rd.State, rd.Counter = build.RoundClosed, rd.Counter+1
				evs = append(evs, claims.Post{Body: claims.NewRound(rd)})
			}
		}
		return evs
	})
}

func sameHead(a, b *release.Channel) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// maxManifest bounds a release's blob, in bytes.
const maxManifest = 256 << 20

// LoadManifest reads a release by its CID, fetching it first if need be.
func LoadManifest(ctx context.Context, store cas.Store, fetch func(context.Context, cid.Cid) error, cidText string) (*release.Manifest, error) {
	c, err := cas.Parse(cidText)
	if err != nil {
		return nil, err
	}
	if err := fetch(ctx, c); err != nil {
		return nil, fmt.Errorf("fetch release %s: %w", cidText, err)
	}
	b, err := store.Open(c)
	if err != nil {
		return nil, fmt.Errorf("open release %s: %w", cidText, err)
	}
	defer b.Close()
	if b.Size() > maxManifest {
		return nil, fmt.Errorf("release %s of %d bytes is too large", cidText, b.Size())
	}
	buf := make([]byte, b.Size())
	if _, err := io.ReadFull(b, buf); err != nil {
		return nil, fmt.Errorf("read release %s: %w", cidText, err)
	}
	return release.Decode(buf)
}
