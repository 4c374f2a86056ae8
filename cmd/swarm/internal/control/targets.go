package control

import (
	"context"
	"net/http"
	"net/url"

	"github.com/build-swarm/swarm/build"
)

// Targets is the part of a daemon that keeps targets and plans rounds for them.
type Targets interface {
	AddTarget(ctx context.Context, req TargetRequest) (TargetReply, error)
	Targets(ctx context.Context) ([]TargetLine, error)
	ShowTarget(ctx context.Context, name string) (TargetReply, error)
	// DiffTarget compares a target with another one, or with what this
	// machine's configuration comes to now ("").
	DiffTarget(ctx context.Context, name, other string) (TargetDiff, error)
	RemoveTarget(ctx context.Context, name string) (TargetLine, error)
	// Fresh plans an update and asks the swarm for it; say is told each step.
	Fresh(ctx context.Context, req FreshRequest, say func(FreshStep)) (FreshReply, error)
}

// TargetRequest asks to evaluate a configuration as a target.
type TargetRequest struct {
	Name    string        `json:"name"`
	From    string        `json:"from,omitempty"`    // root whose etc/portage is evaluated; "" = the daemon's own
	Base    string        `json:"base,omitempty"`    // name of a base; "" = as it was, "none" = in place
	Rebuild build.Rebuild `json:"rebuild,omitempty"` // "" = as it was
}

// TargetLine is one target.
type TargetLine struct {
	build.Target
	By       string     `json:"by"`         // who wrote it, a nickname
	StampMS  int64      `json:"written_ms"` // when, milliseconds since 1970
	Excluded []Excluded `json:"excluded"`   // drones that cannot build for it
}

// Excluded is a drone that cannot build for a target, and why.
type Excluded struct {
	Peer   string `json:"peer"`
	Nick   string `json:"nick"`
	Reason string `json:"reason"`
}

// TargetReply is a target with its configuration.
type TargetReply struct {
	Schema int `json:"schema"`
	TargetLine
	New      bool           `json:"new"`     // there was none of that name
	Changed  bool           `json:"changed"` // a version was written
	Changes  []build.Change `json:"changes"` // since the version before
	Bundle   build.Bundle   `json:"bundle"`
	BundleKB int64          `json:"bundle_bytes"`
}

// TargetDiff is what two configurations differ in.
type TargetDiff struct {
	Schema  int            `json:"schema"`
	From    string         `json:"from"`
	To      string         `json:"to"`
	Changes []build.Change `json:"changes"`
}

// FreshRequest asks for everything that a machine needs.
type FreshRequest struct {
	Target string   `json:"target"`
	Atoms  []string `json:"atoms"` // sets and atoms; none = @world
	Full   bool     `json:"full,omitempty"`
	// Named builds the atoms though they are installed, as "emerge ATOM" does.
	Named bool `json:"named,omitempty"`
	// For is a peer that is planned for instead of this machine: a consumer of the
	// target. "" = this machine where its configuration is the target's, else the
	// machine whose target it is.
	For     string `json:"for,omitempty"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Command string `json:"command"`
}

// FreshStep is one line of the checklist.
type FreshStep struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// State is "doing", "done", or "warn": done, and somebody should read it.
	State string `json:"state"`
}

// FreshReply is what came of it.
type FreshReply struct {
	BuildReply
	Target    string   `json:"target"`
	Needed    int      `json:"needed"`    // packages that this machine wants
	Have      int      `json:"have"`      // jobs that the swarm has already
	Seeds     []string `json:"seeds"`     // packages lent by this machine
	Bootstrap []string `json:"bootstrap"` // builds with other flags, to break a cycle
	// Crossed are packages that were built for another target and serve this one,
	// Own those that were, against other dependencies: this target has its own.
	Crossed   []string      `json:"crossed"`
	Own       []string      `json:"own"`
	PlanBytes int           `json:"plan_bytes"`
	Base      build.BaseRef `json:"base"`
}

// AddTarget and the others ask the daemon; see the interface.
func (c *Client) AddTarget(ctx context.Context, req TargetRequest) (TargetReply, error) {
	return ask[TargetReply](ctx, c, "/v1/target/add", req)
}

// Targets lists targets.
func (c *Client) Targets(ctx context.Context) ([]TargetLine, error) {
	return ask[[]TargetLine](ctx, c, "/v1/targets", nil)
}

// ShowTarget shows one target.
func (c *Client) ShowTarget(ctx context.Context, name string) (TargetReply, error) {
	return ask[TargetReply](ctx, c, "/v1/target?name="+url.QueryEscape(name), nil)
}

// DiffTarget compares targets.
func (c *Client) DiffTarget(ctx context.Context, name, other string) (TargetDiff, error) {
	return ask[TargetDiff](ctx, c, "/v1/target/diff", [2]string{name, other})
}

// RemoveTarget removes one.
func (c *Client) RemoveTarget(ctx context.Context, name string) (TargetLine, error) {
	return ask[TargetLine](ctx, c, "/v1/target/rm", name)
}

// Fresh plans an update; say is called for each step as it comes.
func (c *Client) Fresh(ctx context.Context, req FreshRequest, say func(FreshStep)) (FreshReply, error) {
	return steps[FreshReply](ctx, c, "/v1/fresh", req, say)
}

func targetRoutes(mux *http.ServeMux, d Targets) {
	post(mux, "POST /v1/target/add", maxBody, d.AddTarget)
	post(mux, "POST /v1/target/rm", maxBody, d.RemoveTarget)
	get(mux, "GET /v1/targets", func(r *http.Request) (any, error) { return d.Targets(r.Context()) })
	get(mux, "GET /v1/target", func(r *http.Request) (any, error) { return d.ShowTarget(r.Context(), r.URL.Query().Get("name")) })
	post(mux, "POST /v1/target/diff", maxBody, func(ctx context.Context, names [2]string) (TargetDiff, error) {
		return d.DiffTarget(ctx, names[0], names[1])
	})
	told(mux, "POST /v1/fresh", d.Fresh)
}
