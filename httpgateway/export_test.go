package httpgateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// ServeTelling serves l as Run does, and calls sent for every file that reached
// a connection as a file.
func (g *Gateway) ServeTelling(l net.Listener, sent func()) error {
	srv := &http.Server{
		Handler: g, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(telling).conn)
		},
	}
	return srv.Serve(tellingListener{&listener{Listener: l, caps: newCaps(10, 10), slow: time.Minute, buffers: newBuffers()}, sent})
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
