package httpgateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// ParsePlain is parsePlain.
func ParsePlain(b []byte) (path, host string, ok bool) {
	p, h, ok := parsePlain(b)
	return string(p), string(h), ok
}

// ServeTelling serves l as Run does. It calls sent for every file that reached a
// connection as a file, and plain for every plain GET.
func (g *Gateway) ServeTelling(l net.Listener, sent, plain func()) error {
	srv := &http.Server{
		Handler: g, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(telling).conn)
		},
		ConnState: func(c net.Conn, s http.ConnState) { c.(telling).state(s) },
	}
	return srv.Serve(tellingListener{&listener{
		Listener: l, caps: newCaps(10, 10), slow: time.Minute, buffers: newBuffers(), answers: &sync.WaitGroup{}, grace: time.Second,
		plain: func(c *conn, request []byte) (bool, error) {
			answered, err := g.answerPlain(context.Background(), c, request)
			if answered {
				plain()
			}
			return answered, err
		},
	}, sent})
}

type tellingListener struct {
	*listener
	sent func()
}

func (l tellingListener) Accept() (net.Conn, error) {
	c, err := l.listener.Accept()
	if err != nil {
		return nil, err
	}
	return telling{c.(*conn), l.sent}, nil
}

type telling struct {
	*conn
	sent func()
}

func (c telling) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*fileContent); ok {
			c.sent()
		}
	}
	return c.conn.ReadFrom(r)
}
