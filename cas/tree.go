package cas

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/ipfs/go-cid"
	"lukechampine.com/blake3/guts"
)

const (
	// groupLog is the group size as a power of two of BLAKE3's 1 KiB chunks.
	groupLog = 6
	// GroupSize is the unit of verification in bytes.
	GroupSize = guts.ChunkSize << groupLog
	// pairSize is one node of the outboard: the hashes of two children.
	pairSize = 64
	// headSize is the length that outboards and slices begin with.
	headSize = 8
)

// Group is one verified group of a blob.
type Group struct {
	Index int64    // the group's first byte is Index*GroupSize
	Data  []byte   // GroupSize bytes, fewer in the last group
	Hash  [32]byte // the group's node in the tree; the digest itself in a blob of one group
}

// Groups is the number of groups of a blob of size bytes: 1 for an empty one.
func Groups(size int64) int64 {
	if size <= 0 {
		return 1
	}
	return (size-1)/GroupSize + 1
}

// OutboardSize is the size of the outboard of a blob of size bytes.
func OutboardSize(size int64) int64 { return headSize + (Groups(size)-1)*pairSize }

// split is the number of groups in the left subtree of n > 1 groups.
func split(n int64) int64 { return int64(1) << (bits.Len64(uint64(n-1)) - 1) }

// HashGroup is the hash of the group p at index, as Group.Hash has it; only
// says that it is the blob's only group, whose hash is the root.
func HashGroup(p []byte, index int64, only bool) [32]byte {
	n := compressGroup(p, uint64(index)<<groupLog)
	if only {
		n.Flags |= guts.FlagRoot
	}
	return toBytes(guts.ChainingValue(n))
}

// compressGroup hashes up to 64 chunks that begin at chunk number counter: four
// buffers of the size that the SIMD code takes at once, joined in pairs.
func compressGroup(p []byte, counter uint64) guts.Node {
	const step = guts.MaxSIMD * guts.ChunkSize
	if len(p) <= step {
		return compressBuffer(p, counter)
	}
	half := step
	if len(p) > 2*step {
		half = 2 * step
	}
	l := compressGroup(p[:half], counter)
	r := compressGroup(p[half:], counter+uint64(half/guts.ChunkSize))
	return guts.ParentNode(guts.ChainingValue(l), guts.ChainingValue(r), &guts.IV, 0)
}

func compressBuffer(p []byte, counter uint64) guts.Node {
	const step = guts.MaxSIMD * guts.ChunkSize
	if len(p) == step { // the common case, without a copy
		return guts.CompressBuffer((*[step]byte)(p), step, &guts.IV, counter, 0)
	}
	var buf [step]byte
	return guts.CompressBuffer(&buf, copy(buf[:], p), &guts.IV, counter, 0)
}

// joinNodes is the node above l and r.
func joinNodes(l, r [32]byte, root bool) [32]byte {
	var flags uint32
	if root {
		flags = guts.FlagRoot
	}
	return toBytes(guts.ChainingValue(guts.ParentNode(toWords(l), toWords(r), &guts.IV, flags)))
}

func toWords(b [32]byte) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}

func toBytes(w [8]uint32) (b [32]byte) {
	for i, v := range w {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	return b
}

// Encode computes the root and the outboard of a blob of size bytes from the
// hashes of all its groups, in order. It is how a blob that was assembled out
// of order is checked as a whole without reading it again. It panics when the
// number of hashes is not Groups(size), a mistake of the caller.
func Encode(size int64, hashes [][32]byte) (root [32]byte, outboard []byte) {
	if int64(len(hashes)) != Groups(size) {
		panic("cas: Encode called with the wrong number of groups")
	}
	out := make([]byte, OutboardSize(size))
	binary.LittleEndian.PutUint64(out, uint64(size))
	if len(hashes) == 1 {
		return hashes[0], out
	}
	var rec func(h [][32]byte, out []byte, top bool) [32]byte
	rec = func(h [][32]byte, out []byte, top bool) [32]byte {
		if len(h) == 1 {
			return h[0]
		}
		m := split(int64(len(h)))
		l := rec(h[:m], out[pairSize:], false)
		r := rec(h[m:], out[pairSize*m:], false)
		copy(out, l[:])
		copy(out[32:], r[:])
		return joinNodes(l, r, top)
	}
	return rec(hashes, out[headSize:], true), out
}

// CheckOutboard reports whether r, read from its beginning, is the outboard of
// the blob c, and returns the hashes of its groups. Nothing of the blob itself
// is read. ErrCorrupt when it is not. size is taken on trust: hash the last
// group to prove it.
func CheckOutboard(r io.Reader, c cid.Cid, size int64) ([][32]byte, error) {
	root, err := Digest(c)
	if err != nil {
		return nil, err
	}
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read outboard of %s: %w", c, err)
	}
	if got := binary.LittleEndian.Uint64(head[:]); got != uint64(size) {
		return nil, fmt.Errorf("outboard of %s is for %d bytes, not %d: %w", c, got, size, ErrCorrupt)
	}
	var hashes [][32]byte // grows with what arrives, not with what size claims
	var rec func(node [32]byte, n int64, top bool) error
	rec = func(node [32]byte, n int64, top bool) error {
		if n == 1 {
			hashes = append(hashes, node)
			return nil
		}
		var pair [pairSize]byte
		if _, err := io.ReadFull(r, pair[:]); err != nil {
			return fmt.Errorf("read outboard of %s: %w", c, err)
		}
		lh, rh := [32]byte(pair[:32]), [32]byte(pair[32:])
		if joinNodes(lh, rh, top) != node {
			return fmt.Errorf("outboard of %s: %w", c, ErrCorrupt)
		}
		if err := rec(lh, split(n), false); err != nil {
			return err
		}
		return rec(rh, n-split(n), false)
	}
	if err := rec(root, Groups(size), true); err != nil {
		return nil, err
	}
	return hashes, nil
}
