package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/httpgateway/binhost"
	"github.com/build-swarm/swarm/p2p"
)

// ProtoInstall asks a drone to install what is new in a release into a fresh
// root, and how far it is: the same request asks for both.
const ProtoInstall = "/swarm/install-test/2"

const (
	installAnswer = 1 << 20
	// An install test may take installLeast, and installEach for each new
	// package beside that; installMost at the most. A package takes three
	// seconds, and as long again to be fetched.
	installLeast = 5 * time.Minute
	installEach  = 20 * time.Second
	installMost  = 30 * time.Minute
	// installWait is how long drones that take no work now may take to come back.
	installWait = time.Minute
	// installAway is after how long a drone that is away is not waited for.
	installAway = 5 * time.Minute
	// installBreaks tests that break off are enough.
	installBreaks = 3
	// installPoll is how often the drone is asked how far it is.
	installPoll = time.Second
	// installKept is how many results that nobody has asked for a drone keeps.
	installKept = 8
)

type installRequest struct {
	Manifest string `cbor:"manifest"` // CID
	Before   string `cbor:"before"`   // CID of the release before; "" = none
}

// installReply says how an install test goes: under way while it is not Done.
// Why says why there is none here, or with Broke why it was begun and not ended.
type installReply struct {
	Done   bool                 `cbor:"done"`
	Why    string               `cbor:"why,omitempty"`
	Broke  bool                 `cbor:"broke,omitempty"`
	Report emerge.InstallReport `cbor:"report"`
}

// InstallTests makes install tests for other peers, one at a time.
type InstallTests struct {
	Board  Board
	Net    p2p.Network
	Store  cas.Store
	Fetch  func(ctx context.Context, c cid.Cid) error
	Open   func(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error)
	Ground *Ground
	Log    *slog.Logger

	start chan installRequest
	try   func(context.Context, installRequest) (emerge.InstallReport, error) // make, but in tests

	mu      sync.Mutex
	running string // manifest
	done    []installed
}

type installed struct {
	manifest string
	reply    installReply
}

// Serve answers other peers. It is called before Run.
func (t *InstallTests) Serve() {
	t.start = make(chan installRequest, 1)
	if t.try == nil {
		t.try = t.make
	}
	p2p.Serve(t.Net, ProtoInstall, 4<<10, func(ctx context.Context, _ string, req []byte) ([]byte, error) {
		var r installRequest
		if err := build.Unmarshal(req, &r); err != nil {
			return nil, fmt.Errorf("decode request for an install test: %w", err)
		}
		return build.Marshal(t.answer(ctx, r))
	})
}

// answer says how far a test is, and begins it if it is not known here. A result
// is told once: whoever asks again later wants another test.
func (t *InstallTests) answer(ctx context.Context, r installRequest) installReply {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, d := range t.done {
		if d.manifest == r.Manifest {
			t.done = slices.Delete(t.done, i, i+1)
			return d.reply
		}
	}
	if t.running == r.Manifest {
		return installReply{}
	}
	if why := t.declines(ctx); why != "" {
		return installReply{Done: true, Why: why}
	}
	select {
	case t.start <- r:
		t.running = r.Manifest
		return installReply{}
	default:
		return installReply{Done: true, Why: "it begins with another one"}
	}
}

// declines says why no test may begin here. The caller holds the lock.
func (t *InstallTests) declines(ctx context.Context) (why string) {
	switch {
	case t.Ground == nil || t.Ground.Roots == nil:
		return "it can isolate nothing"
	case t.running != "":
		return "it makes another install test"
	}
	err := t.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for _, p := range r.Peers(now) {
			if p.Self && !p.Beat.Accepting {
				why = cmp.Or(p.Beat.Why, "it takes no work now")
			}
		}
		return nil
	})
	if err != nil {
		return "it is about to end"
	}
	return why
}

// Run makes the tests until ctx ends.
func (t *InstallTests) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-t.start:
			limited, cancel := context.WithTimeout(ctx, installMost)
			rep, err := t.try(limited, r)
			cancel()
			reply := installReply{Done: true, Report: rep}
			if err != nil {
				reply.Why, reply.Broke = build.OneLine(err.Error(), 300), !errors.Is(err, errNoBase)
				t.Log.Info("install test not made", "release", r.Manifest, "error", err)
			} else {
				t.Log.Info("install test made", "release", r.Manifest, "installed", rep.Installed, "failed", len(rep.Failed), "untried", len(rep.Untried))
			}
			t.mu.Lock()
			t.running = ""
			t.done = append(t.done, installed{r.Manifest, reply})
			t.done = t.done[max(0, len(t.done)-installKept):]
			t.mu.Unlock()
		}
	}
}

