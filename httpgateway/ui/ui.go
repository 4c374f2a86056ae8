package ui

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

// ErrNotFound is wrapped by errors of a Source about things that are not there.
var ErrNotFound = errors.New("not found")

// Source is what the pages show. Its methods are called from many goroutines.
type Source interface {
	// Latest is a snapshot that is fresh enough for somebody who just asked.
	Latest(ctx context.Context) (*view.Detail, error)
	// Watch returns a channel that fires when Newest has changed, and what
	// ends it. Newest may be nil before the first.
	Watch() (<-chan struct{}, func())
	Newest() *view.Detail

	Package(ctx context.Context, cp string) (view.Package, error)
	Why(ctx context.Context, job string) (view.Why, error)
	// Log copies the log of a job to w: that of the blob named cid, or of the
	// newest build. With follow it waits for more until the build has ended.
	Log(ctx context.Context, w io.Writer, job, cid string, follow bool) error
	Events(ctx context.Context, since int64, limit int) ([]view.Event, error)
	// Releases lists what the channels of each target showed, the newest first.
	Releases(ctx context.Context) ([]Rail, error)
	// Diff compares two releases by CID; from may be "".
	Diff(ctx context.Context, from, to string) ([]Change, error)
	Gateway() Gateway

	// Authorized reports whether a token was handed out by the control socket.
	Authorized(token string) bool
	// Order gives an order and says in a line what it is about.
	Order(ctx context.Context, o Order) (string, error)
}

// Rail is the releases of one channel.
type Rail struct {
	Target, Channel string
	Heads           []Head // newest first
}

// Head is one release that a channel showed.
type Head struct {
	Version  uint64
	CID      string
	AtMS     int64
	Packages int
	Current  bool // the channel shows it
	Pinned   bool // kept whatever its age
	Pruned   bool // its packages may be gone
	By       string
	// New, Changed and Gone count what it changed of the one before.
	New, Changed, Gone int
}

// Change is one difference between two releases.
type Change struct {
	Kind     string // new, changed, gone
	CPV, CP  string
	Old, New string // what differs, in words
	Size     int64
}

// Gateway is what the binhost of this peer answered since it started.
type Gateway struct {
	Index, NotModified, Local, Streamed, Missing, Unavailable, Refused uint64
	PackageBytes, IndexBytes                                           uint64
	SinceMS                                                            int64
	Misses                                                             []Miss
	Served                                                             []Served
}

// Miss is a package that was asked for and that no release has.
type Miss struct {
	CPV    string
	Times  int
	LastMS int64
}

// Served is a channel as this gateway serves it.
type Served struct {
	Target   string
	Version  uint64
	Packages int
	Problem  string
}

// Order is what a person asks for from a page.
type Order struct {
	Verb, Scope string
	Off         bool
	Reason      string
}

// Config of a UI. Source and Log are needed.
type Config struct {
	Source Source
	Log    *slog.Logger
	// Now is the time; nil = the machine's.
	Now func() time.Time
}

//go:embed page
var files embed.FS

// UI serves the pages. Mount its Handler at "/" and at "/-/" (no target can
// have that name), and Orders for POST at OrderPath.
type UI struct {
	cfg    Config
	pages  *template.Template
	mux    *http.ServeMux
	static map[string]asset
	build  string // of the static files, so that an old page notices a new daemon

	mu    sync.Mutex
	cache map[string]*made // sections of live pages, by URL
}

type asset struct {
	body []byte
	kind string
	etag string
}

// Paths of the pages.
const (
	Prefix    = "/-/"
	OrderPath = "/-/order"
)

