// Package publish makes releases of what rounds built, and moves channels.
//
// # Words
//
// Staged is what would be released now: the largest set of what is built that
// is closed over itself, over what the channel shows and over what subscribed
// consumers have installed. A gate is a check that a staged release must pass.
// To finalize is to keep the manifest as a blob, list it, and move the
// channel's head to it: one record.
//
// # Rules
//
//   - Only safe packages enter: R copies, or as many as the swarm can hold.
//   - What is staged for the first time is read once, from here or from its
//     holders, and has to have the size and the digests that the index will
//     say; the index is written and read back; no seed is in it. Where Portage
//     is at hand it plans an update of every consumer (Try), and another peer
//     installs the newcomers into a fresh root (Install). That nobody can do so
//     holds nothing up, and is said; that it was begun and could not be ended (a
//     full disk, no more time) is no fault of the release, which waits.
//   - What a gate refuses is held back by itself, with its reason, and with it what
//     needs it; the rest goes through the gates again, until they let it through.
//     The board tells every peer what was refused (release.HeldBack): it is staged
//     again when there is something else that is new, or when a person finalizes.
//   - A round is released by itself once all its jobs have ended (built,
//     blocked, or waiting for a blocked one), unless its requester wants a
//     person to do it (build.Round.Manual). One peer does: the requester while
//     it is there, else the first by rendezvous. It passes the same gates.
//   - After a rollback nothing is released by itself: the channel shows an
//     older release because a person wanted it. Finalize ends that.
//   - A release is made on top of the head that was read. When that has moved
//     meanwhile, it is made again on top of the new one; two that were made
//     without knowing one another (a partition) leave the greater head and two
//     listings of one number, which claims.Contested finds and the next
//     finalize takes in.
//
// The manifest is a function of the board, so two peers that do the same at
// once make the same release.
package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
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

// Publisher runs on every peer that stores blobs. Its methods may be called
// while Run runs.
type Publisher struct {
	Self     string
	Board    *agent.Agent
	Store    cas.Store
	Announce func(ctx context.Context, c cid.Cid) error
	// Replicate returns when that many peers hold a blob, or all that take it. nil =
	// nobody copies anything.
	Replicate func(ctx context.Context, c cid.Cid, copies int) error
	// Fetch brings a blob into Store.
	Fetch func(ctx context.Context, c cid.Cid) error
	// Open opens a blob of size bytes here or at its holders.
	Open func(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error)
	// Try asks Portage what a staged release would have consumers compile; nil where
	// there is no Portage.
	Try func(ctx context.Context, t Trial) ([]Compile, error)
	// Install has another peer install a staged release, a manifest that this
	// peer holds, into a fresh root: what it has and the manifest before ("" =
	// none) has not. nil = nobody is asked.
	Install func(ctx context.Context, target, manifest, before string) (Installed, error)
	Log     *slog.Logger
	// Every stretches how often it is looked at what follows from time alone; nil
	// leaves it as it is.
	Every func(time.Duration) time.Duration

	making   sync.Mutex         // one release is made at a time
	mu       sync.Mutex         // of verified
	verified map[string]bool    // CIDs whose bytes were compared with their digests
	tried    map[string]attempt // what was last composed for a target; Run only
}

// attempt is a release that was tried by itself.
type attempt struct {
	mark  string    // of what it was made
	until time.Time // when the same may be tried again; zero = never
}

// again reports whether a release of what mark says is to be tried.
func (a attempt) again(mark string, now time.Time) bool {
	return a.mark != mark || !a.until.IsZero() && !now.Before(a.until)
}

// retry is after how long an install test that broke off is made again.
const retry = 10 * time.Minute

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	p.tried = map[string]attempt{}
	changed := p.Board.Changed()
	every := p.Every
	if every == nil {
		every = func(d time.Duration) time.Duration { return d }
	}
	tick := time.NewTimer(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		tick.Reset(every(recheck))
		due, err := p.due(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, agent.ErrStopped) {
				return nil
			}
			return err
		}
		for _, d := range due {
			if !p.tried[d.target].again(d.mark, time.Now()) {
				continue
			}
			is := attempt{mark: d.mark}
			_, err := p.Finalize(ctx, Request{Target: d.target})
			switch {
			case err == nil:
			case errors.Is(err, errBroke):
				is.until = time.Now().Add(retry)
				p.Log.Warn("release waits for an install test", "target", d.target, "error", err)
			case errors.Is(err, ErrNothing):
				p.Log.Debug("nothing to release", "target", d.target)
			case errors.Is(err, ErrRefused):
				p.Log.Warn("release refused", "target", d.target, "error", err)
			default:
				if ctx.Err() == nil {
					p.Log.Warn("release not published; tried again", "target", d.target, "error", err)
				}
				continue
			}
			p.tried[d.target] = is
		}
	}
}

