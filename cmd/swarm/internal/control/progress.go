package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/build-swarm/swarm/build/progress"
)

// withProgress is the form of an answer whose lines say how far it is, before
// the last one is the answer itself or the error. A client asks for it when
// somebody listens (progress.With).
const withProgress = "application/x-ndjson"

// line is one line of it; one of the three is there.
type line struct {
	Step  *progress.Step  `json:"step,omitempty"`
	Reply json.RawMessage `json:"reply,omitempty"`
	Error *Error          `json:"error,omitempty"`
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: KindInternal, Message: err.Error()}
}

// stream answers with progress. The client is gone when a line cannot be
// written; there is nobody to tell.
func stream(w http.ResponseWriter, r *http.Request, f func(*http.Request) (any, error)) {
	w.Header().Set("Content-Type", withProgress)
	enc := json.NewEncoder(&flushWriter{w: w})
	var mu sync.Mutex // steps are told from many goroutines
	send := func(l line) {
		mu.Lock()
		defer mu.Unlock()
		_ = enc.Encode(l)
	}
	v, err := f(r.WithContext(progress.With(r.Context(), func(s progress.Step) { send(line{Step: &s}) })))
	var last line
	if err == nil {
		last.Reply, err = json.Marshal(v)
	}
	if err != nil {
		last = line{Error: asError(err)}
	}
	send(last)
}

// follow reads such an answer and tells the context its steps.
func follow[T any](ctx context.Context, body io.Reader, path string) (v T, err error) {
	for dec := json.NewDecoder(body); ; {
		var l line
		if err := dec.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return v, context.Cause(ctx)
			}
			return v, fmt.Errorf("read how %s goes: %w", path, err)
		}
		switch {
		case l.Error != nil:
			return v, l.Error
		case l.Reply != nil:
			if err := json.Unmarshal(l.Reply, &v); err != nil {
				return v, fmt.Errorf("read the daemon's answer to %s: %w", path, err)
			}
			return v, nil
		case l.Step != nil:
			progress.Tell(ctx, *l.Step)
		}
	}
}
