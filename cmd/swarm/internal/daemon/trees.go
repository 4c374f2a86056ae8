package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/p2p"
)

// ProtoTrees asks a peer for its ebuild repositories, and to take some over.
const ProtoTrees = "/swarm/trees/1"

const (
	treesAnswer = 1 << 20
	// treesTimeout bounds how long a peer may read, or fetch and unpack, its
	// repositories: twenty seconds for ::gentoo once, two minutes to unpack it.
	treesTimeout = 5 * time.Minute
)

// treesRequest asks for a list, and first for taking over what Adopt names.
type treesRequest struct {
	Adopt []treeSnapshot `cbor:"adopt,omitempty"`
}

// treeSnapshot is a repository as a blob.
type treeSnapshot struct {
	Name   string `cbor:"name"`
	Digest string `cbor:"digest"`
	CID    string `cbor:"cid"`
}

type treesReply struct {
	Trees []emerge.Tree     `cbor:"trees"`
	Notes map[string]string `cbor:"notes,omitempty"` // by repository: why it was not taken over
	None  string            `cbor:"none,omitempty"`  // why there is no Portage
}

// ServeTrees answers other peers about this one's repositories.
func (d *Daemon) ServeTrees() {
	p2p.Serve(d.Host, ProtoTrees, 64<<10, func(ctx context.Context, _ string, req []byte) ([]byte, error) {
		var r treesRequest
		if err := build.Unmarshal(req, &r); err != nil {
			return nil, fmt.Errorf("decode request for trees: %w", err)
		}
		return build.Marshal(d.ownTrees(ctx, r))
	})
}

// ownTrees lists this machine's repositories, after taking over what is asked.
func (d *Daemon) ownTrees(ctx context.Context, req treesRequest) treesReply {
	pp, err := d.portage()
	if err != nil {
		return treesReply{None: "no Portage here"}
	}
	reply := treesReply{Notes: map[string]string{}}
	list := func() bool {
		if reply.Trees, err = pp.Portage.Trees(ctx); err != nil {
			reply.None = build.OneLine(err.Error(), 300)
		}
		return err == nil
	}
	if !list() || len(req.Adopt) == 0 {
		return reply
	}
	for _, s := range req.Adopt {
		i := slices.IndexFunc(reply.Trees, func(t emerge.Tree) bool { return t.Name == s.Name })
		if i < 0 || reply.Trees[i].Digest == s.Digest {
			continue
		}
		if err := d.adopt(ctx, pp, reply.Trees[i], s); err != nil {
			reply.Notes[s.Name] = build.OneLine(err.Error(), 300)
		}
	}
	list()
	return reply
}

func (d *Daemon) adopt(ctx context.Context, pp PortagePlanner, t emerge.Tree, s treeSnapshot) error {
	c, err := cas.Parse(s.CID)
	if err != nil {
		return err
	}
	if err := d.Requester.Fetch(ctx, c); err != nil {
		return fmt.Errorf("fetch the snapshot of %s: %w", s.Name, err)
	}
	f, err := d.Store.Open(c)
	if err != nil {
		return err
	}
	return errors.Join(pp.Portage.Adopt(ctx, t, f, s.Digest), f.Close())
}

// VerifyTrees compares the repositories of all live peers with this one's.
func (d *Daemon) VerifyTrees(ctx context.Context) (control.TreesReply, error) {
	return d.compareTrees(ctx, treesRequest{})
}

func (d *Daemon) compareTrees(ctx context.Context, req treesRequest) (control.TreesReply, error) {
	pp, err := d.portage()
	if err != nil {
		return control.TreesReply{}, err
	}
	type peer struct{ id, nick string }
	var peers []peer
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for _, p := range r.Peers(now) {
			if p.Live && p.ID != d.Host.Self() {
				peers = append(peers, peer{p.ID, r.Name(p.ID)})
			}
		}
		return nil
	})
	if err != nil {
		return control.TreesReply{}, err
	}
	answers := map[string]treesReply{}
	var mu sync.Mutex
	b, err := build.Marshal(req)
	if err != nil {
		return control.TreesReply{}, err
	}
	what := "ask the peers"
	if len(req.Adopt) > 0 {
		what = "have the peers take them over"
	}
	answered := func(n int) { progress.Tell(ctx, progress.Step{What: what, Done: int64(n), All: int64(len(peers))}) }
	answered(0)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, p := range peers {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(gctx, treesTimeout)
			defer cancel()
			var a treesReply
			raw, err := p2p.Request(ctx, d.Host, p.id, ProtoTrees, b, treesAnswer)
			if err == nil {
				err = build.Unmarshal(raw, &a)
			}
			if err != nil {
				a = treesReply{Notes: map[string]string{"": build.OneLine("no answer: "+problem(err), 200)}}
			}
			mu.Lock()
			defer mu.Unlock()
			answers[p.id] = a
			answered(len(answers))
			return nil
		})
	}
	own := d.ownTrees(ctx, treesRequest{})
	if err := g.Wait(); err != nil {
		return control.TreesReply{}, err
	}
	if own.None != "" {
		return control.TreesReply{}, &control.Error{Kind: control.KindInternal, Message: own.None, Hint: "emerge --info has to work first"}
	}
	reply := control.TreesReply{Schema: view.Schema, Lines: []control.TreeLine{}}
	self := d.About.Nick
	for _, t := range own.Trees {
		reply.Lines = append(reply.Lines, control.TreeLine{Peer: d.Host.Self(), Nick: self, Repo: t.Name, Digest: t.Digest, Revision: t.Revision, Stamp: t.Stamp, State: "ok", Note: "the measure"})
	}
	lost, err := pp.Portage.LostTrees(ctx)
	if err != nil {
		return control.TreesReply{}, err
	}
	for _, t := range lost {
		reply.Lines = append(reply.Lines, control.TreeLine{Peer: d.Host.Self(), Nick: self, Repo: t.Name, State: "missing", Note: "repos.conf has it in " + build.OneLine(t.Path, 200) + ", which is not there"})
	}
	slices.SortFunc(peers, func(a, b peer) int { return cmp.Or(strings.Compare(a.nick, b.nick), strings.Compare(a.id, b.id)) })
	for _, p := range peers {
		reply.Lines = append(reply.Lines, treeLines(p.id, p.nick, own.Trees, answers[p.id])...)
	}
	reply.Drift = slices.ContainsFunc(reply.Lines, func(l control.TreeLine) bool { return l.State != "ok" && l.State != "none" })
	return reply, nil
}

