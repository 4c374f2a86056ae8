package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/release"
)

// Staging names, beside the releases of a target, what would be released now.
const Staging = "staging"

// Releases is the part of a daemon that answers about releases and moves
// channels.
type Releases interface {
	Releases(ctx context.Context, target string) (ReleasesReply, error)
	Finalize(ctx context.Context, req FinalizeRequest) (FinalizeReply, error)
	Rollback(ctx context.Context, req RollbackRequest) (RollbackReply, error)
	Mark(ctx context.Context, req MarkRequest) (Release, error)
	Diff(ctx context.Context, target, from, to string) (DiffReply, error)
	// Subscribe publishes what this machine has installed: an encoded
	// release.Installed.
	Subscribe(ctx context.Context, set []byte) error
	Unsubscribe(ctx context.Context, target string) error
}

// Release is one line of `swarm releases`.
type Release struct {
	release.Listing
	By        string `json:"by"`        // who wrote it, a nickname
	Shown     bool   `json:"shown"`     // the channel shows it now
	Before    bool   `json:"before"`    // what `swarm rollback` goes back to
	Contested bool   `json:"contested"` // another one was made at once with it
}

// ReleasesReply lists a target's releases, the newest first.
type ReleasesReply struct {
	Schema     int              `json:"schema"`
	Target     string           `json:"target"`
	Head       *release.Channel `json:"head"` // null before the first release
	RolledBack bool             `json:"rolled_back"`
	Repos      []build.Revision `json:"repos"` // of the tree that the shown release was made of, as far as known
	Releases   []Release        `json:"releases"`
	Consumers  []Consumer       `json:"consumers"`
	// Held are the packages that a gate refused when a release was made last, at
	// HeldAt; Compose may keep others out for them.
	Held   []Held `json:"held"`
	HeldAt int64  `json:"held_at_unix_s"` // 0 = nobody said anything
}

// Consumer is a machine that published what it has installed.
type Consumer struct {
	Peer     string `json:"peer"`
	Nick     string `json:"nick"`
	Packages int    `json:"packages"`
}

// FinalizeRequest asks for a release of what is built. Try only looks.
type FinalizeRequest struct {
	Target  string   `json:"target"`
	Without []string `json:"without,omitempty"` // atoms
	Try     bool     `json:"try,omitempty"`
}

// Change is one difference between two releases.
type Change struct {
	Kind string   `json:"kind"` // new, changed, gone
	CPV  string   `json:"cpv"`
	USE  []string `json:"use"`
	Size int64    `json:"size"` // of what is new or changed, else of what is gone
	CID  string   `json:"cid"`
}

// Held is a package that stays out of a release, and why.
type Held struct {
	CPV    string   `json:"cpv"`
	USE    []string `json:"use"`
	Reason string   `json:"reason"`
}

// FinalizeReply says what was released, or would be.
type FinalizeReply struct {
	Schema   int      `json:"schema"`
	Target   string   `json:"target"`
	Released bool     `json:"released"`
	Number   uint64   `json:"number"` // of the release; that which is shown when nothing was released
	CID      string   `json:"cid"`
	Packages int      `json:"packages"`
	Bytes    int64    `json:"bytes"`
	Changes  []Change `json:"changes"`
	Held     []Held   `json:"held"`
	// Consumers are those whose installed packages were looked at, by nickname.
	Consumers []string `json:"consumers"`
	Refused   string   `json:"refused"` // why a gate let nothing through
	// RolledBack: the channel shows an older release because a person wanted it, so
	// that nothing is released by itself.
	RolledBack bool `json:"rolled_back"`
	// InstallTest says in a line what came of the install test by another peer;
	// "" when none was due.
	InstallTest string `json:"install_test"`
}

// RollbackRequest asks for another kept release; "" is the one before.
type RollbackRequest struct {
	Target  string `json:"target"`
	Release string `json:"release,omitempty"`
	Try     bool   `json:"try,omitempty"`
}

// Down is a package that becomes older; To "" means that the release has none.
type Down struct {
	Package string `json:"package"`
	Slot    string `json:"slot"`
	From    string `json:"from"`
	To      string `json:"to"`
}

