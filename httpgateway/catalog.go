package httpgateway

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build/release"
)

// ErrNoRelease is what Catalog.Head wraps for a target that is not known or
// has no release yet.
var ErrNoRelease = errors.New("no release")

// Catalog is what the gateway serves from. Its methods are called from many
// goroutines; all but Open must return at once.
type Catalog interface {
	// Targets lists the targets that have a head, in any order.
	Targets() []string
	// Head returns the head of a channel and its release, or ErrNoRelease. The
	// manifest is not written to by either side; the gateway asks for it on
	// each request, so it must be at hand.
	Head(target, channel string) (release.Channel, *release.Manifest, error)
	// Available reports whether the blob is in the local store or with a peer
	// that is reachable now.
	Available(c cid.Cid) bool
	// Local opens a blob of the local store. cas.ErrNotFound, or another error,
	// when it is not here or cannot be read; Open is asked then. It returns at
	// once.
	Local(c cid.Cid) (LocalBlob, error)
	// Open opens a blob of size bytes: a LocalBlob where it is local, or else a
	// reader that streams verified bytes from the blob's holders, fails over
	// between them, and ends with ctx; its Seek is cheap. cas.ErrNotFound means
	// that nobody who is reachable holds it.
	Open(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error)
}

// LocalBlob is a blob that lies in a file.
type LocalBlob interface {
	io.ReadSeekCloser
	Size() int64 // bytes
	// File is what sendfile is given. Others may read it at the same time, so it
	// is not moved, and it is not closed.
	File() *os.File
	// Failed tells the store that File could not be read.
	Failed(error)
}
