package daemon

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

func TestAReleaseCountsAsOneWithoutWaitingForTheNextCollection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := agenttest.Start(t, dir)
	c := &Collector{Board: p.Board, Store: p.Store, Log: p.Log, File: filepath.Join(dir, "garbage.json"), Fetch: Fetch(p.Board, p.Store, nil), now: time.Now}
	p.Until("it may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	put := func(text string) cid.Cid {
		t.Helper()
		info, err := p.Store.Put(t.Context(), bytes.NewReader([]byte(text)), cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		return info.CID
	}
	class := func(x cid.Cid) replication.Class {
		t.Helper()
		if err := c.remark(t.Context()); err != nil {
			t.Fatal(err)
		}
		d, err := cas.Digest(x)
		if err != nil {
			t.Fatal(err)
		}
		k, _ := c.Sort(d)
		return k
	}
	inside := put("a package")
	list := put("a release that names " + inside.String())
	if class(inside) != replication.Other {
		t.Error("nothing refers to it yet")
	}
	post := func(state release.ListingState) {
		p.Do(func(*claims.Replica, claims.Now) []claims.Event {
			return []claims.Event{claims.Post{Body: claims.NewListing(release.Listing{Target: "t", Release: list.String(), Number: 1, Created: 1, State: state})}}
		})
	}
	post(release.Kept)
	if class(inside) != replication.Released || class(list) != replication.Released {
		t.Error("what is released counts for less")
	}
	at := c.marked
	if class(inside); c.marked != at {
		t.Error("it looked again though nothing had changed")
	}
	post(release.Pruned)
	if class(inside) == replication.Released {
		t.Error("what is pruned counts as released")
	}
}
