package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
)

// PauseHere pauses the builds of this machine alone, for a while or until it is
// lifted (Off).
type PauseHere struct {
	ForMS int64 `json:"for_ms,omitempty"`
	Off   bool  `json:"off,omitempty"`
}

// Guest is the part of a Daemon that has to do with whose machine it is on.
type Guest interface {
	PauseHere(ctx context.Context, p PauseHere) error
	// Asked is called for every request, before it is served.
	Asked()
}

// PauseHere asks for a pause of this machine's builds.
func (c *Client) PauseHere(ctx context.Context, p PauseHere) error {
	_, err := ask[PauseHere](ctx, c, "/v1/pause-here", p)
	return err
}

func handleGuest(mux *http.ServeMux, d Guest) {
	get(mux, "POST /v1/pause-here", func(r *http.Request) (any, error) {
		var p PauseHere
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&p); err != nil {
			return nil, &Error{Kind: KindUsage, Message: "the request is not JSON: " + err.Error()}
		}
		return p, d.PauseHere(r.Context(), p)
	})
}
