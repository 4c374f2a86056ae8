package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/p2p"
)

// ProtoDrop asks another holder before a copy is dropped.
const ProtoDrop = "/swarm/drop/1"

const (
	collectEvery = 15 * time.Minute
	// uncopied is how long nothing must have referred to a blob before it is not
	// copied any more: a new one's reference may be on its way.
	uncopied = time.Hour
	// rootsFresh is how old the marks may be that another holder is answered by.
	rootsFresh  = 10 * time.Second
	dropsAtOnce = 1000
	askTimeout  = 20 * time.Second
	// inputTimeout bounds how long a plan of copies waits for the board.
	inputTimeout = 5 * time.Second
)

// Collector drops copies that this peer need not keep: what nothing has referred
// to for a day, and, once the store is at its first watermark or on a peer that
// only builds, what enough others hold. It goes by package replication's rules
// and asks the other holders first.
type Collector struct {
	Board    Board
	Net      p2p.Network
	Store    *disk.Store
	Holdings *Holdings
	Fetch    func(context.Context, cid.Cid) error
	// BuildOnly: keep nothing for others.
	BuildOnly bool
	// Wanted lists, by CID, what this machine itself is to install: no surplus
	// while there is room. nil = nothing.
	Wanted func(context.Context) (map[string]bool, error)
	// Source is the blob of a source that a build has used here; nil = nobody knows.
	Source func(build.Source) (cid.Cid, bool)
	// Bases are those that are unpacked here; what nothing refers to goes. nil = none.
	Bases *base.Store
	// Changed fires when the board has changed; nil = nobody says so.
	Changed <-chan struct{}
	// File remembers since when blobs are garbage, across restarts.
	File string
	Log  *slog.Logger

	// The clock; tests have their own.
	now  func() time.Time
	wait func(context.Context, time.Duration) error

	run    sync.Mutex // one collection at a time
	mu     sync.Mutex
	ledger *replication.Ledger
	roots  Roots
	marked time.Time
	refers uint64                 // what refersTo said when remark found them
	since  map[[32]byte]time.Time // of what nobody refers to
}

// Serve answers other holders, from now on.
func (c *Collector) Serve() {
	if c.now == nil {
		c.now, c.wait = time.Now, wait
	}
	c.ledger = replication.NewLedger(c.now())
	p2p.Serve(c.Net, ProtoDrop, 64<<10, c.answer)
}

// Run collects every quarter of an hour until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	t := time.NewTimer(time.Minute) // the board is complete by then
	defer t.Stop()
	var soon <-chan time.Time // a look at what changed; nil = nothing did
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.Changed:
			if soon == nil {
				soon = time.After(remarkAfter)
			}
			continue
		case <-soon:
			soon = nil
			if err := c.remark(ctx); err != nil && ctx.Err() == nil {
				c.Log.Debug("what matters is not known anew", "error", err)
			}
			continue
		case <-t.C:
			t.Reset(collectEvery)
		}
		reply, err := c.Collect(ctx, false)
		if err != nil && ctx.Err() == nil {
			c.Log.Warn("nothing is collected", "error", err)
			continue
		}
		if n := dropped(reply); n > 0 {
			c.Log.Info("copies dropped", "blobs", n)
		}
	}
}

func dropped(r control.GCReply) (n int) {
	for _, g := range r.Garbage {
		if g.Dropped {
			n++
		}
	}
	return n
}