// dueTarget is a target whose rounds have brought what will come by itself.
type dueTarget struct {
	target string
	mark   string // changes when a release could come out otherwise
}

// due lists the targets that this peer is to release now.
func (p *Publisher) due(ctx context.Context) ([]dueTarget, error) {
	var out []dueTarget
	err := p.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		if ok, _ := r.MayClaim(); !ok {
			return nil
		}
		marks := map[string]*strings.Builder{}
		for _, rd := range slices.Backward(r.Rounds()) {
			if rd.State != build.RoundOpen || rd.Manual || Elect(r, rd, now) != p.Self || r.RolledBack(rd.Target) {
				continue
			}
			if m := ended(r, rd, now); m != "" {
				if marks[rd.Target] == nil {
					marks[rd.Target] = &strings.Builder{}
				}
				marks[rd.Target].WriteString(m)
			}
		}
		for target, m := range marks {
			if h := r.Channel(target, release.Stable); h != nil {
				fmt.Fprintf(m, "%s %d", h.Release, h.Version)
			}
			out = append(out, dueTarget{target, m.String()})
		}
		return nil
	})
	slices.SortFunc(out, func(a, b dueTarget) int { return strings.Compare(a.target, b.target) })
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

// ended names what a round has brought, "" while something is under way, or
// when it brought nothing.
func ended(r *claims.Replica, rd build.Round, now claims.Now) string {
	stuck := map[build.Key]bool{} // will not move by itself
	var b strings.Builder
	for _, info := range r.SurveyRound(rd.ID, now) {
		switch {
		case info.State.Done() && info.Job.Seed: // it was for others to be built with
		case info.State == claims.JobSafe:
			b.WriteString(info.Good.Artifact.CID + " ")
		case info.State == claims.JobBlocked, info.State == claims.JobUnfit,
			info.State == claims.JobWaiting && slices.ContainsFunc(info.WaitsFor, func(k build.Key) bool { return stuck[k] }):
			stuck[info.Job.Key] = true
		default:
			return ""
		}
	}
	return b.String()
}

// maxManifest bounds a release's blob, in bytes.
const maxManifest = 256 << 20

// LoadManifest reads a release by its CID, fetching it first if need be.
func LoadManifest(ctx context.Context, store cas.Store, fetch func(context.Context, cid.Cid) error, cidText string) (*release.Manifest, error) {
	b, err := load(ctx, store, fetch, cidText, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("load release: %w", err)
	}
	return release.Decode(b)
}

// maxInstalled bounds the blob of an installed set, in bytes.
const maxInstalled = 16 << 20

// LoadInstalled reads what a consumer has installed.
func LoadInstalled(ctx context.Context, store cas.Store, fetch func(context.Context, cid.Cid) error, cidText string) (*release.Installed, error) {
	b, err := load(ctx, store, fetch, cidText, maxInstalled)
	if err != nil {
		return nil, fmt.Errorf("load installed set: %w", err)
	}
	return release.DecodeInstalled(b)
}

func load(ctx context.Context, store cas.Store, fetch func(context.Context, cid.Cid) error, cidText string, most int64) ([]byte, error) {
	c, err := cas.Parse(cidText)
	if err != nil {
		return nil, err
	}
	if err := fetch(ctx, c); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", cidText, err)
	}
	b, err := store.Open(c)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cidText, err)
	}
	defer b.Close()
	if b.Size() > most {
		return nil, fmt.Errorf("%s of %d bytes is too large", cidText, b.Size())
	}
	buf := make([]byte, b.Size())
	if _, err := io.ReadFull(b, buf); err != nil {
		return nil, fmt.Errorf("read %s: %w", cidText, err)
	}
	return buf, nil
}
