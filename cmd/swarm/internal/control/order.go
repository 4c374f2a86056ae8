package control

import (
	"context"
	"net/url"

	"github.com/build-swarm/swarm/build/view"
)

// All is the scope of an order to everything.
const All = "all"

// Order is what a person asks of the swarm. Verb is one of claims.Verb. Scope is what they typed: a job, a
// round, a peer, a target, or All, by verb. Off lifts it again.
type Order struct {
	Verb   string `json:"verb"`
	Scope  string `json:"scope"`
	Off    bool   `json:"off,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// OrderReply says what the order is about.
type OrderReply struct {
	Schema int    `json:"schema"`
	Verb   string `json:"verb"`
	Scope  string `json:"scope"`
	Name   string `json:"name"` // for people
	Off    bool   `json:"off"`
	// Built lists what a banned peer built: it stays until somebody removes it.
	Built []Built `json:"built,omitempty"`
}

// Built is one artifact.
type Built struct {
	Key  string `json:"key"`
	CPV  string `json:"cpv"`
	CID  string `json:"cid"`
	AtMS int64  `json:"at_unix_ms"`
}

// Rekeyed is a swarm with a new key.
type Rekeyed struct {
	Schema int    `json:"schema"`
	Swarm  string `json:"swarm"` // fingerprint of the new key
	Code   string `json:"join_code"`
}

// Rekey makes a new swarm key.
func (c *Client) Rekey(ctx context.Context) (Rekeyed, error) {
	return ask[Rekeyed](ctx, c, "/v1/rekey", struct{}{})
}

// Why explains a job.
func (c *Client) Why(ctx context.Context, job string) (view.Why, error) {
	return ask[view.Why](ctx, c, "/v1/why?job="+url.QueryEscape(job), nil)
}

// WhyDrone explains a drone.
func (c *Client) WhyDrone(ctx context.Context, peer string) (view.DroneWhy, error) {
	return ask[view.DroneWhy](ctx, c, "/v1/why?drone="+url.QueryEscape(peer), nil)
}

// Order gives an order.
func (c *Client) Order(ctx context.Context, o Order) (OrderReply, error) {
	return ask[OrderReply](ctx, c, "/v1/order", o)
}
