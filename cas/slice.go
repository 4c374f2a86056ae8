package cas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// Suffix as the offset of a slice means: the last n bytes, or the whole blob
// when it is shorter. Such a slice always proves the blob's size, so it is how
// a reader that knows the CID alone begins.
const Suffix int64 = -1

// ErrRange: a slice that does not lie within its blob.
var ErrRange = errors.New("range not within the blob")

// Bounds resolves (off, n) against a blob of size bytes: Suffix becomes an
// offset. A range that does not lie within the blob, or that is empty although
// the blob is not, is ErrRange.
func Bounds(size, off, n int64) (int64, int64, error) {
	if off == Suffix && n > 0 {
		n = min(n, size)
		off = size - n
	}
	if size < 0 || off < 0 || n < 0 || off > size || n > size-off || (n == 0 && size > 0) {
		return 0, 0, fmt.Errorf("%d bytes at %d of %d: %w", n, off, size, ErrRange)
	}
	return off, n, nil
}

// WriteSlice writes the slice of n bytes at off of a blob of size bytes to w:
// the length, then the nodes and the groups that the range touches, in
// pre-order. b and outboard must be the blob's; what they say is not checked
// here, since the reader of the slice checks all of it. Each group is one call
// of w.Write together with the nodes before it.
func WriteSlice(w io.Writer, b io.ReaderAt, outboard io.ReaderAt, size, off, n int64) error {
	off, n, err := Bounds(size, off, n)
	if err != nil {
		return err
	}
	s := sliceWriter{w: w, blob: b, outboard: outboard, size: size, off: off, end: off + n,
		buf: make([]byte, 0, headSize+64*pairSize+GroupSize)}
	s.buf = binary.LittleEndian.AppendUint64(s.buf, uint64(size))
	return s.node(0, Groups(size), headSize)
}

type sliceWriter struct {
	w              io.Writer
	blob, outboard io.ReaderAt
	size, off, end int64
	buf            []byte // nodes that wait for their group
}

// node writes the part of a subtree that lies in the slice. The subtree has n
// groups from first on, and its nodes begin at pos in the outboard.
func (s *sliceWriter) node(first, n, pos int64) error {
	if !within(first, n, s.size, s.off, s.end) {
		return nil
	}
	if n == 1 {
		return s.group(first)
	}
	i := len(s.buf)
	s.buf = s.buf[:i+pairSize]
	if _, err := readAt(s.outboard, s.buf[i:], pos); err != nil {
		return fmt.Errorf("read outboard at %d: %w", pos, err)
	}
	m := split(n)
	if err := s.node(first, m, pos+pairSize); err != nil {
		return err
	}
	return s.node(first+m, n-m, pos+pairSize*m)
}

