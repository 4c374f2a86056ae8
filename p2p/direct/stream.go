package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// stream is a TLS connection as a p2p.Stream. Unlike one of libp2p's it cannot be
// written to again after a deadline has passed, which nobody does.
type stream struct {
	*tls.Conn
	ctx  context.Context // done when the carrier stops
	peer string
	may  func(peer string) bool // nil on the side that dialled
}

var errBanned = errors.New("the peer may not be served any more")

func (s *stream) Peer() string { return s.peer }

// Context is done when the carrier stops.
func (s *stream) Context() context.Context { return s.ctx }

// Read asks first whether the peer may still be served: it comes with a request.
func (s *stream) Read(b []byte) (int, error) {
	if s.may != nil && !s.may(s.peer) {
		return 0, errBanned
	}
	return s.Conn.Read(b)
}

// Reset cuts the connection; what was written and not sent yet is gone.
func (s *stream) Reset() error {
	if tcp, ok := s.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed either way
	}
	return s.NetConn().Close()
}