// RollbackReply says what a rollback did, or would do.
type RollbackReply struct {
	Schema  int              `json:"schema"`
	Target  string           `json:"target"`
	Done    bool             `json:"done"`
	From    uint64           `json:"from"` // numbers of releases
	To      uint64           `json:"to"`
	Release string           `json:"cid"`
	Repos   []build.Revision `json:"repos"` // of the tree that the release was made of, as far as known
	Downs   []Down           `json:"downgrades"`
	// Unread: what goes down is not known, since no peer that is here has the list of
	// the release that is shown.
	Unread bool `json:"unread"`
}

// MarkRequest pins a release, or lets it go.
type MarkRequest struct {
	Target  string `json:"target"`
	Release string `json:"release"`
	Pin     bool   `json:"pin,omitempty"`
	Prune   bool   `json:"prune,omitempty"`
}

// DiffReply lists what changed from one release to another.
type DiffReply struct {
	Schema  int      `json:"schema"`
	Target  string   `json:"target"`
	From    string   `json:"from"` // number, or Staging
	To      string   `json:"to"`
	Changes []Change `json:"changes"`
	Held    []Held   `json:"held"`    // what would stay out; only where To is Staging
	Failing []Held   `json:"failing"` // what began to fail between them
}

// Releases and the others ask the daemon; see the interface.
func (c *Client) Releases(ctx context.Context, target string) (ReleasesReply, error) {
	return ask[ReleasesReply](ctx, c, "/v1/releases?target="+url.QueryEscape(target), nil)
}

// Finalize releases what is built.
func (c *Client) Finalize(ctx context.Context, req FinalizeRequest) (FinalizeReply, error) {
	return ask[FinalizeReply](ctx, c, "/v1/finalize", req)
}

// Rollback moves a channel to another release.
func (c *Client) Rollback(ctx context.Context, req RollbackRequest) (RollbackReply, error) {
	return ask[RollbackReply](ctx, c, "/v1/rollback", req)
}

// Mark pins or prunes a release.
func (c *Client) Mark(ctx context.Context, req MarkRequest) (Release, error) {
	return ask[Release](ctx, c, "/v1/mark", req)
}

// Diff compares two releases.
func (c *Client) Diff(ctx context.Context, target, from, to string) (DiffReply, error) {
	q := url.Values{"target": {target}, "from": {from}, "to": {to}}
	return ask[DiffReply](ctx, c, "/v1/diff?"+q.Encode(), nil)
}

// Subscribe publishes an encoded release.Installed.
func (c *Client) Subscribe(ctx context.Context, set []byte) error {
	_, err := ask[struct{}](ctx, c, "/v1/subscribe", set)
	return err
}

// Unsubscribe takes it back.
func (c *Client) Unsubscribe(ctx context.Context, target string) error {
	_, err := ask[struct{}](ctx, c, "/v1/unsubscribe", target)
	return err
}

// maxSet bounds the body of a subscription, in bytes.
const maxSet = 32 << 20

func releaseRoutes(mux *http.ServeMux, d Releases) {
	get(mux, "GET /v1/releases", func(r *http.Request) (any, error) { return d.Releases(r.Context(), r.URL.Query().Get("target")) })
	get(mux, "GET /v1/diff", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		return d.Diff(r.Context(), q.Get("target"), q.Get("from"), q.Get("to"))
	})
	post(mux, "POST /v1/finalize", maxBody, d.Finalize)
	post(mux, "POST /v1/rollback", maxBody, d.Rollback)
	post(mux, "POST /v1/mark", maxBody, d.Mark)
	post(mux, "POST /v1/subscribe", maxSet, func(ctx context.Context, set []byte) (struct{}, error) { return struct{}{}, d.Subscribe(ctx, set) })
	post(mux, "POST /v1/unsubscribe", maxBody, func(ctx context.Context, target string) (struct{}, error) {
		return struct{}{}, d.Unsubscribe(ctx, target)
	})
}

// post answers a request whose body is one JSON value of at most so many bytes.
func post[Q, A any](mux *http.ServeMux, pattern string, most int64, f func(context.Context, Q) (A, error)) {
	get(mux, pattern, func(r *http.Request) (any, error) {
		var q Q
		if err := json.NewDecoder(io.LimitReader(r.Body, most)).Decode(&q); err != nil {
			return nil, &Error{Kind: KindUsage, Message: "the request is not JSON: " + err.Error()}
		}
		return f(r.Context(), q)
	})
}
