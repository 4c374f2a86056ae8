package ui_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
	"github.com/build-swarm/swarm/httpgateway/ui"
)

const goodToken = "token-of-the-socket"

// source is a Source over the board of a made-up swarm, which a test changes.
type source struct {
	opts viewtest.Options

	mu       sync.Mutex
	swarm    *viewtest.Swarm
	detail   *view.Detail
	log      string
	logMore  chan string // pieces that a build writes; closed when it ends
	events   []view.Event
	orders   []ui.Order
	watchers map[chan struct{}]bool
	looks    int
	gateway  ui.Gateway
	rails    []ui.Rail
	changes  []ui.Change
}

func newSource(o viewtest.Options) *source {
	s := &source{opts: o, swarm: viewtest.New(o), watchers: map[chan struct{}]bool{}, log: "no log\n"}
	s.detail = view.Look(s.swarm.Replica, s.swarm.Now)
	if o.Jobs > 0 { // what the daemon adds
		n := s.detail.Blobs.Total
		s.detail.Blobs.Classes = []view.BlobClass{{Class: "released", Total: n / 2, Few: n / 20}, {Class: "wanted", Total: n / 3, Single: n / 30, Lost: 2}, {Class: "other", Total: n - n/2 - n/3}}
		s.detail.Staging = []view.Staging{{Target: "default", New: o.Jobs / 3, Changed: o.Jobs / 9, Held: o.Jobs / 2}}
	}
	before := *s.detail
	before.Jobs, before.AtMS = nil, before.AtMS-3_600_000
	s.events = view.Events(&before, s.detail)
	return s
}

func (s *source) Latest(context.Context) (*view.Detail, error) { return s.Newest(), nil }

func (s *source) Newest() *view.Detail {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return s.detail
}

func (s *source) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[ch] = true
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, ch)
	}
}

// change replaces the snapshot and tells who watches.
func (s *source) change(f func(d *view.Detail)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := *s.detail
	f(&d)
	s.detail = &d
	for ch := range s.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (s *source) Package(_ context.Context, cp string) (view.Package, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := view.PackageOf(s.swarm.Replica, cp, s.swarm.Now)
	if !ok {
		return p, fmt.Errorf("package %s: %w", cp, ui.ErrNotFound)
	}
	return p, nil
}

func (s *source) Why(_ context.Context, job string) (view.Why, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := view.Explain(s.swarm.Replica, build.Key(job), s.swarm.Now)
	if !ok {
		return w, fmt.Errorf("job %s: %w", job, ui.ErrNotFound)
	}
	return w, nil
}

func (s *source) Log(ctx context.Context, w io.Writer, _, _ string, follow bool) error {
	s.mu.Lock()
	text, more := s.log, s.logMore
	s.mu.Unlock()
	if text == "" {
		return fmt.Errorf("log: %w", ui.ErrNotFound)
	}
	if _, err := io.WriteString(w, text); err != nil || !follow {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case piece, ok := <-more:
			if !ok {
				return nil
			}
			s.mu.Lock()
			s.log += piece
			s.mu.Unlock()
			if _, err := io.WriteString(w, piece); err != nil {
				return err
			}
		}
	}
}

func (s *source) Events(_ context.Context, since int64, limit int) ([]view.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []view.Event
	for _, e := range s.events {
		if e.AtMS >= since {
			out = append(out, e)
		}
	}
	return out[max(0, len(out)-limit):], nil
}

func (s *source) Releases(context.Context) ([]ui.Rail, error)               { return s.rails, nil }
func (s *source) Diff(context.Context, string, string) ([]ui.Change, error) { return s.changes, nil }
func (s *source) Gateway() ui.Gateway                                       { return s.gateway }
func (s *source) Authorized(token string) bool                              { return token == goodToken }

func (s *source) Order(_ context.Context, o ui.Order) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, o)
	return o.Verb + " it is", nil
}

func newUI(tb testing.TB, s *source) *ui.UI {
	tb.Helper()
	u, err := ui.New(ui.Config{Source: s, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.UnixMilli(viewtest.Wall) }})
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// get asks for a page.
func get(tb testing.TB, u http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	u.ServeHTTP(w, r)
	return w
}

func (s *source) key(state string) string {
	for _, j := range s.Newest().Jobs {
		if j.State == state {
			return string(j.Key)
		}
	}
	return ""
}

// buildLog is a log as Portage and a compiler write it.
func buildLog() string {
	var b strings.Builder
	b.WriteString(" * Package:    dev-libs/openssl-3.5.0\n>>> Unpacking source...\n>>> Unpacking openssl-3.5.0.tar.gz to /var/tmp/portage\n>>> Source unpacked in /var/tmp/portage\n>>> Preparing source in /var/tmp/portage ...\n")
	b.WriteString(">>> Configuring source in /var/tmp/portage ...\nchecking for gcc... gcc\n")
	for i := range 60 {
		fmt.Fprintf(&b, "checking for header%d.h... \x1b[32myes\x1b[0m\n", i)
	}
	b.WriteString(">>> Compiling source in /var/tmp/portage ...\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "[%4d/3000] gcc -O2 -pipe -march=x86-64-v3 -c crypto/file%d.c -o crypto/file%d.o\n", i, i, i)
		if i == 2500 {
			b.WriteString("crypto/evp.c:42:10: \x1b[1;31mfatal error: \x1b[0mfoo.h: No such file or directory\n   42 | #include <foo.h>\n      |          ^~~~~~~\ncompilation terminated.\nmake: *** [Makefile:7: crypto/evp.o] Error 1\n")
		}
	}
	b.WriteString(" * ERROR: dev-libs/openssl-3.5.0::gentoo failed (compile phase):\n *   emake failed\n")
	return b.String()
}

func cpOf(cpv string) string {
	c, err := build.ParseCPV(cpv)
	if err != nil {
		return cpv
	}
	return c.CP()
}
