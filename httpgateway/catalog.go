package httpgateway

import (
	"context"
	"errors"
	"io"

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
	// Local opens a blob of the local store: an *os.File, or what has the method
	// File() *os.File. cas.ErrNotFound, or another error, when it is not here or
	// cannot be read; Open is asked then. It returns at once.
	Local(c cid.Cid) (io.ReadSeekCloser, error)
	// Open opens a blob of size bytes. What is local is an *os.File or has the
	// method File() *os.File, so that it goes out by sendfile. Anything else
	// is a reader that streams verified bytes from the blob's holders, fails
	// over between them, and ends with ctx; its Seek is cheap.
	// cas.ErrNotFound means that nobody who is reachable holds it.
	Open(ctx context.Context, c cid.Cid, size int64) (io.ReadSeekCloser, error)
}
