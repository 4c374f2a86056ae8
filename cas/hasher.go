package cas

import "github.com/ipfs/go-cid"

// Hasher computes the CID and the outboard of what is written to it. It keeps
// one group and 32 bytes for each 64 KiB written. Not for several goroutines.
// Feed it 64 KiB or more at a time: smaller writes cost a copy.
type Hasher struct {
	size   int64
	hashes [][32]byte // of the groups before buf
	// buf holds the group that may still be the last: whether a group is the
	// only one changes its hash, so it waits for a byte after it.
	buf []byte
}

// NewHasher returns an empty Hasher, which names the empty blob.
func NewHasher() *Hasher { return &Hasher{} }

// Write takes the next bytes. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	h.size += int64(n)
	for len(p) > 0 {
		if len(h.buf) == GroupSize {
			h.push(h.buf)
			h.buf = h.buf[:0]
		}
		if len(h.buf) == 0 && len(p) > GroupSize {
			h.push(p[:GroupSize])
			p = p[GroupSize:]
			continue
		}
		if h.buf == nil {
			h.buf = make([]byte, 0, GroupSize)
		}
		k := min(GroupSize-len(h.buf), len(p))
		h.buf = append(h.buf, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

// push takes a group that another one follows.
func (h *Hasher) push(group []byte) {
	h.hashes = append(h.hashes, HashGroup(group, int64(len(h.hashes)), false))
}

// Size is the number of bytes written.
func (h *Hasher) Size() int64 { return h.size }

// CID names what was written so far. Writing may go on.
func (h *Hasher) CID() cid.Cid {
	root, _ := h.encode()
	return NewCID(root)
}

// Outboard is the outboard of what was written so far. Writing may go on.
func (h *Hasher) Outboard() []byte {
	_, out := h.encode()
	return out
}

// Finish is CID and Outboard in one.
func (h *Hasher) Finish() (cid.Cid, []byte) {
	root, out := h.encode()
	return NewCID(root), out
}

func (h *Hasher) encode() ([32]byte, []byte) {
	i := int64(len(h.hashes))
	// Appending to a full slice expression leaves h.hashes to later writes.
	all := append(h.hashes[:i:i], HashGroup(h.buf, i, i == 0))
	return Encode(h.size, all)
}
