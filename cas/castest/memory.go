package castest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Memory is a cas.Store, cas.Source and cas.Assembler in memory.
type Memory struct {
	mu    sync.Mutex
	blobs map[cid.Cid]stored
	parts map[cid.Cid]*partial
}

type stored struct{ data, outboard []byte }

var (
	_ cas.Source    = (*Memory)(nil)
	_ cas.Assembler = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{blobs: map[cid.Cid]stored{}, parts: map[cid.Cid]*partial{}}
}

func (m *Memory) get(c cid.Cid) (stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[c]
	if !ok {
		return stored{}, fmt.Errorf("blob %s: %w", c, cas.ErrNotFound)
	}
	return b, nil
}

// Stat implements cas.Store.
func (m *Memory) Stat(c cid.Cid) (cas.Info, error) {
	b, err := m.get(c)
	if err != nil {
		return cas.Info{}, err
	}
	return cas.Info{CID: c, Size: int64(len(b.data))}, nil
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

// Open implements cas.Store.
func (m *Memory) Open(c cid.Cid) (cas.Blob, error) {
	b, err := m.get(c)
	if err != nil {
		return nil, err
	}
	return blob{bytes.NewReader(b.data)}, nil
}

// Outboard implements cas.Source.
func (m *Memory) Outboard(c cid.Cid) (cas.Outboard, error) {
	b, err := m.get(c)
	if err != nil {
		return nil, err
	}
	return blob{bytes.NewReader(b.outboard)}, nil
}

// Put implements cas.Store.
func (m *Memory) Put(ctx context.Context, r io.Reader, want cid.Cid) (cas.Info, error) {
	if want.Defined() {
		if _, err := cas.Digest(want); err != nil {
			return cas.Info{}, err
		}
		if info, err := m.Stat(want); err == nil {
			return info, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return cas.Info{}, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return cas.Info{}, fmt.Errorf("store blob: %w", err)
	}
	h := cas.NewHasher()
	_, _ = h.Write(data) // never fails
	c, out := h.Finish()
	if want.Defined() && c != want {
		return cas.Info{}, fmt.Errorf("store blob: bytes hash to %s, not %s: %w", c, want, cas.ErrCorrupt)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[c] = stored{data, out}
	return cas.Info{CID: c, Size: int64(len(data))}, nil
}

// Delete implements cas.Store.
func (m *Memory) Delete(c cid.Cid) error {
	if _, err := cas.Digest(c); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, c)
	return nil
}

// All implements cas.Store.
func (m *Memory) All() iter.Seq2[cas.Info, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []cas.Info
	for c, b := range m.blobs {
		list = append(list, cas.Info{CID: c, Size: int64(len(b.data))})
	}
	return func(yield func(cas.Info, error) bool) {
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Corrupt flips one bit of a blob in place, as a bad disk does, so that the
// store serves wrong bytes under a right name. It reports whether it holds c.
func (m *Memory) Corrupt(c cid.Cid, bit int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[c]
	if !ok {
		return false
	}
	data := bytes.Clone(b.data)
	data[bit/8] ^= 1 << (bit % 8)
	m.blobs[c] = stored{data, b.outboard}
	return true
}

// Assemble implements cas.Assembler.
func (m *Memory) Assemble(c cid.Cid, size int64) (cas.Partial, error) {
	if _, err := cas.Digest(c); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, fmt.Errorf("assemble %s: %d bytes: %w", c, size, cas.ErrRange)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.parts[c]
	if p != nil && p.open {
		return nil, fmt.Errorf("assemble %s: %w", c, cas.ErrBusy)
	}
	if p == nil || int64(len(p.data)) != size {
		n := cas.Groups(size)
		p = &partial{m: m, c: c, data: make([]byte, size), hashes: make([][32]byte, n), have: make([]bool, n)}
		m.parts[c] = p
	}
	p.open = true
	return p, nil
}

type partial struct {
	m      *Memory // its mutex guards what is below
	c      cid.Cid
	open   bool
	data   []byte
	hashes [][32]byte
	have   []bool
}

func (p *partial) Has(group int64) bool {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return group >= 0 && group < int64(len(p.have)) && p.have[group]
}

func (p *partial) WriteGroup(g cas.Group) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if !p.open {
		return fmt.Errorf("write group %d of %s: partial blob has ended", g.Index, p.c)
	}
	if g.Index < 0 || g.Index >= int64(len(p.have)) ||
		int64(len(g.Data)) != min(cas.GroupSize, int64(len(p.data))-g.Index*cas.GroupSize) {
		return fmt.Errorf("write group %d of %s: %w", g.Index, p.c, cas.ErrRange)
	}
	copy(p.data[g.Index*cas.GroupSize:], g.Data)
	p.hashes[g.Index], p.have[g.Index] = g.Hash, true
	return nil
}

func (p *partial) Commit() (cas.Info, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if !p.open {
		return cas.Info{}, fmt.Errorf("commit %s: partial blob has ended", p.c)
	}
	p.open = false
	delete(p.m.parts, p.c)
	for i, ok := range p.have {
		if !ok {
			return cas.Info{}, fmt.Errorf("commit %s: group %d is missing: %w", p.c, i, cas.ErrCorrupt)
		}
	}
	root, out := cas.Encode(int64(len(p.data)), p.hashes)
	if c := cas.NewCID(root); c != p.c {
		return cas.Info{}, fmt.Errorf("commit %s: groups hash to %s: %w", p.c, c, cas.ErrCorrupt)
	}
	p.m.blobs[p.c] = stored{p.data, out}
	return cas.Info{CID: p.c, Size: int64(len(p.data))}, nil
}

func (p *partial) Close() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.open = false
	return nil
}

func (p *partial) Abort() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.open = false
	delete(p.m.parts, p.c)
	return nil
}
