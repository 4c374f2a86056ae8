package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net/http"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

const (
	// beat is how often a stream says that it lives.
	beat = 20 * time.Second
	// restFactor bounds what keeping a page up to date costs: rendering takes
	// 1 of 250 of the time, and the snapshot has a bound of its own.
	restFactor = 250
	minRest    = 500 * time.Millisecond
	maxRest    = 20 * time.Second
	// maxCached is how many live pages are kept for whoever looks at the same.
	maxCached = 64
)

// made is a page's sections as one snapshot shows them.
type made struct {
	detail *view.Detail
	body   []rendered
	err    error
	took   time.Duration
}

// sections makes a live page's sections, once for all who look at it.
func (u *UI) sections(r *http.Request, d *view.Detail, of func(*http.Request, *view.Detail) (*page, error)) *made {
	key := r.URL.RequestURI()
	u.mu.Lock()
	m := u.cache[key]
	u.mu.Unlock()
	if m != nil && m.detail == d {
		return m
	}
	start := time.Now()
	m = &made{detail: d}
	p, err := of(r, d)
	if err == nil {
		m.body, err = u.render(p)
	}
	m.err, m.took = err, time.Since(start)
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.cache) >= maxCached {
		clear(u.cache)
	}
	u.cache[key] = m
	return m
}

// stream sends the sections of a page that changed, as long as somebody looks.
// The first message names the build of the page, so that one that an older
// daemon made reloads itself.
func (u *UI) stream(w http.ResponseWriter, r *http.Request, of func(*http.Request, *view.Detail) (*page, error)) {
	ctx := r.Context()
	changed, end := u.cfg.Source.Watch()
	defer end()
	s := newStream(w)
	sent := map[string]uint64{}
	seed := maphash.MakeSeed()
	if !s.event("hello", u.build) {
		return
	}
	alive := time.NewTicker(beat)
	defer alive.Stop()
	d, err := u.cfg.Source.Latest(ctx)
	for err == nil {
		m := u.sections(r, d, of)
		if m.err != nil {
			break // the page says why when it is loaded again
		}
		news := map[string]string{}
		for _, x := range m.body {
			if h := maphash.String(seed, string(x.HTML)); sent[x.ID] != h {
				sent[x.ID] = h
				news[x.ID] = string(x.HTML)
			}
		}
		if len(news) > 0 && !s.json("sections", news) {
			return
		}
		if !rest(ctx, min(maxRest, max(minRest, m.took*restFactor))) {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-alive.C:
				if !s.comment() {
					return
				}
			case <-changed:
				waiting = false
			}
		}
		d = u.cfg.Source.Newest()
	}
}

// rest waits; false = somebody hung up.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// stream is one of server-sent events (HTML Living Standard, 9.2). Its
// methods return false when the client has gone.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return &stream{w, http.NewResponseController(w)}
}

func (s *stream) json(name string, v any) bool {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return false
	}
	return s.event(name, string(bytes.TrimSpace(b.Bytes())))
}

// event sends one line of data.
func (s *stream) event(name, data string) bool {
	_, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data)
	return err == nil && s.rc.Flush() == nil
}

func (s *stream) comment() bool {
	_, err := fmt.Fprint(s.w, ":\n\n")
	return err == nil && s.rc.Flush() == nil
}