func (s *sliceWriter) group(index int64) error {
	at := index * GroupSize
	i := len(s.buf)
	s.buf = s.buf[:i+int(min(GroupSize, s.size-at))]
	if _, err := readAt(s.blob, s.buf[i:], at); err != nil {
		return fmt.Errorf("read blob at %d: %w", at, err)
	}
	_, err := s.w.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

// within reports whether a subtree touches [off, end). The only group of an
// empty blob always does: it is what proves the blob empty.
func within(first, n, size, off, end int64) bool {
	lo := first * GroupSize
	hi := size
	if n < Groups(size)-first {
		hi = (first + n) * GroupSize
	}
	return size == 0 || lo < end && off < hi
}

// readAt is ReadAt that does not report io.EOF with a full buffer.
func readAt(r io.ReaderAt, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// SliceReader reads a slice and verifies each group before it hands it out.
// Read yields exactly the bytes asked for, Next whole groups; use one of them.
// It reads no byte beyond the slice. Errors: ErrCorrupt when the slice is not
// of this blob, ErrRange when the blob (by the size it claims) has no such
// range, io.ErrUnexpectedEOF when it is cut short, otherwise the source's. Once
// it has failed it stays failed. Not for several goroutines.
type SliceReader struct {
	r      io.Reader
	c      cid.Cid
	root   [32]byte
	off, n int64 // as asked for, then resolved by Size

	size   int64 // claimed; -1 before the head was read
	proven bool
	todo   []treeNode // the way back up; at most one entry a level
	buf    []byte
	rest   []byte // verified, not yet taken by Read
	err    error
}

type treeNode struct {
	hash     [32]byte
	first, n int64 // groups
}

// NewSliceReader reads the slice of n bytes at off (or Suffix) of the blob c
// from r. ErrBadCID is the only error.
func NewSliceReader(r io.Reader, c cid.Cid, off, n int64) (*SliceReader, error) {
	root, err := Digest(c)
	if err != nil {
		return nil, err
	}
	return &SliceReader{r: r, c: c, root: root, off: off, n: n, size: -1}, nil
}

// Size is the size of the blob as the slice claims it; it reads the slice's
// head when that was not read yet. It is true once Proven.
func (s *SliceReader) Size() (int64, error) {
	if s.size >= 0 {
		return s.size, nil
	}
	if s.err != nil {
		return -1, s.err
	}
	var head [headSize]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return -1, s.fail(fmt.Errorf("read slice of %s: %w", s.c, short(err)))
	}
	size := int64(binary.LittleEndian.Uint64(head[:]))
	if size < 0 {
		return -1, s.fail(fmt.Errorf("slice of %s claims a size above 2^63: %w", s.c, ErrCorrupt))
	}
	off, n, err := Bounds(size, s.off, s.n)
	if err != nil {
		return -1, s.fail(fmt.Errorf("slice of %s: %w", s.c, err))
	}
	s.size, s.off, s.n = size, off, n
	s.todo = append(s.todo, treeNode{s.root, 0, Groups(size)})
	return size, nil
}

// Proven reports whether the last group was verified, and with it the size.
func (s *SliceReader) Proven() bool { return s.proven }

// Offset is the blob's offset of the first byte that Read yields, once Size
// has succeeded.
func (s *SliceReader) Offset() int64 { return s.off }

// Next returns the next group, whole, also where the slice begins or ends in
// its middle; io.EOF after the last one. Data is valid until the next call.
func (s *SliceReader) Next() (Group, error) {
	if _, err := s.Size(); err != nil {
		return Group{}, err
	}
	if s.err != nil {
		return Group{}, s.err
	}
	for len(s.todo) > 0 {
		t := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		if !within(t.first, t.n, s.size, s.off, s.off+s.n) {
			continue
		}
		if t.n == 1 {
			return s.group(t)
		}
		if err := s.descend(t); err != nil {
			return Group{}, err
		}
	}
	return Group{}, s.fail(io.EOF)
}

// descend verifies the two children of a node and puts them on the stack.
func (s *SliceReader) descend(t treeNode) error {
	var pair [pairSize]byte
	if _, err := io.ReadFull(s.r, pair[:]); err != nil {
		return s.fail(fmt.Errorf("read slice of %s: %w", s.c, short(err)))
	}
	l, r := [32]byte(pair[:32]), [32]byte(pair[32:])
	if joinNodes(l, r, t.n == Groups(s.size)) != t.hash {
		return s.fail(fmt.Errorf("slice of %s, node above group %d: %w", s.c, t.first, ErrCorrupt))
	}
	m := split(t.n)
	s.todo = append(s.todo, treeNode{r, t.first + m, t.n - m}, treeNode{l, t.first, m})
	return nil
}

func (s *SliceReader) group(t treeNode) (Group, error) {
	if s.buf == nil {
		s.buf = make([]byte, min(GroupSize, s.size))
	}
	p := s.buf[:min(GroupSize, s.size-t.first*GroupSize)]
	if _, err := io.ReadFull(s.r, p); err != nil {
		return Group{}, s.fail(fmt.Errorf("read slice of %s: %w", s.c, short(err)))
	}
	groups := Groups(s.size)
	if HashGroup(p, t.first, groups == 1) != t.hash {
		return Group{}, s.fail(fmt.Errorf("slice of %s, group %d: %w", s.c, t.first, ErrCorrupt))
	}
	if t.first == groups-1 {
		s.proven = true
	}
	return Group{Index: t.first, Data: p, Hash: t.hash}, nil
}

// Read yields the verified bytes of the range, then io.EOF.
func (s *SliceReader) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		g, err := s.Next()
		if err != nil {
			return 0, err
		}
		at := g.Index * GroupSize
		lo := max(s.off-at, 0)
		hi := min(s.off+s.n-at, int64(len(g.Data)))
		s.rest = g.Data[lo:hi]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *SliceReader) fail(err error) error {
	s.err = err
	s.todo = nil
	return err
}

func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
