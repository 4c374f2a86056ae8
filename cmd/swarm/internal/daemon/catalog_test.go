package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/httpgateway"
)

// following is a peer that is alone, and its catalog.
func following(t *testing.T) (*agenttest.Peer, *Catalog, <-chan struct{}) {
	t.Helper()
	p := agenttest.Start(t, t.TempDir())
	moved := make(chan struct{}, 100)
	c := &Catalog{Board: p.Board, Store: p.Store, Fetch: p.NoPeers, Log: p.Log, Every: func(d time.Duration) time.Duration { return d }, Moved: func() { moved <- struct{}{} }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p, c, moved
}

// shows publishes a release on a channel, without its blob if it is withheld.
func shows(t *testing.T, p *agenttest.Peer, prev *release.Channel, target, tree string, withheld bool) (release.Channel, []byte) {
	t.Helper()
	m := release.Manifest{Target: target, Tree: tree}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !withheld {
		if _, err := p.Store.Put(context.Background(), bytes.NewReader(b), cid.Undef); err != nil {
			t.Fatal(err)
		}
	}
	if prev == nil {
		prev = &release.Channel{Target: target, Name: release.Stable}
	}
	ch := release.Next(prev, cas.Sum(b).String(), time.Now())
	p.Until("the peer may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	p.Do(func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewChannel(ch)}}
	})
	return ch, b
}

func awaitMove(t *testing.T, moved <-chan struct{}) {
	t.Helper()
	select {
	case <-moved:
	case <-time.After(30 * time.Second):
		t.Fatal("the catalog does not move")
	}
}

func TestTheCatalogFollowsTheChannelsAndKeepsWhatTheyShow(t *testing.T) {
	p, c, moved := following(t)
	if _, _, err := c.Head("t", release.Stable); !errors.Is(err, httpgateway.ErrNoRelease) {
		t.Errorf("before any release: %v", err)
	}
	first, _ := shows(t, p, nil, "t", strings.Repeat("0", 64), false)
	awaitMove(t, moved)
	if h, m, err := c.Head("t", release.Stable); err != nil || h != first || m.Tree[0] != '0' {
		t.Fatalf("head %+v, %v", h, err)
	}
	second, _ := shows(t, p, &first, "t", strings.Repeat("1", 64), false)
	awaitMove(t, moved)
	if h, m, err := c.Head("t", release.Stable); err != nil || h != second || m.Tree[0] != '1' {
		t.Fatalf("head %+v, %v", h, err)
	}
	shows(t, p, nil, "u", strings.Repeat("2", 64), false)
	awaitMove(t, moved)
	if got := strings.Join(c.Targets(), " "); got != "t u" {
		t.Errorf("targets %q", got)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.manifests) != 2 {
		t.Errorf("%d releases are kept in memory, two are shown", len(c.manifests))
	}
}

func TestAHeadWhoseReleaseCannotBeReadLeavesTheOldOne(t *testing.T) {
	p, c, moved := following(t)
	first, _ := shows(t, p, nil, "t", strings.Repeat("0", 64), false)
	awaitMove(t, moved)
	second, blob := shows(t, p, &first, "t", strings.Repeat("1", 64), true)
	p.Until("the new head is on the board", func(r *claims.Replica, _ claims.Now) bool {
		return r.Channel("t", release.Stable).Version == second.Version
	})
	if h, _, err := c.Head("t", release.Stable); err != nil || h != first {
		t.Errorf("head %+v, %v; want the first until the second is here", h, err)
	}
	if _, err := p.Store.Put(context.Background(), bytes.NewReader(blob), cid.Undef); err != nil {
		t.Fatal(err)
	}
	awaitMove(t, moved) // by itself, at the next look
	if h, _, err := c.Head("t", release.Stable); err != nil || h != second {
		t.Errorf("head %+v, %v", h, err)
	}
}

func TestBlobsThatLieHereAreOpenedAndOthersNamed(t *testing.T) {
	p, c, _ := following(t)
	ctx := context.Background()
	info, err := p.Store.Put(ctx, strings.NewReader("a package"), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(ctx, info.CID, info.Size)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || string(b) != "a package" || !c.Available(info.CID) {
		t.Errorf("%q, %v", b, err)
	}
	nowhere := cas.Sum([]byte("nowhere"))
	if _, err := c.Open(ctx, nowhere, 7); !errors.Is(err, cas.ErrNotFound) || c.Available(nowhere) {
		t.Errorf("a blob that nobody has: %v, available %v", err, c.Available(nowhere))
	}
}
