package httpgateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/cas"
)

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	w := &response{ResponseWriter: rw, conn: c}
	start := time.Now()
	if p := r.URL.Path; g.cfg.Asked != nil && p != "/livez" && p != "/readyz" && p != "/metrics" {
		g.cfg.Asked()
	}
	g.route(w, r)
	g.stats.count(r, w)
	if !g.log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	g.log.Debug("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr,
		"status", w.status, "bytes", w.bytes, "took", time.Since(start))
}

func (g *Gateway) route(w *response, r *http.Request) {
	w.Header()["X-Content-Type-Options"] = nosniff
	switch {
	case !g.allowed(r.Host):
		plain(w, http.StatusMisdirectedRequest, "this gateway does not go by the name %q; a person can allow it in the gateway's host setting", r.Host)
		return
	case r.Method == http.MethodPost && g.cfg.Post[r.URL.Path] != nil:
		if r.ContentLength < 0 || r.ContentLength > PostBytes {
			w.Header().Set("Connection", "close")
			plain(w, http.StatusRequestEntityTooLarge, "a request's body has %d bytes at the most", PostBytes)
			return
		}
		g.cfg.Post[r.URL.Path].ServeHTTP(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		plain(w, http.StatusMethodNotAllowed, "only GET and HEAD are served here")
		return
	case r.ContentLength != 0:
		// Nobody reads it, and a client that never sends it would hold the
		// connection.
		w.Header().Set("Connection", "close")
		plain(w, http.StatusBadRequest, "a request with a body is not served here")
		return
	}
	if len(g.cfg.Mount) > 0 {
		if h, pattern := g.mounted.Handler(r); pattern != "" {
			g.serveMounted(h, w, r)
			return
		}
	}
	switch r.URL.Path {
	case "/":
		g.serveRoot(w)
		return
	case "/livez":
		plain(w, http.StatusOK, "ok")
		return
	case "/readyz":
		g.serveReady(w)
		return
	}
	target, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	channel, name, ok := strings.Cut(rest, "/")
	if ok && channel == "staging" {
		plain(w, http.StatusNotFound, "what is staged is to be looked at and not installed: swarm finalize --target %s --dry-run", target)
		return
	}
	if !ok || channel != release.Stable {
		plain(w, http.StatusNotFound, "nothing here; an index is at /TARGET/%s/Packages", release.Stable)
		return
	}
	g.serveTarget(w, r, target, name)
}

// serveMounted runs a handler that is not the gateway's own.
func (g *Gateway) serveMounted(h http.Handler, w *response, r *http.Request) {
	if stop, ok := r.Context().Value(stopKey{}).(context.Context); ok {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(stop, cancel)()
		r = r.WithContext(ctx)
	}
	h.ServeHTTP(w, r)
}

// Header values that every package has. They are shared and never written to.
var (
	nosniff    = []string{"nosniff"}
	tarType    = []string{"application/x-tar"}
	immutable  = []string{"public, max-age=31536000, immutable"}
	takesRange = []string{"bytes"}
)

// plain answers with one line of text.
func plain(w http.ResponseWriter, status int, format string, args ...any) {
	line := build.OneLine(fmt.Sprintf(format, args...), 500) + "\n"
	h := w.Header()
	for _, name := range []string{"Content-Range", "Accept-Ranges", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Content-Length", fmt.Sprint(len(line)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, line) // a client that has gone needs no answer
}

func (g *Gateway) serveRoot(w http.ResponseWriter) {
	var b strings.Builder
	b.WriteString("Build Swarm gateway.")
	for _, s := range g.Status() {
		fmt.Fprintf(&b, " /%s/%s/Packages: %d packages, version %d.", s.Target, release.Stable, s.Packages, s.Served.Version)
	}
	plain(w, http.StatusOK, "%s", b.String())
}

// serveReady tells whether this peer is ready and every target's newest release
// is served.
func (g *Gateway) serveReady(w http.ResponseWriter) {
	if g.cfg.Ready != nil {
		if err := g.cfg.Ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, "not ready: %v", err)
			return
		}
	}
	for _, s := range g.Status() {
		if s.Problem != "" {
			plain(w, http.StatusServiceUnavailable, "%s", s.Problem)
			return
		}
	}
	plain(w, http.StatusOK, "ok")
}

