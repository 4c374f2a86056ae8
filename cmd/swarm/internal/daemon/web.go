package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/publish"
	"github.com/build-swarm/swarm/build/release"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/httpgateway"
	"github.com/build-swarm/swarm/httpgateway/ui"
)

// web is the page's source: the watcher's snapshot, and the daemon's answers.
type web struct {
	*Screens
	tokens  tokens
	gateway func() *httpgateway.Gateway
	since   time.Time
}

var _ ui.Source = (*web)(nil)

// tokenLife is how long a token is good for: a day of work at a page.
const tokenLife = 12 * time.Hour

// maxTokens is how many are good at a time; the oldest goes.
const maxTokens = 16

// tokens are what lets a page give orders. They live in memory alone, as
// digests, and end with the process.
type tokens struct {
	mu   sync.Mutex
	list []token
}

type token struct {
	sum   [32]byte
	until time.Time
}

// hand makes a new token.
func (t *tokens) hand(now time.Time) string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	text := base64.RawURLEncoding.EncodeToString(b[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = slices.DeleteFunc(t.list, func(x token) bool { return !now.Before(x.until) })
	if len(t.list) >= maxTokens {
		t.list = slices.Delete(t.list, 0, len(t.list)-maxTokens+1)
	}
	t.list = append(t.list, token{sha256.Sum256([]byte(text)), now.Add(tokenLife)})
	return text
}

func (t *tokens) good(text string, now time.Time) bool {
	sum := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	ok := false
	for _, x := range t.list {
		if subtle.ConstantTimeCompare(sum[:], x.sum[:]) == 1 && now.Before(x.until) {
			ok = true
		}
	}
	return ok
}

// Web hands out a token, with the address that takes it to this peer's page.
func (d *Daemon) Web(context.Context) (control.Web, error) {
	addrs := d.Gateway()
	if len(addrs) == 0 {
		return control.Web{}, &control.Error{Kind: control.KindNotFound, Message: "this peer serves no page: it has no gateway", Hint: "start it with --gateway 127.0.0.1:8090"}
	}
	w := control.Web{Schema: 1, Page: "http://" + localAddress(addrs) + "/", Seconds: int(tokenLife.Seconds())}
	w.Token = d.screens.web.tokens.hand(time.Now())
	w.URL = w.Page + "#token=" + w.Token
	return w, nil
}

// localAddress picks the address that a browser on this machine reaches:
// loopback where it is listened on, and never the wildcard.
func localAddress(addrs []string) string {
	best := addrs[0]
	for _, a := range addrs {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		ip := net.ParseIP(host)
		switch {
		case ip != nil && ip.IsLoopback():
			return a
		case ip != nil && ip.IsUnspecified():
			best = net.JoinHostPort("127.0.0.1", port)
			if ip.To4() == nil {
				best = net.JoinHostPort("::1", port)
			}
		}
	}
	return best
}

func (w *web) Latest(ctx context.Context) (*view.Detail, error) { return w.watcher.Latest(ctx) }
func (w *web) Newest() *view.Detail                             { return w.watcher.Newest() }
func (w *web) Watch() (<-chan struct{}, func())                 { return w.watcher.Watch() }
func (w *web) Authorized(token string) bool                     { return w.tokens.good(token, time.Now()) }

func (w *web) Events(_ context.Context, since int64, limit int) ([]view.Event, error) {
	return w.history.Since(since, limit)
}

func (w *web) Package(ctx context.Context, cp string) (p view.Package, err error) {
	known := false
	err = w.daemon.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		p, known = view.PackageOf(r, cp, now)
		return nil
	})
	if err == nil && !known {
		err = fmt.Errorf("%s: no round and no outcome is about it: %w", cp, ui.ErrNotFound)
	}
	return p, err
}

func (w *web) Why(ctx context.Context, job string) (view.Why, error) {
	y, err := w.daemon.Why(ctx, job)
	return y, notFound(err)
}

// notFound puts the page's word for it under the socket's.
func notFound(err error) error {
	if e, ok := errors.AsType[*control.Error](err); ok && e.Kind == control.KindNotFound {
		return fmt.Errorf("%s: %w", e.Message, ui.ErrNotFound)
	}
	return err
}

// Log copies a log. A CID is taken only if an outcome of the job names it: the
// page reads logs, not any blob.
func (w *web) Log(ctx context.Context, out io.Writer, job, id string, follow bool) error {
	if id == "" {
		return notFound(w.daemon.Log(ctx, out, job, follow))
	}
	known := false
	err := w.daemon.Agent.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
		known = slices.ContainsFunc(r.Results(build.Key(job)), func(o claims.Result) bool { return o.Log == id })
		return nil
	})
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("no build of that job has such a log: %w", ui.ErrNotFound)
	}
	return w.daemon.copyBlob(ctx, out, id, 0)
}

// Releases are those that the board keeps of each target, the newest first.
func (w *web) Releases(ctx context.Context) ([]ui.Rail, error) {
	d, err := w.Latest(ctx)
	if err != nil {
		return nil, err
	}
	var out []ui.Rail
	for _, c := range d.Releases {
		all, err := w.daemon.Releases(ctx, c.Target)
		if err != nil {
			return nil, notFound(err)
		}
		rail := ui.Rail{Target: c.Target, Channel: c.Channel}
		for _, r := range all.Releases[:min(len(all.Releases), 20)] {
			rail.Heads = append(rail.Heads, ui.Head{Version: r.Number, CID: r.Release, AtMS: r.Created * 1000, Packages: r.Packages,
				Current: r.Shown, Pinned: r.Pin, Pruned: r.State == release.Pruned, By: r.By, New: r.New, Changed: r.Changed, Gone: r.Gone})
		}
		out = append(out, rail)
	}
	return out, nil
}

