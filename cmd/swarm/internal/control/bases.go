package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/build-swarm/swarm/build"
)

// Bases is the part of a Daemon that keeps bases. Its methods may take minutes.
type Bases interface {
	AddBase(ctx context.Context, req BaseRequest) (BaseInfo, error)
	ListBases(ctx context.Context) (BaseList, error)
	ShowBase(ctx context.Context, name string) (BaseInfo, error)
	RemoveBase(ctx context.Context, name string) error
	// UpdateBase has the swarm build the next generation; say is told each step.
	UpdateBase(ctx context.Context, req BaseUpdate, say func(FreshStep)) (BaseInfo, error)
}

// BaseUpdate asks for the next generation of a base.
type BaseUpdate struct {
	Name   string `json:"name"`
	Target string `json:"target"`  // whose configuration says what the base holds
	DryRun bool   `json:"dry_run"` // say what would be built
	// Depclean takes away what @system no longer needs.
	Depclean bool   `json:"depclean,omitempty"`
	Command  string `json:"command"` // what was typed, for people
}

// BaseRequest asks for a base. One of Stage3, From and Host is set.
type BaseRequest struct {
	Name      string `json:"name"`
	Stage3    string `json:"stage3,omitempty"` // file of a stage archive, absolute
	Signature string `json:"signature,omitempty"`
	Keyring   string `json:"keyring,omitempty"`
	Unsigned  bool   `json:"unsigned,omitempty"`
	From      string `json:"from,omitempty"` // "/": the packages of this machine's @system
	Host      bool   `json:"host,omitempty"` // this machine's own root; provisional
}

// BaseInfo is one base.
type BaseInfo struct {
	Schema      int               `json:"schema"`
	Name        string            `json:"name"`
	Digest      string            `json:"digest"`
	Kind        build.BaseKind    `json:"kind"`
	Provisional bool              `json:"provisional"`
	Arch        string            `json:"arch"`
	Generation  int               `json:"generation"`
	Added       time.Time         `json:"added"`
	Source      string            `json:"source"`
	Portage     string            `json:"portage"`
	Bytes       int64             `json:"bytes"` // of its archives
	Earlier     []string          `json:"earlier"`
	Targets     []string          `json:"targets"` // that build on it
	Packages    []build.Installed `json:"packages"`
}

// BaseList is every base that has a name here.
type BaseList struct {
	Schema int        `json:"schema"`
	Bases  []BaseInfo `json:"bases"` // without their packages
}

func baseRoutes(mux *http.ServeMux, d Bases) {
	get(mux, "GET /v1/bases", func(r *http.Request) (any, error) { return d.ListBases(r.Context()) })
	get(mux, "GET /v1/base", func(r *http.Request) (any, error) { return d.ShowBase(r.Context(), r.URL.Query().Get("name")) })
	get(mux, "POST /v1/base", func(r *http.Request) (any, error) {
		var req BaseRequest
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10)).Decode(&req); err != nil {
			return nil, &Error{Kind: KindUsage, Message: "the request does not parse"}
		}
		return d.AddBase(r.Context(), req)
	})
	told(mux, "POST /v1/base/update", d.UpdateBase)
	get(mux, "POST /v1/base/remove", func(r *http.Request) (any, error) {
		return struct{}{}, d.RemoveBase(r.Context(), r.URL.Query().Get("name"))
	})
}

// UpdateBase asks for the next generation; see Bases.
func (c *Client) UpdateBase(ctx context.Context, req BaseUpdate, say func(FreshStep)) (BaseInfo, error) {
	return steps[BaseInfo](ctx, c, "/v1/base/update", req, say)
}

// AddBase asks for a base; see Bases.
func (c *Client) AddBase(ctx context.Context, req BaseRequest) (BaseInfo, error) {
	return ask[BaseInfo](ctx, c, "/v1/base", req)
}

// ListBases lists bases; see Bases.
func (c *Client) ListBases(ctx context.Context) (BaseList, error) {
	return ask[BaseList](ctx, c, "/v1/bases", nil)
}

// ShowBase describes one; see Bases.
func (c *Client) ShowBase(ctx context.Context, name string) (BaseInfo, error) {
	return ask[BaseInfo](ctx, c, "/v1/base?name="+url.QueryEscape(name), nil)
}

// RemoveBase takes a name away; see Bases.
func (c *Client) RemoveBase(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, "/v1/base/remove?name="+url.QueryEscape(name), struct{}{})
	return err
}