func (g *Gateway) serveTarget(w *response, r *http.Request, target, name string) {
	ch, err := g.channel(target)
	switch {
	case errors.Is(err, ErrNoRelease):
		plain(w, http.StatusNotFound, "target %q has no release here; swarm build ATOM makes one", target)
		return
	case err != nil:
		unavailable(w, "the releases of %s cannot be read now: %v", target, err)
		return
	}
	if name == plainName || name == gzipName {
		ch.look(g)
		g.serveIndex(w, r, ch, name)
		return
	}
	known, ok := ch.paths.Load().find(name)
	if !ok {
		ch.look(g)
		known, ok = ch.paths.Load().find(name)
	}
	if !ok {
		g.stats.miss(name)
		plain(w, http.StatusNotFound, "no package %q in the releases of %s", name, target)
		return
	}
	g.servePackage(w, r, &known)
}

// unavailable is a 503: it may go better soon.
func unavailable(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Retry-After", "5")
	plain(w, http.StatusServiceUnavailable, format, args...)
}

func (g *Gateway) serveIndex(w *response, r *http.Request, ch *channel, name string) {
	gen, f, body, err := ch.open(name)
	if errors.Is(err, errDamaged) {
		// Now, since Portage takes a 503 to mean that there are no packages,
		// and compiles.
		g.log.Warn("rendered index is gone, making it again", "target", ch.target, "err", err)
		ch.refresh(g)
		gen, f, body, err = ch.open(name)
	}
	if err != nil {
		unavailable(w, "the release of %s cannot be served yet: %v", ch.target, err)
		return
	}
	defer func() { _ = body.Close() }() // read only
	contentType := "text/plain; charset=utf-8"
	if name == gzipName {
		contentType = "application/gzip"
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", f.etag())
	modified := time.Unix(gen.head.Timestamp, 0)
	if manyParts(w, r) {
		return
	}
	if strings.HasPrefix(r.UserAgent(), "Gentoo Portage") && r.Header.Get("If-Modified-Since") != "" {
		if portageHas(r.Header.Get("If-Modified-Since"), gen.head.Timestamp) {
			h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		r = r.Clone(r.Context())
		r.Header.Del("If-Modified-Since")
	}
	w.serveFile(r, modified, &fileContent{f: body, size: f.size, parts: f.parts})
}

var errNotYet = errors.New("it is being made")

// open opens an index of the generation that is shown. errDamaged means that
// its file is not as it was written; the generation is then marked.
func (ch *channel) open(name string) (*generation, *file, *os.File, error) {
	gen := ch.current.Load()
	if gen == nil {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return nil, nil, nil, cmp.Or(ch.err, errNotYet)
	}
	f := &gen.plain
	if name == gzipName {
		f = &gen.gzip
	}
	body, err := os.Open(f.path)
	if err != nil {
		gen.broken.Store(true)
		return nil, nil, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if info, err := body.Stat(); err != nil || info.Size() < f.end {
		gen.broken.Store(true)
		return nil, nil, nil, errors.Join(errDamaged, err, body.Close())
	}
	return gen, f, body, nil
}

// tolerance is what Portage adds to the TIMESTAMP it has before it asks
// (TIMESTAMP_TOLERANCE of its _urlopen).
const tolerance = 5

// portageHas reports whether a Portage that sends this If-Modified-Since has
// the index of timestamp, or a newer one.
func portageHas(since string, timestamp int64) bool {
	t, err := http.ParseTime(since)
	return err == nil && timestamp <= t.Unix()-tolerance
}

// manyParts refuses a request for more than maxParts ranges.
func manyParts(w http.ResponseWriter, r *http.Request) bool {
	if strings.Count(r.Header.Get("Range"), ",") < maxParts {
		return false
	}
	plain(w, http.StatusRequestedRangeNotSatisfiable, "more than %d ranges in one request", maxParts)
	return true
}

func (g *Gateway) servePackage(w *response, r *http.Request, k *known) {
	c, it := k.cid, &k.item
	if manyParts(w, r) {
		return
	}
	h := w.Header()
	h["Content-Type"], h["Cache-Control"] = tarType, immutable
	h.Set("Etag", k.etag)
	modified := time.Unix(it.MTime, 0)
	// Nothing is opened where no byte is wanted.
	unread := r.Method == http.MethodHead || strings.Contains(r.Header.Get("If-None-Match"), it.CID)
	if !unread && g.serveLocal(w, r, k, modified) {
		return
	}
	if unread && !g.cfg.Catalog.Available(c) {
		unavailable(w, "no peer that is reachable now holds %s", it.Path)
		return
	}
	blob := g.remote(r.Context(), k, g.cfg.Patience)
	defer blob.close()
	if strings.Contains(r.Header.Get("Range"), ",") {
		// Of several ranges the first bytes are ours and not the holder's, so
		// a failure could not be told. The whole is a good answer too.
		r = r.Clone(r.Context())
		r.Header.Del("Range")
	}
	out := &cautious{response: w, fail: func(w http.ResponseWriter, err error) {
		g.log.Warn("package could not be had", "path", it.Path, "cid", it.CID, "err", err)
		if errors.Is(err, cas.ErrNotFound) || errors.Is(err, errSilent) {
			unavailable(w, "no peer that is reachable now holds %s: %v", it.Path, err)
			return
		}
		plain(w, http.StatusBadGateway, "fetch %s from its holders: %v", it.Path, err)
	}}
	http.ServeContent(out, r, "", modified, blob)
	out.finish()
	if blob.err != nil && !out.failed && r.Context().Err() == nil {
		g.cutOff(k, blob)
	}
}

// remote is a package that is elsewhere.
func (g *Gateway) remote(ctx context.Context, k *known, patience time.Duration) *remote {
	return &remote{
		ctx: ctx, size: k.item.Size, stall: g.cfg.Stall, first: time.Now().Add(patience), log: g.log,
		open: func(ctx context.Context) (io.ReadSeekCloser, error) {
			return g.cfg.Catalog.Open(ctx, k.cid, k.item.Size)
		},
	}
}

// cutOff notes that a body came out short of Content-Length: the server closes
// the connection then, and the client knows.
func (g *Gateway) cutOff(k *known, blob *remote) {
	g.log.Warn("package cut off while it was served", "path", k.item.Path, "cid", k.item.CID, "at", blob.off, "err", blob.err)
}

// serveLocal serves a package that lies here, without what one that is elsewhere
// needs; false when it does not. What the disk does not give comes from the
// other holders, in the same answer.
func (g *Gateway) serveLocal(w *response, r *http.Request, k *known, modified time.Time) bool {
	b, err := g.cfg.Catalog.Local(k.cid)
	if err != nil {
		return false
	}
	defer func() { _ = b.Close() }() // read only
	it := &k.item
	w.local = true
	if b.Size() != it.Size {
		g.log.Error("stored package has another size than its release says", "path", it.Path, "cid", it.CID, "want", it.Size, "is", b.Size())
		plain(w, http.StatusBadGateway, "the copy of %s here is damaged", it.Path)
		return true
	}
	content, done := g.localContent(r.Context(), b, k)
	defer done()
	w.serveFile(r, modified, content)
	return true
}

// localContent is a package that lies here; what the disk does not give of it
// comes from its other holders. done ends its use.
func (g *Gateway) localContent(ctx context.Context, b LocalBlob, k *known) (content *fileContent, done func()) {
	var rest *remote
	content = &fileContent{f: b.File(), size: k.item.Size, instead: func(err error) io.ReadSeeker {
		g.log.Error("stored package cannot be read, going on with its other holders", "path", k.item.Path, "cid", k.item.CID, "err", err)
		b.Failed(err)
		rest = g.remote(ctx, k, g.cfg.Stall)
		return rest
	}}
	return content, func() {
		if rest == nil {
			return
		}
		rest.close()
		if rest.err != nil && ctx.Err() == nil {
			g.cutOff(k, rest)
		}
	}
}
