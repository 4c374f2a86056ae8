package control

import (
	"context"
	"net/http"
)

// Trees is the part of a daemon that compares ebuild repositories and brings
// them to one revision.
type Trees interface {
	VerifyTrees(ctx context.Context) (TreesReply, error)
	// SyncTrees has Portage sync here, unless told not to, and the peers take
	// over what came of it.
	SyncTrees(ctx context.Context, req SyncRequest) (TreesReply, error)
}

// SyncRequest asks for one revision everywhere.
type SyncRequest struct {
	Here bool `json:"here"` // take this machine's trees as they are, without emerge --sync
}

// TreesReply has a line for each peer and repository.
type TreesReply struct {
	Schema int        `json:"schema"`
	Lines  []TreeLine `json:"lines"`
	Drift  bool       `json:"drift"` // some repository is not the same everywhere
}

// TreeLine is one repository on one peer. State is ok, drift, missing (the peer
// has no such repository), unknown (it did not answer) or none (no Portage).
type TreeLine struct {
	Peer     string `json:"peer"`
	Nick     string `json:"nick"`
	Repo     string `json:"repo"`
	Digest   string `json:"digest"`
	Revision string `json:"revision"`
	Stamp    int64  `json:"stamp"` // seconds since 1970 of the revision; 0 = unknown
	State    string `json:"state"`
	Note     string `json:"note"` // one line; "" = nothing to say
}

// VerifyTrees compares repositories.
func (c *Client) VerifyTrees(ctx context.Context) (TreesReply, error) {
	return ask[TreesReply](ctx, c, "/v1/trees", struct{}{}) // the first look reads every file
}

// SyncTrees brings them to one revision.
func (c *Client) SyncTrees(ctx context.Context, req SyncRequest) (TreesReply, error) {
	return ask[TreesReply](ctx, c, "/v1/sync", req)
}

func treeRoutes(mux *http.ServeMux, d Trees) {
	post(mux, "POST /v1/trees", maxBody, func(ctx context.Context, _ struct{}) (TreesReply, error) { return d.VerifyTrees(ctx) })
	post(mux, "POST /v1/sync", maxBody, d.SyncTrees)
}
