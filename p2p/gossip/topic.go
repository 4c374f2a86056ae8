package gossip

import "context"

const (
	// MaxMessage bounds a message, in bytes.
	MaxMessage = 64 << 10
	// QueueLen bounds the messages that wait for Next; what comes on top of it
	// is dropped.
	QueueLen = 1024
)

// Verdict is what a validator says of a message.
type Verdict int

const (
	// Accept delivers the message and passes it on.
	Accept Verdict = iota
	// Ignore drops it silently: not new, not of interest, too much at the moment.
	Ignore
	// Reject drops it as wrong: its sender should not have passed it on.
	Reject
)

// Message is one received message.
type Message struct {
	From string // peer ID of the neighbour it came from, not necessarily its author
	Data []byte // at most MaxMessage bytes; the receiver's own
}

// Topic is one joined topic. Publish may be called from any goroutine; Next from
// one at a time.
type Topic interface {
	// Publish sends data to the swarm. Above MaxMessage it fails with
	// p2p.ErrTooLarge; after the end of the topic with p2p.ErrClosed. nil means
	// handed to the network, not that anybody got it; a swarm of one is no error.
	Publish(ctx context.Context, data []byte) error
	// Next waits for the next message of another peer. The error is ctx's, or
	// p2p.ErrClosed at the end of the topic.
	Next(ctx context.Context) (Message, error)
	// Close leaves the topic and ends its goroutines.
	Close() error
}

// Validator judges a message before it is delivered and passed on. It is called
// from several goroutines, must be quick, and must not keep data. nil accepts all.
type Validator func(from string, data []byte) Verdict