// New parses the templates. It starts nothing.
func New(cfg Config) (*UI, error) {
	if cfg.Source == nil || cfg.Log == nil {
		return nil, errors.New("make the web page: source and log are both needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u := &UI{cfg: cfg, mux: http.NewServeMux(), static: map[string]asset{}, cache: map[string]*made{}}
	var err error
	if u.pages, err = template.New("").Funcs(funcs()).ParseFS(files, "page/*.html"); err != nil {
		return nil, fmt.Errorf("parse the web page: %w", err)
	}
	all := sha256.New()
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		b, err := fs.ReadFile(files, "page/"+name)
		if err != nil {
			return nil, fmt.Errorf("read the web page's %s: %w", name, err)
		}
		sum := sha256.Sum256(b)
		u.static[name] = asset{b, kind, `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		all.Write([]byte(u.static[name].etag))
	}
	u.build = hex.EncodeToString(all.Sum(nil)[:6])
	u.page("/{$}", u.swarm)
	u.page(Prefix+"{$}", u.swarm)
	u.page(Prefix+"packages", u.packages)
	u.page(Prefix+"package/{category}/{name}", u.packagePage)
	u.page(Prefix+"peer/{peer}", u.peerPage)
	u.page(Prefix+"releases", u.releases)
	u.page(Prefix+"storage", u.storage)
	u.page(Prefix+"events", u.events)
	u.page(OrderPath, u.confirm)
	u.mux.HandleFunc(Prefix+"log/{key}", u.logPage)
	u.mux.HandleFunc(Prefix+"log/{key}/raw", u.rawLog)
	for name := range u.static {
		u.mux.HandleFunc(Prefix+name, u.asset)
	}
	return u, nil
}

// policy allows this peer's own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func guard(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: with that, browsers send "Origin: null" with a form.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
}

// ServeHTTP answers GET and HEAD.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if foreign(r) {
		u.fail(w, r, http.StatusForbidden, "Another site asked for this", "a page of another site, or of another program on this machine, may link here and read nothing")
		return
	}
	if _, pattern := u.mux.Handler(r); pattern == "" {
		u.fail(w, r, http.StatusNotFound, "No such page", "the swarm's page is at /")
		return
	}
	u.mux.ServeHTTP(w, r)
}

// foreign reports whether the browser says that another site made a request
// other than by a link.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

// section is a piece of a page with what it shows.
type section struct {
	ID   string // of the element, and the name of the template
	Data any
}

// page is one page, ready to be made into HTML.
type page struct {
	Title    string
	Here     string // which entry of the navigation
	Live     bool   // sections follow the snapshot
	Detail   *view.Detail
	Sections []section
	Code     int
}

// errPage is an error with its place on a page.
type errPage struct {
	code        int
	title, text string
}

func (e *errPage) Error() string { return e.title + ": " + e.text }

// page adds a page, whole for who asks for HTML and live for who asks for
// events. of takes its arguments from the URL alone.
func (u *UI) page(pattern string, of func(*http.Request, *view.Detail) (*page, error)) {
	u.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			u.stream(w, r, of)
			return
		}
		d, err := u.cfg.Source.Latest(r.Context())
		if err != nil {
			u.problem(w, r, err)
			return
		}
		p, err := of(r, d)
		if err != nil {
			u.problem(w, r, err)
			return
		}
		u.send(w, r, p)
	})
}

func (u *UI) problem(w http.ResponseWriter, r *http.Request, err error) {
	var e *errPage
	switch {
	case errors.As(err, &e):
	case errors.Is(err, ErrNotFound):
		e = &errPage{http.StatusNotFound, "Not here", strings.TrimSuffix(err.Error(), ": "+ErrNotFound.Error())}
	case r.Context().Err() != nil:
		return
	default:
		e = &errPage{http.StatusServiceUnavailable, "This peer cannot say that now", err.Error()}
	}
	u.fail(w, r, e.code, e.title, e.text)
}

func (u *UI) fail(w http.ResponseWriter, r *http.Request, code int, title, text string) {
	u.send(w, r, &page{Title: title, Code: code, Sections: []section{{"notice", struct{ Title, Text string }{title, clip(text, 500)}}}})
}

// layout is what the frame of a page shows.
type layout struct {
	*page
	Body  []rendered
	Build string
	Now   time.Time
	Path  string
}

type rendered struct {
	ID   string
	HTML template.HTML
}

// render makes the sections' HTML.
func (u *UI) render(p *page) ([]rendered, error) {
	out := make([]rendered, 0, len(p.Sections))
	for _, s := range p.Sections {
		var b bytes.Buffer
		if err := u.pages.ExecuteTemplate(&plainText{w: &b}, s.ID, s.Data); err != nil {
			return nil, fmt.Errorf("make the page's section %s: %w", s.ID, err)
		}
		out = append(out, rendered{s.ID, template.HTML(b.Bytes())}) // made by the template just above
	}
	return out, nil
}

// whole writes a page's HTML.
func (u *UI) whole(w io.Writer, p *page, path string) error {
	body, err := u.render(p)
	if err != nil {
		return err
	}
	return u.pages.ExecuteTemplate(&plainText{w: w}, "layout", layout{p, body, u.build, u.cfg.Now(), path})
}

func (u *UI) send(w http.ResponseWriter, r *http.Request, p *page) {
	var b bytes.Buffer
	if err := u.whole(&b, p, r.URL.RequestURI()); err != nil {
		u.cfg.Log.Error("page not made", "path", r.URL.Path, "error", err)
		http.Error(w, "the page could not be made; the daemon's log says why", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", fmt.Sprint(b.Len()))
	if p.Code != 0 {
		w.WriteHeader(p.Code)
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes()) // who has gone needs no answer
	}
}

func (u *UI) asset(w http.ResponseWriter, r *http.Request) {
	a := u.static[strings.TrimPrefix(r.URL.Path, Prefix)]
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Etag", a.etag)
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}

// link makes a path with a query, for templates.
func link(path string, query ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		if query[i+1] != "" {
			q.Set(query[i], query[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