// make makes one test. Its errors are this machine's.
func (t *InstallTests) make(ctx context.Context, r installRequest) (rep emerge.InstallReport, err error) {
	var before *release.Manifest
	if r.Before != "" {
		if before, err = publish.LoadManifest(ctx, t.Store, t.Fetch, r.Before); err != nil {
			return rep, err
		}
	}
	m, err := publish.LoadManifest(ctx, t.Store, t.Fetch, r.Manifest)
	if err != nil {
		return rep, err
	}
	index, err := binhost.New(m)
	if err != nil {
		return rep, err
	}
	fresh := newEntries(before, m)
	on, err := groundOf(ctx, t.Board, fresh)
	if err != nil {
		return rep, err
	}
	req := worker.Request{Job: build.Job{Builder: build.BuilderPortage}}
	if err := t.Ground.Prepare(ctx, on, &req); err != nil {
		return rep, err
	}
	test := emerge.InstallTest{
		Base: req.Base, Bundle: req.Bundle, Repos: req.Repos, Log: io.Discard,
		Index: index.Render(release.Channel{Target: m.Target, Name: release.Stable, Version: 1, Timestamp: 1}),
	}
	paths := index.Paths()
	for i, it := range index.Items() {
		e := &m.Entries[i]
		test.Offered = append(test.Offered, emerge.Offered{Key: e.Key, CPV: e.CPV, Slot: e.Slot, BuildID: it.BuildID, Path: it.Path, Want: fresh[e.Key]})
	}
	test.Bring = func(ctx context.Context, path, file string) error {
		it := paths[path]
		c, err := cas.Parse(it.CID)
		if err != nil {
			return err
		}
		from, err := t.Open(ctx, c, it.Size)
		if err != nil {
			return err
		}
		to, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			_, err = io.Copy(to, from)
			err = errors.Join(err, to.Close(), os.Chtimes(file, time.Unix(it.MTime, 0), time.Unix(it.MTime, 0)))
		}
		return errors.Join(err, from.Close())
	}
	return t.Ground.Roots.TryInstall(ctx, test)
}

// newEntries are the keys of what a release has and the one before has not.
func newEntries(before, m *release.Manifest) map[build.Key]bool {
	fresh := map[build.Key]bool{}
	for _, c := range release.Diff(before, m) {
		if c.New != nil && (c.Old == nil || c.Old.Artifact.CID != c.New.Artifact.CID) {
			fresh[c.New.Key] = true
		}
	}
	return fresh
}

// errNoBase says that there is no fresh root of a release's packages.
var errNoBase = errors.New("its packages were built without a base")

// groundOf is what packages were planned on: the same for all that are new, or
// one of them.
func groundOf(ctx context.Context, board Board, fresh map[build.Key]bool) (on claims.Ground, err error) {
	keys := make([]build.Key, 0, len(fresh))
	for k := range fresh {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	err = board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		for _, k := range keys {
			if on = r.GroundOf(k); !on.Base.IsZero() {
				return nil
			}
		}
		return nil
	})
	if err == nil && on.Base.IsZero() {
		err = errNoBase
	}
	return on, err
}

// InstallElsewhere has another peer make an install test, and waits for it. That
// nobody can is no error.
func (t *InstallTests) InstallElsewhere(ctx context.Context, target, manifest, before string) (publish.Installed, error) {
	m, err := publish.LoadManifest(ctx, t.Store, t.Fetch, manifest)
	if err != nil {
		return publish.Installed{}, err
	}
	var old *release.Manifest
	if before != "" {
		if old, err = publish.LoadManifest(ctx, t.Store, t.Fetch, before); err != nil {
			return publish.Installed{}, err
		}
	}
	fresh := newEntries(old, m)
	if _, err := groundOf(ctx, t.Board, fresh); errors.Is(err, errNoBase) {
		return publish.Installed{Why: err.Error()}, nil
	} else if err != nil {
		return publish.Installed{}, err
	}
	drones, why, err := t.drones(ctx, target, manifest)
	for end := time.Now().Add(installWait); err == nil && len(drones) == 0 && len(why) > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return publish.Installed{}, ctx.Err()
		case <-time.After(installPoll):
		}
		drones, why, err = t.drones(ctx, target, manifest)
	}
	if err != nil {
		return publish.Installed{}, err
	}
	if len(drones)+len(why) == 0 {
		return publish.Installed{Why: "there is no other drone for it"}, nil
	}
	may := min(installMost, installLeast+time.Duration(len(fresh))*installEach)
	return eachUntilOne(ctx, drones, why, may, func(ctx context.Context, peer string) (installReply, error) {
		return t.ask(ctx, peer, installRequest{manifest, before})
	})
}

