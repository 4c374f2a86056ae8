package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// requestTimeout bounds a Request whose context has no deadline.
	requestTimeout = 30 * time.Second
	// serveTimeout bounds one answered request: reading, handling, replying.
	serveTimeout = 60 * time.Second
	// maxErrorText bounds the error text that crosses the network, in bytes.
	maxErrorText = 1024

	replyOK    = 0
	replyError = 1
)

// RemoteError is what the handler at the other end returned as an error.
type RemoteError struct {
	Peer, Proto string
	Text        string // what the peer said; at most 1 KiB, not to be trusted
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("peer %s answered %s: %s", e.Peer, e.Proto, e.Text)
}

// Request sends req to peer and returns its reply of at most max bytes, over a
// stream of its own. The peer must run Serve for proto. The error wraps what
// Network.Open's does, ErrTooLarge when the reply is above max, or is a
// *RemoteError when the handler itself failed. Without a deadline in ctx, 30 s
// is the bound.
func Request(ctx context.Context, n Network, peer, proto string, req []byte, max int) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		c, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		ctx = c
	}
	s, err := n.Open(ctx, peer, proto)
	if err != nil {
		return nil, err
	}
	// Cancelling must end a blocked read too, so it resets the stream.
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	reply, err := roundTrip(s, req, max)
	if err != nil {
		_ = s.Reset()
		if re, ok := errors.AsType[*RemoteError](err); ok {
			re.Peer, re.Proto = peer, proto
			return nil, re
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ask %s for %s: %w", peer, proto, err)
	}
	return reply, s.Close()
}

func roundTrip(s Stream, req []byte, max int) ([]byte, error) {
	if _, err := s.Write(frame(nil, req)); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(s)
	status, err := r.ReadByte()
	if err != nil {
		return nil, openError(unexpected(err))
	}
	if status == replyError {
		text, err := readFrame(r, maxErrorText)
		if err != nil {
			return nil, err
		}
		return nil, &RemoteError{Text: string(text)}
	}
	if status != replyOK {
		return nil, fmt.Errorf("reply begins with status %d", status)
	}
	return readFrame(r, max)
}

// Serve answers proto on n with h, one goroutine per request. A request above
// max bytes is refused. h's error travels as text to the peer; h's ctx ends
// after 60 s and when the host closes.
func Serve(n Network, proto string, max int, h func(ctx context.Context, from string, req []byte) ([]byte, error)) {
	n.Handle(proto, func(s Stream) {
		if err := answer(s, max, h); err != nil {
			_ = s.Reset() // the peer's fault or gone: it sees the reset, and there is nobody else to tell
		}
	})
}

func answer(s Stream, max int, h func(context.Context, string, []byte) ([]byte, error)) error {
	ctx, cancel := context.WithTimeout(streamContext(s), serveTimeout)
	defer cancel()
	if d, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(d); err != nil {
			return err
		}
	}
	req, err := readFrame(bufio.NewReader(s), max)
	var reply []byte
	if err == nil {
		reply, err = h(ctx, s.Peer(), req)
	} else if !errors.Is(err, ErrTooLarge) {
		return err
	}
	head := []byte{replyOK}
	if err != nil {
		text := err.Error()
		head, reply = []byte{replyError}, []byte(text[:min(len(text), maxErrorText)])
	}
	if _, err := s.Write(frame(head, reply)); err != nil {
		return err
	}
	return s.Close()
}

// streamContext is done when the host of s closes. Streams of a Network that
// does not offer it are bounded by serveTimeout alone.
func streamContext(s Stream) context.Context {
	if c, ok := s.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return context.Background()
}

func frame(head, b []byte) []byte {
	out := make([]byte, 0, len(head)+binary.MaxVarintLen64+len(b))
	out = append(out, head...)
	out = binary.AppendUvarint(out, uint64(len(b)))
	return append(out, b...)
}

// A frame is believed to come up to firstPart bytes, and then up to so many times
// what has come.
const (
	firstPart = 64 << 10
	believed  = 8
)

// readFrame reads one length and that many bytes. The buffer grows with what
// arrives, so that a peer which announces much and sends little costs little.
func readFrame(r *bufio.Reader, max int) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, unexpected(err)
	}
	if n > uint64(max) {
		return nil, fmt.Errorf("%d bytes announced, %d allowed: %w", n, max, ErrTooLarge)
	}
	var b []byte
	for size := min(int(n), firstPart); ; size = min(int(n), believed*size) {
		had := len(b)
		b = append(make([]byte, 0, size), b...)[:size]
		if _, err := io.ReadFull(r, b[had:]); err != nil {
			return nil, unexpected(err)
		}
		if size == int(n) {
			return b, nil
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
