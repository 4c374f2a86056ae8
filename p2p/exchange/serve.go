package exchange

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/p2p"
	"golang.org/x/time/rate"
)

const (
	// peerStreams and allStreams bound what is served at once, 70 KiB each: a
	// fetch uses one stream, a download through a gateway too.
	peerStreams = 64
	allStreams  = 256
	// idleAfter is how long a stream may wait for the next request.
	idleAfter = 2 * time.Minute
	// writeAfter bounds the sending of one group. A streaming reader may pause
	// (a person's emerge on a slow disk), and gets a new stream when it was
	// longer than this.
	writeAfter = 2 * time.Minute
)

// Server answers the protocol from a store. Its methods may be called from any
// goroutine.
type Server struct {
	src   cas.Source
	log   *slog.Logger
	limit atomic.Pointer[rate.Limiter] // nil: none

	mu     sync.Mutex
	busy   map[string]int // streams by peer
	all    int
	served Served
}

// Served counts what a Server has done since it was made.
type Served struct {
	Slices, Bytes int64 // Bytes as sent, with the proofs
	Refused       int64 // not held, busy or failed
}

// Serve answers requests for blobs on n from src until n closes. log nil
// discards.
func Serve(n p2p.Network, src cas.Source, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{src: src, log: log, busy: map[string]int{}}
	n.Handle(Protocol, s.Handle)
	return s
}

// Limit bounds what all peers together take, in bytes per second; 0 lifts it.
// Streams that are under way follow.
func (s *Server) Limit(perSecond int64) { s.limit.Store(limiter(perSecond)) }

// Served returns the counts so far.
func (s *Server) Served() Served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// Handle answers on one stream, wherever it came from.
func (s *Server) Handle(st p2p.Stream) {
	ok := s.enter(st.Peer())
	if ok {
		defer s.leave(st.Peer())
	}
	for {
		err := s.answer(st, ok)
		if errors.Is(err, io.EOF) || errors.Is(err, errRefused) {
			_ = st.Close() // the peer is done, or gone: nobody to tell
			return
		}
		if err != nil {
			s.log.Debug("blob stream ends early", "peer", st.Peer(), "err", err)
			_ = st.Reset()
			return
		}
	}
}

func (s *Server) enter(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[peer] >= peerStreams || s.all >= allStreams {
		return false
	}
	s.busy[peer]++
	s.all++
	return true
}

func (s *Server) leave(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[peer]--; s.busy[peer] == 0 {
		delete(s.busy, peer)
	}
	s.all--
}

// answer reads and answers one request. io.EOF means that there is none.
func (s *Server) answer(st p2p.Stream, accepted bool) error {
	if err := st.SetDeadline(time.Now().Add(idleAfter)); err != nil {
		return err
	}
	q, err := readRequest(st)
	if errors.Is(err, errRequest) {
		return s.refuse(st, statusBadRequest)
	}
	if err != nil {
		return err
	}
	if !accepted {
		return s.refuse(st, statusBusy)
	}
	if q.op == opHas {
		return s.has(st, q)
	}
	return s.get(st, q)
}

// errRefused ends a stream in order, so that the answer still arrives.
var errRefused = errors.New("request refused")

// refuse answers with code. After "not held" the stream goes on.
func (s *Server) refuse(st p2p.Stream, code status) error {
	s.mu.Lock()
	s.served.Refused++
	s.mu.Unlock()
	if _, err := st.Write([]byte{byte(code)}); err != nil || code == statusNotHeld {
		return err
	}
	return errRefused
}

func (s *Server) has(st p2p.Stream, q request) error {
	info, err := s.src.Stat(q.cid)
	if errors.Is(err, cas.ErrNotFound) {
		return s.refuse(st, statusNotHeld)
	}
	if err != nil {
		s.log.Warn("blob cannot be served", "cid", q.cid, "err", err)
		return s.refuse(st, statusFailed)
	}
	_, err = st.Write(binary.BigEndian.AppendUint64([]byte{byte(statusOK)}, uint64(info.Size)))
	return err
}

func (s *Server) get(st p2p.Stream, q request) error {
	b, err := s.src.Open(q.cid)
	if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
		return s.refuse(st, statusNotHeld)
	}
	if err != nil {
		s.log.Warn("blob cannot be served", "cid", q.cid, "err", err)
		return s.refuse(st, statusFailed)
	}
	defer b.Close() // only read
	if _, _, err := cas.Bounds(b.Size(), q.off, q.n); err != nil {
		return s.refuse(st, statusBadRequest)
	}
	out, err := s.src.Outboard(q.cid)
	if err != nil {
		s.log.Warn("blob cannot be served", "cid", q.cid, "err", err)
		return s.refuse(st, statusFailed)
	}
	defer out.Close() // only read
	w := &paced{st: st, limit: &s.limit, first: true}
	err = cas.WriteSlice(w, b, out, b.Size(), q.off, q.n)
	s.mu.Lock()
	s.served.Slices++
	s.served.Bytes += w.sent
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("send %s: %w", q.cid, err)
	}
	return nil
}

// paced writes a slice to a stream: the status goes with the first group, and
// each group has its own deadline.
type paced struct {
	st    p2p.Stream
	limit *atomic.Pointer[rate.Limiter]
	first bool
	sent  int64
}

func (w *paced) Write(p []byte) (int, error) {
	ctx, cancel := context.WithTimeout(streamContext(w.st), writeAfter)
	defer cancel()
	if err := pace(ctx, w.limit.Load(), len(p)); err != nil {
		return 0, err
	}
	if err := w.st.SetDeadline(time.Now().Add(writeAfter)); err != nil {
		return 0, err
	}
	if w.first {
		w.first = false
		if _, err := w.st.Write([]byte{byte(statusOK)}); err != nil {
			return 0, err
		}
	}
	n, err := w.st.Write(p)
	w.sent += int64(n)
	return n, err
}

// streamContext ends with the host of a stream that has one.
func streamContext(s p2p.Stream) context.Context {
	if c, ok := s.(interface{ Context() context.Context }); ok {
		return c.Context()
	}
	return context.Background()
}