func (w *web) manifest(ctx context.Context, id string, fetch bool) (*release.Manifest, error) {
	w.mu.Lock()
	m := w.manifests[id]
	w.mu.Unlock()
	if m != nil {
		return m, nil
	}
	bring := w.daemon.Requester.Fetch
	if !fetch {
		bring = nothingElsewhere
	}
	m, err := publish.LoadManifest(ctx, w.daemon.Store, bring, id)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.manifests) >= 8 {
		clear(w.manifests)
	}
	w.manifests[id] = m
	return m, nil
}

// Diff compares two releases, wherever their manifests are.
func (w *web) Diff(ctx context.Context, from, to string) ([]ui.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var old *release.Manifest
	if from != "" {
		var err error
		if old, err = w.manifest(ctx, from, true); err != nil {
			return nil, fmt.Errorf("the earlier release cannot be read: %w", err)
		}
	}
	now, err := w.manifest(ctx, to, true)
	if err != nil {
		return nil, fmt.Errorf("the release cannot be read: %w", err)
	}
	return pageChanges(release.Diff(old, now)), nil
}

// pageChanges puts a difference into words: an update is one line, not a package
// that went and one that came.
func pageChanges(diff []release.Change) []ui.Change {
	gone := map[string]*release.Entry{} // by category/name and slot
	slot := func(e *release.Entry) string { s, _, _ := strings.Cut(e.Slot, "/"); return e.CPV.CP() + ":" + s }
	for _, c := range diff {
		if c.Kind == release.Gone {
			gone[slot(c.Old)] = c.Old
		}
	}
	var out []ui.Change
	for _, c := range diff {
		switch c.Kind {
		case release.Added:
			x := ui.Change{Kind: "new", CPV: c.New.CPV.String(), CP: c.New.CPV.CP(), New: use(c.New), Size: c.New.Artifact.Size}
			if o := gone[slot(c.New)]; o != nil {
				delete(gone, slot(c.New))
				x.Kind, x.Old, x.New = "changed", o.CPV.Version, c.New.CPV.Version
				if o.CPV == c.New.CPV {
					x.Old, x.New = use(o), use(c.New)
				}
			}
			out = append(out, x)
		case release.Replaced:
			x := ui.Change{Kind: "changed", CPV: c.New.CPV.String(), CP: c.New.CPV.CP(), Old: "build " + shortHash(c.Old.Artifact.CID), New: "build " + shortHash(c.New.Artifact.CID), Size: c.New.Artifact.Size}
			if c.Old.Artifact.CID == c.New.Artifact.CID {
				x.Old, x.New = "KEYWORDS "+c.Old.Keywords, "KEYWORDS "+c.New.Keywords
			}
			out = append(out, x)
		}
	}
	for _, e := range gone {
		out = append(out, ui.Change{Kind: "gone", CPV: e.CPV.String(), CP: e.CPV.CP(), Old: use(e)})
	}
	slices.SortFunc(out, func(a, b ui.Change) int { return cmp.Or(cmp.Compare(a.CPV, b.CPV), cmp.Compare(a.Kind, b.Kind)) })
	return out
}

func use(e *release.Entry) string {
	if u := e.USE(); u != "" {
		return "USE " + build.OneLine(u, 200)
	}
	return ""
}

func shortHash(s string) string { return s[max(0, len(s)-8):] }

// Gateway is what the binhost answered.
func (w *web) Gateway() ui.Gateway {
	gw := w.gateway()
	c := gw.Counts()
	out := ui.Gateway{Index: c.Index, NotModified: c.NotModified, Local: c.Local, Streamed: c.Streamed, Missing: c.Missing, Unavailable: c.Unavailable,
		Refused: c.Refused, PackageBytes: c.PackageBytes, IndexBytes: c.IndexBytes, SinceMS: w.since.UnixMilli()}
	for _, m := range gw.Misses() {
		out.Misses = append(out.Misses, ui.Miss{CPV: m.CPV, Times: m.Times, LastMS: m.LastMS})
	}
	out.Misses = out.Misses[:min(len(out.Misses), 20)]
	for _, s := range gw.Status() {
		out.Served = append(out.Served, ui.Served{Target: s.Target, Version: s.Served.Version, Packages: s.Packages, Problem: s.Problem})
	}
	return out
}

// Order gives an order of a page. To resume lifts pause and drain, as the
// command does.
func (w *web) Order(ctx context.Context, o ui.Order) (string, error) {
	verbs := []string{o.Verb}
	if o.Off {
		verbs = []string{string(claims.VerbPause), string(claims.VerbDrain)}
	}
	var reply control.OrderReply
	for _, v := range verbs {
		var err error
		if reply, err = w.daemon.Order(ctx, control.Order{Verb: v, Scope: o.Scope, Off: o.Off, Reason: o.Reason}); err != nil {
			return "", err
		}
	}
	w.log.Info("order given on the page", "verb", o.Verb, "scope", reply.Scope, "off", o.Off)
	if o.Off {
		return reply.Name + " takes jobs again.", nil
	}
	return "The order is on the board: " + o.Verb + " " + reply.Name + ".", nil
}

// newUI makes the page.
func newUI(w *web, log *slog.Logger) (*ui.UI, error) { return ui.New(ui.Config{Source: w, Log: log}) }