// Collect looks for garbage and surplus copies and, with dry unset, drops them;
// that takes replication.Settle and a little.
func (c *Collector) Collect(ctx context.Context, dry bool) (control.GCReply, error) {
	c.run.Lock()
	defer c.run.Unlock()
	reply := control.GCReply{Schema: 1, DryRun: dry, Garbage: []control.GCBlob{}}
	roots, err := c.mark(ctx)
	if err != nil {
		return reply, err
	}
	if !dry && c.Bases != nil {
		if err := c.Bases.Tidy(ctx, roots.names); err != nil {
			return reply, err
		}
	}
	in, names, err := c.view(ctx)
	if err != nil {
		return reply, err
	}
	since, err := c.garbage(roots, in, c.now())
	if err != nil {
		return reply, err
	}
	live := map[string]bool{}
	for _, p := range in.Peers {
		live[p.ID] = p.Live
	}
	holders := map[cid.Cid][]string{}
	for _, b := range in.Blobs {
		holders[b.CID] = slices.DeleteFunc(slices.Clone(b.Holders), func(h string) bool { return h == in.Self || !live[h] })
	}
	var drops []replication.Drop
	for i := range c.Store.All() {
		d, err := cas.Digest(i.CID)
		if err != nil {
			continue
		}
		t, is := since[d]
		if !is {
			reply.Kept++
			reply.KeptB += i.Size
			continue
		}
		age := c.now().Sub(t)
		g := control.GCBlob{CID: i.CID.String(), Name: names[d], Size: i.Size, Why: replication.Garbage.String(), ForMS: age.Milliseconds(), Due: age >= replication.UnreferencedFor}
		if g.Due {
			drops = append(drops, replication.Drop{Info: i, Reason: replication.Garbage, Others: holders[i.CID]})
		}
		reply.Garbage = append(reply.Garbage, g)
	}
	surplus, err := c.surplus(ctx, in, since)
	if err != nil {
		return reply, err
	}
	for _, d := range surplus {
		dig, _ := cas.Digest(d.CID) // it stands on the board
		drops = append(drops, d)
		reply.Garbage = append(reply.Garbage, control.GCBlob{CID: d.CID.String(), Name: names[dig], Size: d.Size, Why: fmt.Sprintf("%s (%d)", d.Reason, len(d.Others)), Due: true, Surplus: true})
	}
	slices.SortFunc(reply.Garbage, func(a, b control.GCBlob) int { return int(min(1, max(-1, b.Size-a.Size))) })
	if dry || len(drops) == 0 {
		return reply, nil
	}
	gone, err := c.drop(ctx, drops[:min(len(drops), dropsAtOnce)])
	for i := range reply.Garbage {
		reply.Garbage[i].Dropped = gone[reply.Garbage[i].CID]
	}
	return reply, err
}

// mark finds the roots anew.
func (c *Collector) mark(ctx context.Context) (Roots, error) {
	var why string
	err := c.Board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		_, why = r.MayClaim()
		return nil
	})
	if err == nil && why != "" {
		err = errors.New("this peer does not know enough to tell what is garbage: " + why)
	}
	if err != nil {
		return nil, err
	}
	roots, err := FindRoots(ctx, c.Board, c.Store, c.Fetch)
	if err == nil && c.Source != nil {
		err = c.markSources(ctx, roots)
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots, c.marked = roots, c.now()
	return roots, nil
}

// markSources keeps the sources of what open rounds still build: the board knows
// them by their Manifest's hash alone.
func (c *Collector) markSources(ctx context.Context, roots Roots) error {
	return c.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		for _, k := range r.Keys() {
			j := r.Job(k)
			if j == nil || len(j.Sources) == 0 || r.Available(k, now) {
				continue
			}
			for _, s := range j.Sources {
				x, ok := c.Source(s)
				d, err := cas.Digest(x)
				if _, known := roots[d]; ok && err == nil && !known {
					roots[d] = Root{"a source of " + j.CPV.String(), replication.Other}
				}
			}
		}
		return nil
	})
}

// garbage notes since when each blob is unreferenced, here or with others, in
// File: a laptop is switched off every day.
func (c *Collector) garbage(roots Roots, in replication.Input, now time.Time) (map[[32]byte]time.Time, error) {
	old := map[string]int64{}
	b, err := os.ReadFile(c.File)
	if err == nil {
		err = json.Unmarshal(b, &old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("the ages of garbage are counted anew", "file", c.File, "error", err)
		old = map[string]int64{}
	}
	since := map[[32]byte]time.Time{}
	next := map[string]int64{}
	note := func(x cid.Cid) {
		d, err := cas.Digest(x)
		if _, kept := roots[d]; kept || err != nil {
			return
		}
		t, known := old[x.String()]
		if !known || t > now.Unix() {
			t = now.Unix()
		}
		since[d], next[x.String()] = time.Unix(t, 0), t
	}
	for i := range c.Store.All() {
		note(i.CID)
	}
	for _, b := range in.Blobs {
		note(b.CID)
	}
	c.mu.Lock()
	c.since = since
	c.mu.Unlock()
	b, err = json.Marshal(next)
	if err == nil {
		err = os.WriteFile(c.File+".tmp", b, 0o600)
	}
	if err == nil {
		err = os.Rename(c.File+".tmp", c.File) // lost in a crash: they are kept longer
	}
	if err != nil {
		return nil, fmt.Errorf("note what is garbage: %w", err)
	}
	return since, nil
}

// Input is what replication plans from now; nothing when the board stops.
func (c *Collector) Input() (in replication.Input) {
	ctx, cancel := context.WithTimeout(context.Background(), inputTimeout)
	defer cancel()
	err := c.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		in = Copies(r, now, c.Sort)
		return nil
	})
	if err != nil {
		c.Log.Debug("copies not planned", "error", err)
	}
	return in
}

