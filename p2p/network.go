package p2p

import (
	"errors"
	"io"
	"time"

	"context"
)

// Errors that callers branch on. Every one comes wrapped in what was attempted
// on which peer.
var (
	// ErrUnreachable: no connection to the peer, and none could be made.
	ErrUnreachable = errors.New("peer not reachable")
	// ErrNoProtocol: the peer is there and does not speak the protocol.
	ErrNoProtocol = errors.New("peer does not speak this protocol")
	// ErrTooLarge: a request, a reply or a message is larger than its bound.
	ErrTooLarge = errors.New("larger than the limit")
	// ErrClosed: this host (or topic) was closed.
	ErrClosed = errors.New("network closed")
)

// Stream is one ordered, reliable, authenticated byte stream to a peer.
//
// Read and Write may run at the same time, from two goroutines. Every stream
// ends with Close or Reset; a stream that is only dropped leaks until the
// connection ends.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite tells the other side that no more bytes come (it reads
	// io.EOF after the last of them). Reading goes on.
	CloseWrite() error
	// Close ends both directions. Bytes written before it still arrive.
	Close() error
	// Reset ends both directions at once; the other side gets an error that is
	// not io.EOF.
	Reset() error
	// SetDeadline bounds Read and Write; the zero time removes the bound. An
	// exceeded deadline is os.ErrDeadlineExceeded (or a net.Error whose Timeout
	// is true), and the stream may be used again with a later one.
	SetDeadline(t time.Time) error
	// Peer is the peer ID at the other end.
	Peer() string
}

// Network is a peer's view of its swarm. All methods may be called at any time
// from any goroutine.
type Network interface {
	// Self is this peer's ID.
	Self() string
	// Peers lists the peers connected now, sorted, without Self.
	Peers() []string
	// Open opens a stream to peer, dialling it when it is known and not
	// connected. The error wraps ErrUnreachable, ErrNoProtocol, ErrClosed, or
	// ctx's. ctx bounds the opening, not the life of the stream. ErrNoProtocol
	// may come from the first Read instead.
	Open(ctx context.Context, peer, proto string) (Stream, error)
	// Handle sets the handler of a protocol; nil removes it. h runs on its own
	// goroutine, owns the stream and must Close or Reset it. A peer cannot make
	// it outlive the host: Close resets the stream.
	Handle(proto string, h func(Stream))
	// Watch returns a signal that fires after the set of connected peers has
	// changed. Signals coalesce: read Peers on each. Every call makes a channel
	// that lives as long as the Network, for one receiver: call it once per
	// loop, not once per turn.
	Watch() <-chan struct{}
}
