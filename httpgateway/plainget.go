package httpgateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/build-swarm/swarm/build/release"
)

// A plain GET asks for all of one small package of this machine's store, with
// no header that changes the answer, and is not the first request of its
// connection. It is answered where net/http waits for the next request, in
// conn.Read, and net/http never sees it: its part of such a request costs twice
// what the kernel's does. Every other request, and whatever is in doubt, goes to
// net/http as it came.

// maxPlain bounds the packages that plain GETs are answered with: in a larger
// one net/http's part does not show, and it knows how to shut down.
const maxPlain = 1 << 20

// parsePlain reads a plain GET. b has to be all of it; not ok means nothing but
// that net/http should look at it.
func parsePlain(b []byte) (path, host []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("GET /"))
	if !ok {
		return nil, nil, false
	}
	line, b, _ := bytes.Cut(b, []byte("\r\n"))
	if path, ok = bytes.CutSuffix(line, []byte(" HTTP/1.1")); !ok || bytes.IndexByte(path, ' ') >= 0 {
		return nil, nil, false
	}
	for {
		line, b, ok = bytes.Cut(b, []byte("\r\n"))
		if !ok {
			return nil, nil, false // cut off
		}
		if len(line) == 0 {
			return path, host, len(b) == 0 && len(host) > 0
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		if !printable(value) {
			return nil, nil, false
		}
		switch {
		case equalFold(name, "Host") && host == nil:
			host = value
		case equalFold(name, "User-Agent"), equalFold(name, "Accept"), equalFold(name, "Accept-Encoding"), equalFold(name, "Accept-Language"):
		case equalFold(name, "Connection") && equalFold(value, "keep-alive"):
		default:
			return nil, nil, false
		}
	}
}

// equalFold compares with ASCII text and allocates nothing.
func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && bytes.EqualFold(b, []byte(s))
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 0
}

// answerPlain answers a plain GET. What it leaves untouched is net/http's.
func (g *Gateway) answerPlain(ctx context.Context, c *conn, request []byte) (answered bool, err error) {
	path, host, ok := parsePlain(request)
	if !ok {
		return false, nil
	}
	if string(host) != c.allowed {
		name := string(host)
		if !g.allowed(name) {
			return false, nil
		}
		c.allowed = name
	}
	target, rest, _ := bytes.Cut(path, []byte("/"))
	name, ok := bytes.CutPrefix(rest, []byte(release.Stable+"/"))
	if !ok {
		return false, nil
	}
	g.mu.Lock()
	ch := g.channels[string(target)]
	g.mu.Unlock()
	if ch == nil || ch.shadowed {
		return false, nil
	}
	k, ok := ch.paths.Load().find(string(name))
	if !ok || k.item.Size > maxPlain {
		return false, nil
	}
	b, err := g.cfg.Catalog.Local(k.cid)
	if err != nil {
		return false, nil
	}
	defer func() { _ = b.Close() }() // read only
	if b.Size() != k.item.Size || !c.begin() {
		return false, nil
	}
	start := time.Now()
	content, done := g.localContent(ctx, b, &k)
	c.held = k.appendHeader(c.held[:0], start)
	sent, err := c.ReadFrom(&io.LimitedReader{R: content, N: k.item.Size})
	done()
	g.stats.local.Add(1)
	g.stats.packageBytes.Add(uint64(sent))
	if g.log.Enabled(ctx, slog.LevelDebug) {
		g.log.Debug("request", "method", http.MethodGet, "path", "/"+string(path), "from", c.RemoteAddr().String(),
			"status", http.StatusOK, "bytes", sent, "took", time.Since(start))
	}
	if err == nil && sent < k.item.Size {
		err = io.ErrUnexpectedEOF // the connection closes, and the client knows
	}
	return true, errors.Join(err, c.end())
}

// appendHeader appends the header that net/http and serveLocal give this
// package.
func (k *known) appendHeader(b []byte, now time.Time) []byte {
	b = append(b, "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nCache-Control: "...)
	b = append(b, immutable[0]...)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, k.item.Size, 10)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, tarType[0]...)
	b = append(b, "\r\nDate: "...)
	b = now.UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\nEtag: "...)
	b = append(b, k.etag...)
	b = append(b, "\r\nLast-Modified: "...)
	b = time.Unix(k.item.MTime, 0).UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\nX-Content-Type-Options: "...)
	b = append(b, nosniff[0]...)
	return append(b, "\r\n\r\n"...)
}

// Read reads for net/http. Where that waits for the next request, plain GETs
// are answered first.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 1 { // net/http looks out for a client that goes
		n, err := c.TCPConn.Read(p)
		c.early = c.early || n == 1
		return n, err
	}
	for {
		n, err := c.TCPConn.Read(p)
		if c.next && err == nil {
			var answered bool
			if answered, err = c.of.plain(c, p[:n]); err != nil {
				return 0, err
			}
			if answered {
				if err := c.waitOn(); err != nil {
					return 0, err
				}
				continue
			}
		}
		c.next, c.ended = false, bytes.HasSuffix(p[:n], []byte("\r\n\r\n"))
		return n, err
	}
}

// state is told by net/http, in the goroutine that reads. Idle means that what is
// read next begins a request, unless net/http has bytes of it already.
func (c *conn) state(s http.ConnState) {
	if s == http.StateIdle {
		c.next = c.ended && !c.early && c.of.plain != nil
		c.early = false
	}
}

// waitOn gives the client the time that net/http gives it for its next request.
func (c *conn) waitOn() error {
	now := time.Now()
	if now.Sub(c.waiting) < idle/8 {
		return nil
	}
	c.waiting = now
	return c.SetReadDeadline(now.Add(idle))
}

// begin marks an answer that net/http knows nothing of; false when the
// connection is closed already. end belongs to it.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.answering = true
	c.of.answers.Add(1)
	return true
}

// end closes the connection if that was asked for meanwhile.
func (c *conn) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answering = false
	c.of.answers.Done()
	if c.closed {
		return errors.Join(net.ErrClosed, c.shut())
	}
	return nil
}
