package httpgateway

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// caps counts open connections over all listeners.
type caps struct {
	slots chan struct{}
	each  int

	mu   sync.Mutex
	open map[string]int // by remote IP
}

func newCaps(total, each int) *caps {
	return &caps{slots: make(chan struct{}, total), each: each, open: map[string]int{}}
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
	caps *caps
	slow time.Duration
	done <-chan struct{}
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
			return &conn{TCPConn: tcp, slow: l.slow, release: func() {
				l.caps.leave(ip)
				<-l.caps.slots
			}}, nil
		}
		// The socket's buffer is empty, so this does not wait.
		_ = tcp.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(tcp, tooMany)
		_ = tcp.Close()
	}
}

func remoteIP(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// conn is a TCP connection with a deadline that moves with each piece
// written: a client that takes less than one piece in that time is cut off.
// ReadFrom stays that of *net.TCPConn, so files go out by sendfile.
type conn struct {
	*net.TCPConn
	slow    time.Duration
	once    sync.Once
	release func()
}

// piece is how much a client has to take within Config.SlowWrite.
const piece = 512 << 10

// Close gives the slot back, once.
func (c *conn) Close() error {
	c.once.Do(c.release)
	return c.TCPConn.Close()
}

// Write writes with a deadline per piece.
func (c *conn) Write(b []byte) (int, error) {
	var n int
	for {
		end := min(n+piece, len(b))
		if err := c.SetWriteDeadline(time.Now().Add(c.slow)); err != nil {
			return n, err
		}
		m, err := c.TCPConn.Write(b[n:end])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

// ReadFrom copies r with a deadline per piece; a file goes by sendfile.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	src, limit := r, int64(-1)
	lr, limited := r.(*io.LimitedReader)
	if limited {
		src, limit = lr.R, lr.N
	}
	var total int64
	for limit != 0 {
		part := io.LimitedReader{R: src, N: piece}
		if limit > 0 {
			part.N = min(piece, limit)
		}
		want := part.N
		if err := c.SetWriteDeadline(time.Now().Add(c.slow)); err != nil {
			return total, err
		}
		n, err := c.TCPConn.ReadFrom(&part)
		total += n
		if limited {
			lr.N -= n
			limit -= n
		}
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}
