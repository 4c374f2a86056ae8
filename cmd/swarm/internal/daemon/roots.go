package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
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
// anywhere in a record is a root, and every CID that stands in the bytes of a list
// of blobs, or of another root that is small and here, is kept, too: a record of a newer version keeps its blobs although this
// version cannot read it. A false hit keeps a blob too long and harms nobody.
type Roots map[[32]byte]Root

// Root says why a blob is kept, for people, and how much it matters.
type Root struct {
	Why   string
	Class replication.Class
}

// names reports whether a digest, in hex, is among the roots.
func (r Roots) names(digest string) bool {
	var d [32]byte
	if n, err := hex.Decode(d[:], []byte(digest)); err != nil || n != len(d) {
		return false
	}
	_, ok := r[d]
	return ok
}

// cidPrefix begins the text of every CID of ours.
const (
	cidPrefix = "bafkr4i"
	cidLength = 59
	// maxContainer bounds a blob that is searched for names, in bytes; a release
	// has at most as many.
	maxContainer = 256 << 20
	// maxSearched bounds one that need not be.
	maxSearched = 4 << 20
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
	done   map[[32]byte]bool // will have been read, whatever it takes
	search []container
	keys   map[build.Key]Root
}

type container struct {
	cid  cid.Cid
	why  Root
	read reading
}

// reading says how a root's own bytes are searched for further names.
type reading byte

const (
	// ifHere: when it lies here and is small; nobody fetches a stage archive to
	// look into it.
	ifHere reading = iota
	// always: it is a list of blobs (a release, a base), and without it nobody
	// knows what it keeps.
	always
	// asPlan: always, and it is a plan.
	asPlan
)

func (m *marking) add(c cid.Cid, why Root, read reading) {
	d, err := cas.Digest(c)
	if err != nil {
		return
	}
	if old, known := m.roots[d]; known && old.Class <= why.Class && read == ifHere {
		return
	}
	m.roots[d] = why
	if !m.leaf[d] && !m.done[d] {
		m.done[d] = read != ifHere
		m.search = append(m.search, container{c, why, read})
	}
}

// addText adds what is named by a CID, or by the hex of its digest.
func (m *marking) addText(text string, why Root, read reading) {
	if c, err := cas.Parse(text); err == nil {
		m.add(c, why, read)
	} else if c, err := (build.BaseRef{Digest: text}).CID(); err == nil {
		m.add(c, why, read)
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
			m.addText(rd.PlanCID, why, asPlan)
		}
	}
	for _, l := range r.Releases("") {
		if l.State == release.Kept {
			why := Root{fmt.Sprintf("release %d of %s", l.Number, l.Target), replication.Released}
			m.addText(l.Release, why, always)
			m.addText(l.Tree, why, ifHere)
		}
	}
	for _, ch := range r.Channels() {
		m.addText(ch.Release, Root{"channel " + ch.Target + "/" + ch.Name, replication.Released}, always)
	}
	for _, t := range r.Targets() {
		why := Root{"target " + t.Name, replication.Wanted}
		m.addText(t.Base.Digest, why, always)
		m.addText(t.Bundle, why, ifHere)
	}
	for _, o := range r.Records() {
		switch o.Type() {
		case claims.TypeChannel, claims.TypeTarget, claims.TypeRelease, claims.TypeRound, claims.TypeOutcome, claims.TypeHoldings, claims.TypeClaim, claims.TypeDecline,
			claims.TypeHeldBack: // what was refused is kept by its round
		case claims.TypeDirective:
			var d claims.Directive
			if err := build.Unmarshal(o.Body(), &d); err == nil && d.Verb == claims.VerbPin && !d.Off {
				m.addText(d.Scope, Root{"pinned", replication.Released}, always)
			}
		default:
			mentions(o.Body(), func(c cid.Cid) { m.add(c, Root{build.OneLine(o.Key(), 100), replication.Other}, ifHere) })
		}
	}
}

func (m *marking) plan(p *build.Plan, why Root) {
	for i := range p.Jobs {
		m.keys[p.Jobs[i].Key] = why
	}
	m.addText(p.Base.Digest, why, always)
	m.addText(p.Tree, why, ifHere)
	// The bundle, the trees of single jobs, and whatever else a plan names.
	if b, err := build.Marshal(p); err == nil {
		mentions(b, func(c cid.Cid) { m.add(c, why, ifHere) })
	}
}

// results marks what was built for the keys of kept plans, and the logs.
func (m *marking) results(r *claims.Replica) {
	for k, why := range m.keys {
		for _, o := range r.Results(k) {
			if o.Artifact != nil {
				m.addText(o.Artifact.CID, why, ifHere)
			}
			if c, err := cas.Parse(o.Log); err == nil {
				d, _ := cas.Digest(c) // as above
				m.leaf[d] = true
				m.add(c, Root{why.Why + ", a log", replication.Other}, ifHere)
			}
		}
	}
	clear(m.keys)
}

// FindRoots marks what the board refers to, reading releases, bases and plans
// from the store or, through fetch, from peers. It fails when one of them cannot be
// read although somebody has it: what is in it is not known then, and nothing may
// be taken for garbage.
func FindRoots(ctx context.Context, board Board, store cas.Store, fetch func(context.Context, cid.Cid) error) (Roots, error) {
	m := &marking{roots: Roots{}, leaf: map[[32]byte]bool{}, done: map[[32]byte]bool{}, keys: map[build.Key]Root{}}
	err := board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		m.board(r)
		m.results(r)
		return nil
	})
	for err == nil && len(m.search) > 0 {
		c := m.search[len(m.search)-1]
		m.search = m.search[:len(m.search)-1]
		if err = m.read(ctx, c, board, store, fetch); err != nil {
			err = fmt.Errorf("read what %s (%s) refers to: %w", c.cid, c.why.Why, err)
		} else if len(m.search) == 0 && len(m.keys) > 0 {
			err = board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
				m.results(r)
				return nil
			})
		}
	}
	return m.roots, err
}

// read searches one root.
func (m *marking) read(ctx context.Context, c container, board Board, store cas.Store, fetch func(context.Context, cid.Cid) error) error {
	most := int64(maxContainer)
	if c.read == ifHere {
		most = maxSearched
		if info, err := store.Stat(c.cid); err != nil || info.Size > most {
			return nil
		}
	} else if err := fetch(ctx, c.cid); err != nil {
		known := true
		if derr := board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			known = len(r.Holders(c.cid.String(), false, now)) > 0
			return nil
		}); derr != nil {
			return derr
		}
		if known {
			return err
		}
		return nil // it is nowhere: nobody will ever know, or need it
	}
	b, err := store.Open(c.cid)
	if err != nil {
		if c.read == ifHere {
			return nil
		}
		return err
	}
	defer b.Close() // only read
	if b.Size() > most {
		return nil
	}
	buf := make([]byte, b.Size())
	if _, err := io.ReadFull(b, buf); err != nil {
		return err
	}
	if c.read == asPlan {
		var p build.Plan
		if err := build.Unmarshal(buf, &p); err == nil {
			m.plan(&p, c.why)
		}
	}
	mentions(buf, func(x cid.Cid) { m.add(x, c.why, ifHere) })
	return nil
}

// Board runs a function on the replica: *agent.Agent.
type Board interface {
	Do(ctx context.Context, f func(*claims.Replica, claims.Now) []claims.Event) error
}
