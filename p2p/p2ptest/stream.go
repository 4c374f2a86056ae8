package p2ptest

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/build-swarm/swarm/p2p"
)

// window bounds the bytes on their way in one direction: a writer above it waits
// for the reader, as over TCP.
const window = 256 << 10

var (
	errReset   = errors.New("stream reset")
	errLinkCut = errors.New("stream reset: connection lost")
	errEnded   = errors.New("stream closed")
)

// stream is one end; in is what the other end wrote.
type stream struct {
	host *Host
	peer string
	in   *pipe
	out  *pipe
	twin *stream
}

var _ p2p.Stream = (*stream)(nil)

// newStreams makes both ends; the net is locked, so the latency is asked later.
func newStreams(a, b *Host) (at, bt *stream) {
	ab, ba := newPipe(), newPipe()
	at = &stream{host: a, peer: b.id, in: ba, out: ab}
	bt = &stream{host: b, peer: a.id, in: ab, out: ba}
	at.twin, bt.twin = bt, at
	return at, bt
}

// Context is done when the host at this end closes.
func (s *stream) Context() context.Context { return s.host.ctx }

func (s *stream) Peer() string               { return s.peer }
func (s *stream) Read(b []byte) (int, error) { return s.in.read(b) }

func (s *stream) Write(b []byte) (int, error) {
	d, ok := s.host.net.up(s.host.id, s.peer)
	if !ok {
		s.breakBoth(errLinkCut)
	}
	return s.out.write(b, d)
}

func (s *stream) CloseWrite() error {
	d, _ := s.host.net.up(s.host.id, s.peer)
	s.out.finish(d)
	return nil
}

func (s *stream) Close() error {
	err := s.CloseWrite()
	s.in.stopReading()
	s.forget()
	return err
}

func (s *stream) Reset() error {
	s.breakBoth(errReset)
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	s.in.setReadDeadline(t)
	s.out.setWriteDeadline(t)
	return nil
}

// breakBoth fails both directions at both ends.
func (s *stream) breakBoth(err error) {
	s.in.fail(err)
	s.out.fail(err)
	s.forget()
	s.twin.forget()
}

func (s *stream) forget() {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	delete(s.host.streams, s)
}

// pipe is one direction: segments that become readable when they have arrived.
type pipe struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	segments []segment
	size     int   // bytes in segments
	finished bool  // no more writes; the end has arrived with the last segment
	deaf     bool  // the reader has closed: writes vanish
	err      error // reset

	readUntil, writeUntil time.Time
}

type segment struct {
	data []byte
	at   time.Time
	eof  bool
}

func newPipe() *pipe { return &pipe{changed: make(chan struct{})} }

// wake tells all that wait; p is locked.
func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait releases p until something changes or until passes (the zero time never
// does), and locks it again.
func (p *pipe) wait(until time.Time) {
	c := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	if until.IsZero() {
		<-c
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	}
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.deaf:
			return 0, errEnded
		case passed(p.readUntil):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		until := p.readUntil
		if len(p.segments) > 0 {
			first := &p.segments[0]
			if !time.Now().Before(first.at) {
				if first.eof {
					return 0, io.EOF
				}
				return p.take(b), nil
			}
			if until.IsZero() || first.at.Before(until) {
				until = first.at
			}
		}
		p.wait(until)
	}
}

// take copies what has arrived of the first segment.
func (p *pipe) take(b []byte) int {
	first := &p.segments[0]
	n := copy(b, first.data)
	first.data = first.data[n:]
	p.size -= n
	if len(first.data) == 0 {
		p.segments = p.segments[1:]
	}
	p.wake()
	return n
}

func (p *pipe) write(b []byte, latency time.Duration) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := 0
	for {
		switch {
		case p.err != nil:
			return done, p.err
		case p.finished:
			return done, errEnded
		case passed(p.writeUntil):
			return done, os.ErrDeadlineExceeded
		case p.deaf || len(b) == done:
			return len(b), nil
		}
		if free := window - p.size; free > 0 {
			k := min(free, len(b)-done)
			p.push(segment{data: append([]byte(nil), b[done:done+k]...)}, latency)
			p.size += k
			done += k
			continue
		}
		p.wait(p.writeUntil)
	}
}

// push appends a segment; it never overtakes an earlier one.
func (p *pipe) push(s segment, latency time.Duration) {
	s.at = time.Now().Add(latency)
	if k := len(p.segments); k > 0 && s.at.Before(p.segments[k-1].at) {
		s.at = p.segments[k-1].at
	}
	p.segments = append(p.segments, s)
	p.wake()
}

func (p *pipe) finish(latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished || p.err != nil {
		return
	}
	p.finished = true
	p.push(segment{eof: true}, latency)
}

func (p *pipe) stopReading() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf, p.size = true, 0
	p.wake()
}

func (p *pipe) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil || p.deaf && p.finished {
		return
	}
	p.err, p.segments, p.size = err, nil, 0
	p.wake()
}

func (p *pipe) setReadDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readUntil = t
	p.wake()
}

func (p *pipe) setWriteDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writeUntil = t
	p.wake()
}
