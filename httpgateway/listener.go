package httpgateway

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// caps counts open connections over all listeners.
type caps struct {
	slots chan struct{}
	each  int

	mu   sync.Mutex
	open map[string]int // by remote IP

	telling chan struct{}  // bounds those that are being told
	told    sync.WaitGroup // of them
}

func newCaps(total, each int) *caps {
	return &caps{slots: make(chan struct{}, total), each: each, open: map[string]int{}, telling: make(chan struct{}, 16)}
}

// enter counts a connection of ip, unless it has too many.
func (c *caps) enter(ip string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[ip] >= c.each {
		return false
	}
	c.open[ip]++
	return true
}

func (c *caps) leave(ip string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[ip]--; c.open[ip] <= 0 {
		delete(c.open, ip)
	}
}

// listener keeps the caps: beyond the total, connections wait in the kernel's
// queue until one closes (a client of ours would rather wait than fail);
// beyond the share of one address they are told and closed, so that one
// greedy client does not fill the queue.
type listener struct {
	net.Listener
	caps    *caps
	slow    time.Duration
	done    <-chan struct{}
	buffers *sync.Pool // of *[]byte, bufferSize each; shared by all connections of a Run

	// plain answers plain GETs (plainget.go); nil: net/http answers all.
	plain   func(c *conn, request []byte) (answered bool, err error)
	answers *sync.WaitGroup // of plain
	grace   time.Duration   // for one under way when the connection is closed
}

const tooMany = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 5\r\n" +
	"Connection: close\r\nContent-Length: 43\r\n\r\ntoo many connections from this one address\n"

// Accept waits for a slot, then for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.caps.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			<-l.caps.slots
			return nil, err
		}
		tcp, ok := nc.(*net.TCPConn)
		if !ok {
			<-l.caps.slots
			return nil, fmt.Errorf("accept on %s: not TCP", l.Addr())
		}
		ip := remoteIP(tcp)
		if l.caps.enter(ip) {
			return &conn{TCPConn: tcp, of: l, release: func() {
				l.caps.leave(ip)
				<-l.caps.slots
			}}, nil
		}
		l.caps.refuse(tcp)
	}
}

// refuse tells a client why it is not served, for a second at most. To close
// at once would reset the connection while its request is on the way, and
// take the answer with it. Under a flood it is closed all the same.
func (c *caps) refuse(tcp *net.TCPConn) {
	select {
	case c.telling <- struct{}{}:
	default:
		_ = tcp.Close()
		return
	}
	c.told.Add(1)
	go func() {
		defer func() {
			_ = tcp.Close()
			<-c.telling
			c.told.Done()
		}()
		_ = tcp.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(tcp, tooMany)
		_ = tcp.CloseWrite()
		_, _ = io.CopyN(io.Discard, tcp, maxHeader)
	}()
}

func remoteIP(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// conn is a TCP connection with a deadline that moves with each piece
// written: a client that takes less than one piece in that time is cut off.
// ReadFrom sends files by sendfile, together with the header that was held back
// for them; small ones are copied behind their header into one packet.
type conn struct {
	*net.TCPConn
	of      *listener
	release func()

	mu        sync.Mutex // of the next two, and of write deadlines
	answering bool       // a plain GET, of which net/http does not know
	closed    bool       // or asked to close when that is answered

	// Of the goroutine that reads.
	next    bool      // what is read next begins a request
	ended   bool      // what was read last ended as a request does
	early   bool      // a byte was read before the last answer was done
	waiting time.Time // when the deadline for the next request was moved last
	allowed string    // a Host that the gateway goes by

	// Of the goroutine that writes.
	holding  bool
	held     []byte          // a response header, until its body is there
	extended time.Time       // when the deadline was moved last
	raw      syscall.RawConn // nil until it is wanted
	probe    [1]byte
}

const (
	// piece is how much a client has to take within Config.SlowWrite.
	piece = 512 << 10
	// smallFile is the most that is copied rather than sent by sendfile.
	smallFile = 16 << 10
	// maxHeld is the most of a header that is held back.
	maxHeld = 8 << 10

	bufferSize = smallFile + maxHeld
)

func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, bufferSize)
		return &b
	}}
}

