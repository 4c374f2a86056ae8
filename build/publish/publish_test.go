package publish

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

// built stores a blob as the job's package and reports it.
func built(t *testing.T, p *agenttest.Peer, j build.Job) {
	t.Helper()
	builtAs(t, p, j, build.Pair{Name: "KEYWORDS", Value: "amd64"}, build.Pair{Name: "SLOT", Value: "0"})
}

func builtAs(t *testing.T, p *agenttest.Peer, j build.Job, meta ...build.Pair) {
	t.Helper()
	builtText(t, p, j, "package "+j.CPV.String(), meta...)
}

func builtText(t *testing.T, p *agenttest.Peer, j build.Job, text string, meta ...build.Pair) {
	t.Helper()
	ctx := context.Background()
	info, err := p.Store.Put(ctx, strings.NewReader(text), cid.Undef)
	if err == nil {
		err = p.Announce(ctx, info.CID)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := build.Outcome{Key: j.Key, CPV: j.CPV, Target: "t", Class: build.Good, Artifact: &build.Artifact{CID: info.CID.String(), Size: info.Size,
		MD5: hexOf(md5.Sum([]byte(text))), SHA1: hexOf(sha1.Sum([]byte(text))), MTime: 1, Meta: meta}}
	p.Do(func(*claims.Replica, claims.Now) []claims.Event { return []claims.Event{claims.Finished{Outcome: out}} })
}

func failed(p *agenttest.Peer, j build.Job) {
	p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		return []claims.Event{claims.Finished{Outcome: build.Outcome{Key: j.Key, CPV: j.CPV, Target: "t", Class: build.BadPackage, Reason: "no", Started: uint64(r.Stamp(now))}}}
	})
}

func hexOf[S ~[16]byte | ~[20]byte](sum S) string { return fmt.Sprintf("%x", sum) }

// publisher does nothing by itself.
func publisher(p *agenttest.Peer) *Publisher {
	open := func(_ context.Context, c cid.Cid, _ int64) (io.ReadSeekCloser, error) { return p.Store.Open(c) }
	return &Publisher{Self: p.Self, Board: p.Board, Store: p.Store, Announce: p.Announce, Fetch: p.NoPeers, Open: open, Log: p.Log}
}

func run(t *testing.T, p *agenttest.Peer) *Publisher {
	t.Helper()
	pub := publisher(p)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return pub
}

// released waits for a version of the channel and reads its release.
func released(t *testing.T, p *agenttest.Peer, version uint64) (*release.Manifest, release.Channel) {
	t.Helper()
	var head release.Channel
	p.Until("a release", func(r *claims.Replica, _ claims.Now) bool {
		c := r.Channel("t", release.Stable)
		if c == nil || c.Version < version {
			return false
		}
		head = *c
		return true
	})
	m, err := LoadManifest(context.Background(), p.Store, p.NoPeers, head.Release)
	if err != nil {
		t.Fatal(err)
	}
	return m, head
}

func names(m *release.Manifest) string {
	var out []string
	for _, e := range m.Entries {
		out = append(out, e.CPV.Name)
	}
	return strings.Join(out, " ")
}

func TestAnEndedRoundIsReleasedOnceAndClosed(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	lib := agenttest.Job(t, "lib")
	app := agenttest.Job(t, "app", lib)
	p.Ask(lib, app)
	run(t, p)
	built(t, p, lib)
	built(t, p, app)
	m, head := released(t, p, 1)
	if names(m) != "app lib" || head.Version != 1 {
		t.Errorf("version %d holds %q", head.Version, names(m))
	}
	p.Until("the round is closed", func(r *claims.Replica, _ claims.Now) bool {
		rd, _, _ := r.Round("r1")
		return rd.State == build.RoundClosed
	})
}

func TestNothingIsReleasedWhileARoundIsUnderWay(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	a, b := agenttest.Job(t, "a"), agenttest.Job(t, "b")
	p.Ask(a, b)
	pub := run(t, p)
	built(t, p, a)
	due, err := pub.due(context.Background())
	if err != nil || len(due) != 0 {
		t.Errorf("due: %v, %v", due, err)
	}
}

func TestWhatWaitsForAFailedPackageIsLeftOutAndTheRoundStaysOpen(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	fine, bad := agenttest.Job(t, "fine"), agenttest.Job(t, "bad")
	needs := agenttest.Job(t, "needs", bad)
	p.Ask(fine, bad, needs)
	run(t, p)
	built(t, p, fine)
	failed(p, bad)
	m, _ := released(t, p, 1)
	if names(m) != "fine" {
		t.Errorf("the release holds %q", names(m))
	}
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if rd, _, _ := r.Round("r1"); rd.State != build.RoundOpen {
			t.Errorf("the round is %s", rd.State)
		}
		return nil
	})
	// It is mended later: the release grows and never goes back in time.
	built(t, p, bad)
	built(t, p, needs)
	m, head := released(t, p, 2)
	if names(m) != "bad fine needs" || head.Timestamp == 0 || head.Previous == "" {
		t.Errorf("version %d holds %q", head.Version, names(m))
	}
}

func TestAPackageThatFailsAtRunTimeNeedsHoldsItsUserBack(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	lib := agenttest.Job(t, "lib")
	app := agenttest.Job(t, "app")
	app.Needs = []build.Edge{{Key: lib.Key, Kind: build.Runtime}} // not needed to build
	p.Ask(lib, app)
	run(t, p)
	built(t, p, app)
	failed(p, lib)
	p.Until("both jobs have ended", func(r *claims.Replica, now claims.Now) bool {
		is := r.SurveyRound("r1", now)
		return is[0].State == claims.JobBlocked && is[1].State.Done()
	})
	p.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if c := r.Channel("t", release.Stable); c != nil {
			t.Errorf("a package is released without what it needs: %+v", c)
		}
		return nil
	})
}
