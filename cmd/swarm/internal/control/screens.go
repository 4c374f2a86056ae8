package control

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/build-swarm/swarm/build/plan/replay"
	"github.com/build-swarm/swarm/build/view"
)

// MaxEvents is the most events of one answer.
const MaxEvents = 20_000

// Events is what happened, as one peer saw it, the oldest first.
type Events struct {
	Schema int          `json:"schema"`
	Events []view.Event `json:"events"`
}

// Events lists what happened from a time on (milliseconds since 1970), the
// newest limit of it.
func (c *Client) Events(ctx context.Context, since int64, limit int) (Events, error) {
	return ask[Events](ctx, c, fmt.Sprintf("/v1/events?since=%d&limit=%d", since, limit), nil)
}

// Moment is what the schedule and the forecast are computed from, for a recording.
func (c *Client) Moment(ctx context.Context) (replay.Moment, error) {
	return ask[replay.Moment](ctx, c, "/v1/moment", nil)
}

// Web is the page of a peer, and a token that lets it give orders. The token
// stands behind the # of URL, which a browser sends to nobody.
type Web struct {
	Schema  int    `json:"schema"`
	Page    string `json:"page"`
	URL     string `json:"url"`
	Token   string `json:"token"`
	Seconds int    `json:"valid_s"`
}

// Web hands out a token for the page.
func (c *Client) Web(ctx context.Context) (Web, error) {
	return ask[Web](ctx, c, "/v1/web", struct{}{})
}

func serveEvents(d Daemon) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
		if err != nil {
			return nil, &Error{Kind: KindUsage, Message: "since wants milliseconds since 1970"}
		}
		limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
		if err != nil || limit < 1 || limit > MaxEvents {
			return nil, &Error{Kind: KindUsage, Message: fmt.Sprintf("limit wants 1 to %d", MaxEvents)}
		}
		return d.Events(r.Context(), since, limit)
	}
}