// hold keeps back what is written, up to a header's size, until ReadFrom or
// unhold. Only the goroutine that writes may call it.
func (c *conn) hold() { c.holding = true }

// unhold sends what is still held back.
func (c *conn) unhold() error {
	c.holding = false
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.write(c.held)
	c.held = c.held[:0]
	return err
}

// Close gives the slot back, once. A plain GET that is being answered has the
// time of grace.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	if c.answering {
		return c.SetWriteDeadline(time.Now().Add(c.of.grace))
	}
	return c.shut()
}

func (c *conn) shut() error {
	c.release()
	return c.TCPConn.Close()
}

// Write writes with a deadline per piece.
func (c *conn) Write(b []byte) (int, error) {
	if c.holding && len(c.held)+len(b) <= maxHeld {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	if err := c.unhold(); err != nil {
		return 0, err
	}
	return c.write(b)
}

func (c *conn) write(b []byte) (int, error) {
	var n int
	for {
		end := min(n+piece, len(b))
		if err := c.extend(); err != nil {
			return n, err
		}
		m, err := c.TCPConn.Write(b[n:end])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

// ReadFrom copies r with a deadline per piece.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	lr, limited := r.(*io.LimitedReader)
	if !limited {
		lr = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	var total int64
	if f, ok := lr.R.(*fileContent); ok && f.other == nil {
		var err error
		if lr.N <= smallFile {
			total, err = c.sendSmall(f, lr)
		} else {
			total, err = c.sendFile(f, lr)
		}
		if !errors.Is(err, errUnsent) {
			return total, err
		}
	}
	if err := c.unhold(); err != nil {
		return total, err
	}
	for lr.N > 0 {
		part := io.LimitedReader{R: lr.R, N: min(piece, lr.N)}
		want := part.N
		if err := c.extend(); err != nil {
			return total, err
		}
		n, err := c.TCPConn.ReadFrom(&part)
		total += n
		lr.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// extend gives the client its time for the next piece. The timer is moved only
// when an eighth of that has passed: it costs as much as a small write.
func (c *conn) extend() error {
	now := time.Now()
	if now.Sub(c.extended) < c.of.slow/8 {
		return nil
	}
	c.extended = now
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil // the deadline is the grace
	}
	return c.SetWriteDeadline(now.Add(c.of.slow))
}

// errUnsent: the system cannot send from this file by itself. Reading it shows
// whether it can be read.
var errUnsent = errors.New("file cannot be sent")

// sendFile sends what is held back and the file, piece by piece. A file that is
// shorter than lr says is sent as far as it goes. errUnsent leaves the rest, and
// what is held back, to be written.
func (c *conn) sendFile(f *fileContent, lr *io.LimitedReader) (int64, error) {
	var total int64
	head := c.held
	c.holding = false
	for lr.N > 0 {
		if err := c.extend(); err != nil {
			return total, err
		}
		at, want := f.place(f.off, min(piece, lr.N))
		h, n, err := c.sendPiece(head, f.f, at, want)
		head = head[h:]
		f.off += n
		lr.N -= n
		total += n
		if err != nil || n < want || n == 0 {
			c.held = c.held[:copy(c.held, head)]
			return total, err
		}
	}
	c.held = c.held[:0]
	return total, nil
}

// sendSmall writes what is held back and the file in one go. A file that is
// shorter than lr says is sent as far as it goes. errUnsent as with sendFile.
func (c *conn) sendSmall(f *fileContent, lr *io.LimitedReader) (int64, error) {
	p := c.of.buffers.Get().(*[]byte)
	defer c.of.buffers.Put(p)
	head := copy(*p, c.held)
	n, err := f.readAt((*p)[head:head+int(lr.N)], f.off)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return 0, errUnsent
	}
	c.held, c.holding = c.held[:0], false
	f.off += int64(n)
	lr.N -= int64(n)
	sent, werr := c.write((*p)[:head+n])
	return int64(max(0, sent-head)), werr
}
