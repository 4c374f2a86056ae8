package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/build-swarm/swarm/build/progress"
)

// toldLine is one line of the stream that a long request is answered with: steps as
// they come, then the reply or an error.
type toldLine[R any] struct {
	Step  *FreshStep     `json:"step,omitempty"`
	Going *progress.Step `json:"going,omitempty"`
	Reply *R             `json:"reply,omitempty"`
	Error *Error         `json:"error,omitempty"`
}

// told serves a request that tells its steps.
func told[Q, R any](mux *http.ServeMux, pattern string, f func(context.Context, Q, func(FreshStep)) (R, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var req Q
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&req); err != nil {
			fail(w, &Error{Kind: KindUsage, Message: "the request is not JSON: " + err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(&flushWriter{w: w})
		send := func(l toldLine[R]) { _ = enc.Encode(l) } // the client is gone when this fails
		ctx := progress.With(r.Context(), func(s progress.Step) { send(toldLine[R]{Going: &s}) })
		reply, err := f(ctx, req, func(s FreshStep) { send(toldLine[R]{Step: &s}) })
		if err == nil {
			send(toldLine[R]{Reply: &reply})
			return
		}
		send(toldLine[R]{Error: asError(err)})
	})
}

// steps asks for what tells its steps; say is called for each as it comes.
func steps[R any](ctx context.Context, c *Client, path string, req any, say func(FreshStep)) (reply R, err error) {
	res, err := c.do(ctx, path, req)
	if err != nil {
		return reply, err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(bufio.NewReader(res.Body))
	for {
		var l toldLine[R]
		if err := dec.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return reply, ctx.Err()
			}
			return reply, fmt.Errorf("read how it goes: %w", err)
		}
		switch {
		case l.Error != nil:
			return reply, l.Error
		case l.Reply != nil:
			return *l.Reply, nil
		case l.Step != nil:
			say(*l.Step)
		case l.Going != nil:
			progress.Tell(ctx, *l.Going)
		}
	}
}