// eachUntilOne asks one drone after another until one has made the test, each for
// so long at the most. why says of others why they cannot make it.
func eachUntilOne(ctx context.Context, drones []drone, why []string, may time.Duration, ask func(context.Context, string) (installReply, error)) (publish.Installed, error) {
	broke := 0
	for _, d := range drones {
		limited, cancel := context.WithTimeout(ctx, may)
		reply, err := ask(limited, d.id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return publish.Installed{}, ctx.Err()
		case err == nil && reply.Why == "":
			rep := reply.Report
			return publish.Installed{Peer: d.nick, Packages: rep.Installed, Failed: tried(rep.Failed), Untried: tried(rep.Untried)}, nil
		case err != nil:
			reply.Why, reply.Broke = problem(err), errors.Is(err, errBegun)
		}
		why = append(why, d.nick+": "+reply.Why)
		if reply.Broke {
			broke++
		}
		if broke == installBreaks {
			break
		}
	}
	return publish.Installed{Why: build.OneLine(strings.Join(why, "; "), 300), Broke: broke > 0}, nil
}

func tried(list []emerge.Tested) []publish.Tried {
	out := make([]publish.Tried, 0, len(list))
	for _, x := range list {
		out = append(out, publish.Tried{Key: x.Key, CPV: x.CPV, Reason: build.OneLine(x.Reason, release.MaxReason)})
	}
	return out
}

type drone struct{ id, nick string }

// drones lists the other peers that could make a test, steady ones first, and why
// others that could do so at another time cannot now.
func (t *InstallTests) drones(ctx context.Context, target, manifest string) (out []drone, not []string, err error) {
	err = t.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		on := r.Target(target)
		peers := slices.DeleteFunc(r.Peers(now), func(p claims.Peer) bool {
			why := ""
			switch {
			case p.Self || p.Beat.Slots == 0 || !slices.Contains(p.Beat.Builders, build.BuilderPortage),
				on != nil && on.State == build.TargetLive && on.Excludes(p.Beat.Arch, p.Beat.Features) != "":
				return true
			case !p.Live && p.AgeMS > installAway.Milliseconds():
				return true
			case !p.Live:
				why = "it is away"
			case !p.Beat.Accepting:
				why = cmp.Or(p.Beat.Why, "it takes no work now")
			default:
				return false
			}
			not = append(not, r.Name(p.ID)+": "+why)
			return true
		})
		slices.SortFunc(peers, func(a, b claims.Peer) int {
			if a.Beat.Steady != b.Beat.Steady {
				if a.Beat.Steady {
					return -1
				}
				return 1
			}
			return cmp.Compare(claims.Rendezvous(manifest, b.ID), claims.Rendezvous(manifest, a.ID))
		})
		for _, p := range peers {
			out = append(out, drone{p.ID, r.Name(p.ID)})
		}
		return nil
	})
	return out, not, err
}

// errBegun says that a drone began with a test and was not heard to end it.
var errBegun = errors.New("it began")

// ask has one drone make the test and waits until it is made.
func (t *InstallTests) ask(ctx context.Context, peer string, r installRequest) (reply installReply, err error) {
	req, err := build.Marshal(r)
	if err != nil {
		return reply, err
	}
	tick := time.NewTicker(installPoll)
	defer tick.Stop()
	begun := false
	for {
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		raw, err := p2p.Request(one, t.Net, peer, ProtoInstall, req, installAnswer)
		cancel()
		if err == nil {
			err = build.Unmarshal(raw, &reply)
		}
		switch {
		case err != nil && begun:
			return reply, fmt.Errorf("%w, and then: %w", errBegun, err)
		case err != nil || reply.Done:
			return reply, err
		}
		begun = true
		select {
		case <-ctx.Done():
			return reply, fmt.Errorf("%w, and took too long", errBegun)
		case <-tick.C:
		}
	}
}