// Sort says how much a blob matters, and whether it is to be copied, by the last
// look.
func (c *Collector) Sort(d [32]byte) (replication.Class, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.roots[d]; ok {
		return r.Class, true
	}
	t, garbage := c.since[d]
	return replication.Other, !garbage || c.now().Sub(t) < uncopied
}

// classes counts copies by how much the blobs matter.
func classes(in replication.Input) []view.BlobClass {
	class := map[cid.Cid]replication.Class{}
	for _, b := range in.Blobs {
		class[b.CID] = b.Class
	}
	out := []view.BlobClass{{Class: "released"}, {Class: "wanted"}, {Class: "other"}}
	for x, n := range replication.Count(in) {
		k := &out[class[x]]
		k.Total++
		switch {
		case n.Live == 0:
			k.Lost++
		case n.Live < min(2, n.R):
			k.Single++
		case n.Counts < n.R:
			k.Few++
		}
	}
	return out
}

// view is what replication plans from, and the packages' names by digest.
func (c *Collector) view(ctx context.Context) (in replication.Input, names map[[32]byte]string, err error) {
	all := func([32]byte) (replication.Class, bool) { return replication.Other, true }
	err = c.Board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		in = Copies(r, now, all)
		names = blobNames(r)
		return nil
	})
	return in, names, err
}

