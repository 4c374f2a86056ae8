package cas

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
)

// Errors that callers branch on; they come wrapped in what was attempted on
// which blob.
var (
	// ErrNotFound: the store does not hold the blob.
	ErrNotFound = errors.New("blob not found")
	// ErrCorrupt: bytes do not hash to the name they came under.
	ErrCorrupt = errors.New("blob does not match its CID")
	// ErrBadCID: not a CIDv1, raw, BLAKE3-256.
	ErrBadCID = errors.New("not a blob CID")
	// ErrFull: no room, by the quota or by the disk.
	ErrFull = errors.New("blob store is full")
)

// Info is what a store knows of a blob it holds.
type Info struct {
	CID  cid.Cid
	Size int64 // bytes
}

// Blob is an open blob. It is not for use from several goroutines, except
// ReadAt. A blob that lies in a file also has `File() *os.File`, so that HTTP
// can hand the descriptor to sendfile.
type Blob interface {
	io.ReadSeeker
	io.ReaderAt
	io.Closer
	Size() int64
}

// Outboard is the open outboard of a blob: see WriteSlice.
type Outboard interface {
	io.ReaderAt
	io.Closer
}

// Store keeps blobs. Its methods may be called from any goroutine.
type Store interface {
	// Stat reports a blob that the store holds, or ErrNotFound. It does not
	// read the blob.
	Stat(c cid.Cid) (Info, error)
	// Open opens a blob. ErrNotFound, or ErrCorrupt when the store found out
	// that its copy is damaged (it is not held any more then).
	Open(c cid.Cid) (Blob, error)
	// Put stores what r yields until EOF. With want defined, anything else is
	// ErrCorrupt and nothing is kept; with cid.Undef the blob is stored under
	// the name it hashes to. What Put acknowledges is durable. Putting a blob
	// that is held already changes nothing and need not read r.
	Put(ctx context.Context, r io.Reader, want cid.Cid) (Info, error)
	// Delete removes a blob; one that is not held is not an error. Blobs that
	// are open stay readable.
	Delete(c cid.Cid) error
	// All yields the blobs that were held when it was called, in any order.
	All() iter.Seq2[Info, error]
}

// Source is a Store that can serve verified slices.
type Source interface {
	Store
	// Outboard opens the outboard of a blob the store holds, or ErrNotFound.
	Outboard(c cid.Cid) (Outboard, error)
}

// Assembler is a Store that takes a blob in verified groups, in any order.
type Assembler interface {
	Store
	// Assemble begins, or takes up again, the blob c of size bytes. One
	// Partial of a blob is open at a time; a second Assemble is ErrBusy.
	// ErrFull when there is no room for it.
	Assemble(c cid.Cid, size int64) (Partial, error)
}

// ErrBusy: the blob is being assembled by somebody else in this process.
var ErrBusy = errors.New("blob is being assembled already")

// Partial is a blob on its way in. Its methods may be called from several
// goroutines. Exactly one of Commit, Close and Abort ends it.
type Partial interface {
	// Has reports whether a group is here already.
	Has(group int64) bool
	// WriteGroup stores one group that a SliceReader verified.
	WriteGroup(g Group) error
	// Commit makes the blob part of the store, durably. It recomputes the CID
	// from the groups' hashes: a group missing or of another blob is
	// ErrCorrupt, and the partial is gone.
	Commit() (Info, error)
	// Close keeps what is here for a later Assemble of the same blob.
	Close() error
	// Abort forgets what is here.
	Abort() error
}