// treeLines compares what a peer has with what this machine has. What only the
// peer has is its own business.
func treeLines(id, nick string, own []emerge.Tree, a treesReply) []control.TreeLine {
	line := control.TreeLine{Peer: id, Nick: nick}
	if why, silent := a.Notes[""]; silent {
		line.State, line.Note = "unknown", why
		return []control.TreeLine{line}
	}
	if a.None != "" {
		line.State, line.Note = "none", build.OneLine(a.None, 300)
		return []control.TreeLine{line}
	}
	var out []control.TreeLine
	for _, want := range own {
		l := line
		l.Repo = want.Name
		i := slices.IndexFunc(a.Trees, func(t emerge.Tree) bool { return t.Name == want.Name })
		if i < 0 {
			l.State, l.Note = "missing", "it has no such repository"
			out = append(out, l)
			continue
		}
		t := a.Trees[i]
		l.Digest, l.Revision, l.Stamp, l.State = build.OneLine(t.Digest, 64), build.OneLine(t.Revision, 64), t.Stamp, "ok"
		if t.Digest != want.Digest {
			l.State, l.Note = "drift", "its content differs"
			switch {
			case t.Stamp > 0 && want.Stamp > t.Stamp:
				l.Note = "older by " + age(want.Stamp-t.Stamp)
			case want.Stamp > 0 && t.Stamp > want.Stamp:
				l.Note = "newer by " + age(t.Stamp-want.Stamp)
			}
		}
		if why := a.Notes[want.Name]; why != "" {
			l.Note = build.OneLine(why, 300)
		}
		out = append(out, l)
	}
	return out
}

// age is a span of seconds for people.
func age(s int64) string {
	switch {
	case s < 2*60:
		return fmt.Sprintf("%d s", s)
	case s < 2*3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 2*86400:
		return fmt.Sprintf("%d h", s/3600)
	}
	return fmt.Sprintf("%d days", s/86400)
}

// SyncTrees syncs here and has every peer take over what came of it.
func (d *Daemon) SyncTrees(ctx context.Context, req control.SyncRequest) (control.TreesReply, error) {
	pp, err := d.portage()
	if err != nil {
		return control.TreesReply{}, err
	}
	if !req.Here {
		if err := d.took.tell(ctx, "emerge --sync", "sync", func() error { return pp.Portage.Sync(ctx) }); err != nil {
			return control.TreesReply{}, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 400), Hint: "swarm sync --here spreads this machine's trees as they are"}
		}
	}
	trees, err := pp.Portage.Trees(ctx)
	if err != nil {
		return control.TreesReply{}, err
	}
	var ask treesRequest
	for i, t := range trees {
		progress.Tell(ctx, progress.Step{What: "pack the repositories", Done: int64(i), All: int64(len(trees)), Note: t.Name})
		cid, err := pp.Snapshots.Keep(ctx, t)
		if err != nil {
			return control.TreesReply{}, fmt.Errorf("keep a snapshot of %s: %w", t.Name, err)
		}
		ask.Adopt = append(ask.Adopt, treeSnapshot{Name: t.Name, Digest: t.Digest, CID: cid})
	}
	return d.compareTrees(ctx, ask)
}

// Snapshots keeps repositories as blobs, where peers find them. Equal trees are
// one blob; packing ::gentoo takes half a minute, so it is remembered what was
// packed.
type Snapshots struct {
	Shelf *Shelf

	packing sync.Mutex
	packed  map[string]string // CID by what was packed
}

// Keep stores a snapshot of a repository and returns its CID.
func (s *Snapshots) Keep(ctx context.Context, t emerge.Tree) (string, error) {
	s.packing.Lock()
	defer s.packing.Unlock()
	what := t.Digest
	if _, err := os.Stat(filepath.Join(t.Path, "metadata/md5-cache")); err == nil {
		what += " cache" // it is not in the digest, and plans and builds are slow without
	}
	if cid := s.packed[what]; cid != "" && s.Shelf.has(cid) {
		return cid, nil
	}
	r, w := io.Pipe()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.CloseWithError(emerge.Pack(gctx, t.Path, w)) })
	info, err := s.Shelf.Put(ctx, r)
	if err := errors.Join(err, r.Close(), g.Wait()); err != nil {
		return "", err
	}
	if s.packed == nil {
		s.packed = map[string]string{}
	}
	s.packed[what] = info.CID.String()
	return s.packed[what], nil
}