// surplus lists copies to give up: all that may go on a peer that only builds,
// else as many as bring the store back below its first watermark. What this
// machine itself installs goes last, and only for want of room.
func (c *Collector) surplus(ctx context.Context, in replication.Input, garbage map[[32]byte]time.Time) ([]replication.Drop, error) {
	u, err := c.Store.Usage()
	if err != nil {
		return nil, fmt.Errorf("look for surplus copies: %w", err)
	}
	full := u.Level >= disk.NoReplicas
	if !c.BuildOnly && !full {
		return nil, nil
	}
	want := int64(1) << 62
	if !c.BuildOnly {
		want = u.Bytes - u.Quota/100*80
	}
	var own map[string]bool
	if c.Wanted != nil {
		if own, err = c.Wanted(ctx); err != nil { // a release that cannot be read now
			c.Log.Debug("surplus copies stay", "error", err)
			return nil, nil
		}
	}
	drops := replication.Surpluses(in)
	slices.SortStableFunc(drops, func(a, b replication.Drop) int {
		switch x, y := own[a.CID.String()], own[b.CID.String()]; {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	var out []replication.Drop
	for _, d := range drops {
		if own[d.CID.String()] && !full {
			continue
		}
		info, err := c.Store.Stat(d.CID)
		dig, _ := cas.Digest(d.CID) // it stands on the board
		if _, is := garbage[dig]; is || err != nil || want <= 0 {
			continue
		}
		d.Info = info
		want -= info.Size
		out = append(out, d)
	}
	return out, nil
}

// drop carries drops out in two phases; see replication.Ledger.
func (c *Collector) drop(ctx context.Context, drops []replication.Drop) (gone map[string]bool, err error) {
	gone = map[string]bool{}
	var ours []replication.Drop
	c.mu.Lock()
	for _, d := range drops {
		if c.ledger.Intend(c.now(), d.CID, d.Reason) {
			ours = append(ours, d)
		}
	}
	c.mu.Unlock()
	back := map[cid.Cid]bool{} // to announce again
	defer func() {
		c.mu.Lock()
		for _, d := range ours {
			c.ledger.End(d.CID)
		}
		c.mu.Unlock()
		// Also when ctx has ended: the daemon stops, and what is still here would
		// be counted by nobody until it is started again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err = errors.Join(err, c.Holdings.Change(ctx, slices.Collect(maps.Keys(back)), true))
	}()
	if len(ours) == 0 {
		return gone, nil
	}
	for _, d := range ours {
		back[d.CID] = true
	}
	if err := c.Holdings.Change(ctx, slices.Collect(maps.Keys(back)), false); err != nil {
		return gone, err
	}
	if err := c.wait(ctx, replication.Settle); err != nil {
		return gone, err
	}
	roots, err := c.mark(ctx)
	if err != nil {
		return gone, err
	}
	asked := c.now()
	answers := c.ask(ctx, ours)
	for _, d := range ours {
		dig, err := cas.Digest(d.CID)
		if err != nil {
			return gone, err
		}
		_, referenced := roots[dig]
		c.mu.Lock()
		may := c.ledger.Decide(c.now(), asked, d, referenced, answers[d.CID])
		c.mu.Unlock()
		if !may {
			continue
		}
		if err := c.Store.Delete(d.CID); err != nil {
			return gone, err
		}
		delete(back, d.CID)
		gone[d.CID.String()] = true
	}
	return gone, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropQuestion asks a holder about some blobs. The reply is one Answer for each.
type dropQuestion struct {
	Reason replication.Reason `cbor:"r"`
	CIDs   [][]byte           `cbor:"c"` // digests
}

// ask gathers the answers of the other live holders. One that cannot be asked is
// Silent.
func (c *Collector) ask(ctx context.Context, drops []replication.Drop) map[cid.Cid][]replication.Answer {
	type question struct {
		peer   string
		reason replication.Reason
	}
	asked := map[question][]cid.Cid{}
	for _, d := range drops {
		for _, p := range d.Others {
			asked[question{p, d.Reason}] = append(asked[question{p, d.Reason}], d.CID)
		}
	}
	out := map[cid.Cid][]replication.Answer{}
	for q, list := range asked {
		answers, err := c.askPeer(ctx, q.peer, q.reason, list)
		if err != nil {
			c.Log.Info("holder could not be asked about drops", "peer", q.peer, "error", err)
			answers = make([]byte, len(list)) // Silent
		}
		for i, x := range list {
			out[x] = append(out[x], replication.Answer(answers[i]))
		}
	}
	return out
}

func (c *Collector) askPeer(ctx context.Context, peer string, why replication.Reason, list []cid.Cid) ([]byte, error) {
	q := dropQuestion{Reason: why}
	for _, x := range list {
		d, err := cas.Digest(x)
		if err != nil {
			return nil, err
		}
		q.CIDs = append(q.CIDs, d[:])
	}
	req, err := build.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers, err := p2p.Request(ctx, c.Net, peer, ProtoDrop, req, len(list))
	if err == nil && len(answers) != len(list) {
		err = fmt.Errorf("%d answers to %d questions", len(answers), len(list))
	}
	return answers, err
}

// answer answers another holder. Who cannot tell what is referred to says that
// everything is.
func (c *Collector) answer(ctx context.Context, _ string, req []byte) ([]byte, error) {
	var q dropQuestion
	if err := build.Unmarshal(req, &q); err != nil {
		return nil, fmt.Errorf("decode question: %w", err)
	}
	if len(q.CIDs) > dropsAtOnce || q.Reason != replication.Garbage && q.Reason != replication.Surplus {
		return nil, errors.New("not a question about drops")
	}
	c.mu.Lock()
	stale := c.now().Sub(c.marked) > rootsFresh
	c.mu.Unlock()
	unsure := false
	if q.Reason == replication.Garbage && stale {
		if _, err := c.mark(ctx); err != nil {
			c.Log.Debug("asked about garbage, and cannot tell", "error", err)
			unsure = true
		}
	}
	out := make([]byte, 0, len(q.CIDs))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range q.CIDs {
		if len(b) != 32 {
			return nil, errors.New("a digest that is none")
		}
		_, referenced := c.roots[[32]byte(b)]
		x := cas.NewCID([32]byte(b))
		_, err := c.Store.Stat(x)
		out = append(out, byte(c.ledger.Answer(c.now(), x, q.Reason, err == nil, referenced || unsure)))
	}
	return out, nil
}
