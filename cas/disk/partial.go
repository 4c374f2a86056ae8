package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// partial is a cas.Partial in two files. The .tree file holds one hash per
// group, zeros where the group is missing; a group counts after a restart only
// when its bytes hash to what is written there, so neither file needs fsync.
// The name is checked at the end, over all hashes.
type partial struct {
	s          *Store
	info       cas.Info
	path       string // without extension
	data, tree file

	mu     sync.Mutex
	hashes [][32]byte
	have   []bool
	ended  bool
}

// ErrEnded: the Partial was committed, closed or aborted before.
var ErrEnded = errors.New("partial blob has ended")

// Assemble implements cas.Assembler. A partial survives a restart, for a day.
func (s *Store) Assemble(c cid.Cid, size int64) (cas.Partial, error) {
	if _, err := cas.Digest(c); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, fmt.Errorf("assemble %s: %d bytes: %w", c, size, cas.ErrRange)
	}
	s.mu.Lock()
	busy := s.open[c]
	if !busy {
		s.open[c] = true
	}
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("assemble %s: %w", c, cas.ErrBusy)
	}
	p, err := s.assemble(c, size)
	if err != nil {
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
		return nil, fmt.Errorf("assemble %s: %w", c, err)
	}
	return p, nil
}

func (s *Store) assemble(c cid.Cid, size int64) (*partial, error) {
	n := cas.Groups(size)
	p := &partial{s: s, info: cas.Info{CID: c, Size: size}, path: filepath.Join(s.dir, "partial", c.String())}
	s.mu.Lock()
	old, exists := s.partials[c]
	s.mu.Unlock()
	if exists && old == size {
		if err := p.resume(n); err == nil {
			return p, nil
		}
	}
	if exists {
		if err := p.remove(); err != nil {
			return nil, err
		}
	}
	if err := s.reserve(size); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.partials[c] = size
	s.mu.Unlock()
	if err := p.create(); err != nil {
		return nil, errors.Join(full(err), p.remove())
	}
	// What a quota or a disk allows bounds these: reserve and Truncate passed.
	p.hashes, p.have = make([][32]byte, n), make([]bool, n)
	return p, nil
}

func (p *partial) create() (err error) {
	if p.data, err = p.s.fs.Create(p.path + ".part"); err != nil {
		return err
	}
	if p.tree, err = p.s.fs.Create(p.path + ".tree"); err != nil {
		return err
	}
	return p.data.Truncate(p.info.Size)
}

// resume opens the files of a partial and hashes the groups that the tree file
// says are here.
func (p *partial) resume(n int64) error {
	tree, err := os.ReadFile(p.path + ".tree")
	if err != nil {
		return err
	}
	in, err := os.Open(p.path + ".part")
	if err != nil {
		return err
	}
	defer in.Close() // only read
	p.hashes, p.have = make([][32]byte, n), make([]bool, n)
	buf := make([]byte, cas.GroupSize)
	for i := int64(0); i < n && (i+1)*32 <= int64(len(tree)); i++ {
		h := [32]byte(tree[i*32:])
		if h == [32]byte{} {
			continue
		}
		g := buf[:min(cas.GroupSize, p.info.Size-i*cas.GroupSize)]
		if k, err := in.ReadAt(g, i*cas.GroupSize); k < len(g) {
			return fmt.Errorf("read partial: %w", err)
		}
		if cas.HashGroup(g, i, n == 1) == h {
			p.hashes[i], p.have[i] = h, true
		}
	}
	if p.data, err = p.s.fs.Open(p.path + ".part"); err != nil {
		return err
	}
	if p.tree, err = p.s.fs.Open(p.path + ".tree"); err != nil {
		_ = p.data.Close() // nothing was written
		p.data = nil
	}
	return err
}

func (p *partial) Has(group int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return group >= 0 && group < int64(len(p.have)) && p.have[group]
}

func (p *partial) WriteGroup(g cas.Group) error {
	if err := p.writeGroup(g); err != nil {
		return fmt.Errorf("write group %d of %s: %w", g.Index, p.info.CID, err)
	}
	return nil
}

func (p *partial) writeGroup(g cas.Group) error {
	if g.Index < 0 || g.Index >= int64(len(p.have)) ||
		int64(len(g.Data)) != min(cas.GroupSize, p.info.Size-g.Index*cas.GroupSize) {
		return cas.ErrRange
	}
	p.mu.Lock()
	ended, have := p.ended, p.have[g.Index]
	p.mu.Unlock()
	if ended {
		return ErrEnded
	}
	if have {
		return nil
	}
	if _, err := p.data.WriteAt(g.Data, g.Index*cas.GroupSize); err != nil {
		return full(err)
	}
	if _, err := p.tree.WriteAt(g.Hash[:], g.Index*32); err != nil {
		return full(err)
	}
	if end := (g.Index + 1) * cas.GroupSize; end%flushEvery == 0 { // ranges come in order, mostly
		p.data.Flush(end-flushEvery, flushEvery)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashes[g.Index], p.have[g.Index] = g.Hash, true
	return nil
}

// end reports whether the caller is the one that ends p.
func (p *partial) end() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.ended
	p.ended = true
	return first
}

func (p *partial) Commit() (cas.Info, error) {
	if !p.end() {
		return cas.Info{}, ErrEnded
	}
	defer p.leave()
	if err := p.commit(); err != nil {
		return cas.Info{}, fmt.Errorf("commit %s: %w", p.info.CID, errors.Join(err, p.remove()))
	}
	return p.info, nil
}

func (p *partial) commit() error {
	for i, ok := range p.have {
		if !ok {
			return fmt.Errorf("group %d is missing: %w", i, cas.ErrCorrupt)
		}
	}
	root, outboard := cas.Encode(p.info.Size, p.hashes)
	if c := cas.NewCID(root); c != p.info.CID { // step 3
		return fmt.Errorf("groups hash to %s: %w", c, cas.ErrCorrupt)
	}
	if err := p.s.commit(p.info, p.data, p.path+".part", outboard); err != nil {
		return err
	}
	p.data = nil // closed, and in its place
	return p.remove()
}

func (p *partial) Close() error {
	if !p.end() {
		return ErrEnded
	}
	defer p.leave()
	return errors.Join(p.data.Close(), p.tree.Close())
}

func (p *partial) Abort() error {
	if !p.end() {
		return ErrEnded
	}
	defer p.leave()
	return p.remove()
}

// leave lets the next Assemble of the blob in.
func (p *partial) leave() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	delete(p.s.open, p.info.CID)
}

// remove takes away what is left of the files, and the reservation.
func (p *partial) remove() error {
	var errs []error
	for _, f := range []file{p.data, p.tree} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	for _, ext := range []string{".part", ".tree"} {
		if err := p.s.fs.Remove(p.path + ext); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	p.data, p.tree = nil, nil
	p.s.mu.Lock()
	p.s.reserved -= p.s.partials[p.info.CID]
	delete(p.s.partials, p.info.CID)
	p.s.mu.Unlock()
	return errors.Join(errs...)
}
