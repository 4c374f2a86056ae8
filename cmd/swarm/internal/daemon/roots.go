package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/replication"
	"github.com/build-swarm/swarm/claims"
)

// Roots is what the board refers to: kept releases, pins, open rounds, what each
// target's newest round wanted, and whatever else a record names.
//
// The collector marks conservatively. Beside the records whose life it knows
// (rounds end, pins are lifted, outcomes outlive their use), every CID that stands
// anywhere in a record is a root, and every CID that stands anywhere in a root's
// bytes is kept, too: a record of a newer version keeps its blobs although this
// version cannot read it. A false hit keeps a blob too long and harms nobody.
type Roots map[[32]byte]Root

// Root says why a blob is kept, for people, and how much it matters.
type Root struct {
	Why   string
	Class replication.Class
}

// cidPrefix begins the text of every CID of ours.
const (
	cidPrefix = "bafkr4i"
	cidLength = 59
	// maxContainer bounds a blob that is searched for names, in bytes; a release
	// has at most as many.
	maxContainer = 256 << 20
)

// mentions tells f of each CID in b.
func mentions(b []byte, f func(cid.Cid)) {
	for {
		i := bytes.Index(b, []byte(cidPrefix))
		if i < 0 || len(b)-i < cidLength {
			return
		}
		c, err := cas.Parse(string(b[i : i+cidLength]))
		if err != nil {
			b = b[i+1:]
			continue
		}
		f(c)
		b = b[i+cidLength:]
	}
}

// marking is one pass over the board and the blobs that it names.
type marking struct {
	roots  Roots
	leaf   map[[32]byte]bool // packages and logs: they name nothing
	search []container
	keys   map[build.Key]Root
}

type container struct {
	cid  cid.Cid
	why  Root
	plan bool
}

func (m *marking) add(c cid.Cid, why Root, plan bool) {
	d, err := cas.Digest(c)
	if err != nil {
		return
	}
	if old, known := m.roots[d]; known && old.Class <= why.Class {
		return
	}
	m.roots[d] = why
	if !m.leaf[d] {
		m.search = append(m.search, container{c, why, plan})
	}
}

func (m *marking) addText(text string, why Root, plan bool) {
	if c, err := cas.Parse(text); err == nil {
		m.add(c, why, plan)
	}
}

// board marks what stands in records.
func (m *marking) board(r *claims.Replica) {
	for _, a := range r.Artifacts() {
		if c, err := cas.Parse(a.CID); err == nil {
			d, _ := cas.Digest(c) // of our form: Parse said so
			m.leaf[d] = true
		}
	}
	seen := map[string]bool{} // targets of which the newest round was met
	for _, rd := range r.Rounds() {
		newest := !seen[rd.Target]
		seen[rd.Target] = true
		if rd.State != build.RoundOpen && !newest {
			continue
		}
		why := Root{"round " + rd.ID, replication.Wanted}
		if _, plan, _ := r.Round(rd.ID); plan != nil {
			m.plan(plan, why)
		}
		if rd.PlanCID != "" {
			m.addText(rd.PlanCID, why, true)
		}
	}
	for _, l := range r.Releases("") {
		if l.State == release.Kept {
			why := Root{fmt.Sprintf("release %d of %s", l.Number, l.Target), replication.Released}
			m.addText(l.Release, why, false)
			m.addText(l.Tree, why, false)
		}
	}
	for _, o := range r.Records() {
		switch o.Type() {
		case claims.TypeRelease, claims.TypeRound, claims.TypeOutcome, claims.TypeHoldings, claims.TypeClaim, claims.TypeDecline:
		case claims.TypeDirective:
			var d claims.Directive
			if err := build.Unmarshal(o.Body(), &d); err == nil && d.Verb == claims.VerbPin && !d.Off {
				m.addText(d.Scope, Root{"pinned", replication.Released}, false)
			}
		case claims.TypeChannel:
			m.record(o.Key(), o.Body(), replication.Released)
		default:
			m.record(o.Key(), o.Body(), replication.Other)
		}
	}
}

func (m *marking) record(key string, body []byte, class replication.Class) {
	mentions(body, func(c cid.Cid) { m.add(c, Root{build.OneLine(key, 100), class}, false) })
}

func (m *marking) plan(p *build.Plan, why Root) {
	for i := range p.Jobs {
		m.keys[p.Jobs[i].Key] = why
	}
	// Trees, targets and whatever else a plan names.
	if b, err := build.Marshal(p); err == nil {
		mentions(b, func(c cid.Cid) { m.add(c, why, false) })
	}
}

// results marks what was built for the keys of kept plans, and the logs.
func (m *marking) results(r *claims.Replica) {
	for k, why := range m.keys {
		for _, o := range r.Results(k) {
			if o.Artifact != nil {
				m.addText(o.Artifact.CID, why, false)
			}
			if c, err := cas.Parse(o.Log); err == nil {
				d, _ := cas.Digest(c) // as above
				m.leaf[d] = true
				m.add(c, Root{why.Why + ", a log", replication.Other}, false)
			}
		}
	}
	clear(m.keys)
}

// FindRoots marks what the board refers to, reading releases and plans from the
// store or, through fetch, from peers. It fails when one of them cannot be read:
// what is in it is not known then, and nothing may be taken for garbage.
func FindRoots(ctx context.Context, board Board, store cas.Store, fetch func(context.Context, cid.Cid) error) (Roots, error) {
	m := &marking{roots: Roots{}, leaf: map[[32]byte]bool{}, keys: map[build.Key]Root{}}
	err := board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		m.board(r)
		m.results(r)
		return nil
	})
	for err == nil && len(m.search) > 0 {
		c := m.search[len(m.search)-1]
		m.search = m.search[:len(m.search)-1]
		var b []byte
		if b, err = readContainer(ctx, store, fetch, c.cid); err != nil {
			return nil, fmt.Errorf("read what %s (%s) refers to: %w", c.cid, c.why.Why, err)
		}
		if c.plan {
			var p build.Plan
			if err := build.Unmarshal(b, &p); err == nil {
				m.plan(&p, c.why)
			}
		}
		mentions(b, func(x cid.Cid) { m.add(x, c.why, false) })
		if len(m.search) == 0 && len(m.keys) > 0 {
			err = board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
				m.results(r)
				return nil
			})
		}
	}
	return m.roots, err
}

// Board runs a function on the replica: *agent.Agent.
type Board interface {
	Do(ctx context.Context, f func(*claims.Replica, claims.Now) []claims.Event) error
}

// readContainer reads a blob whole. One that is too large to name others (a
// package that is pinned and no outcome names any more) is empty.
func readContainer(ctx context.Context, store cas.Store, fetch func(context.Context, cid.Cid) error, c cid.Cid) ([]byte, error) {
	if err := fetch(ctx, c); err != nil {
		return nil, err
	}
	b, err := store.Open(c)
	if err != nil {
		return nil, err
	}
	defer b.Close() // only read
	if b.Size() > maxContainer {
		return nil, nil
	}
	buf := make([]byte, b.Size())
	_, err = io.ReadFull(b, buf)
	return buf, err
}
