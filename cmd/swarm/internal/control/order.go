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
