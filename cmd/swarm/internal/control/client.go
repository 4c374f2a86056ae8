package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/view"
)

// Client talks to the daemon behind one socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient does not connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Info, Status and the others ask the daemon; see Daemon.
func (c *Client) Info(ctx context.Context) (Info, error) { return ask[Info](ctx, c, "/v1/info", nil) }

// Status returns the swarm as the daemon sees it.
func (c *Client) Status(ctx context.Context) (view.Snapshot, error) {
	return ask[view.Snapshot](ctx, c, "/v1/status", nil)
}

// Jobs lists the jobs of the open rounds, or of one round.
func (c *Client) Jobs(ctx context.Context, round string) ([]view.Job, error) {
	return ask[[]view.Job](ctx, c, "/v1/jobs?round="+url.QueryEscape(round), nil)
}

// Peers lists the peers with how they are reached.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return ask[[]Peer](ctx, c, "/v1/peers", nil)
}

// Invite returns a join code.
func (c *Client) Invite(ctx context.Context) (string, error) {
	return ask[string](ctx, c, "/v1/invite", nil)
}

// Board returns every record's bytes.
func (c *Client) Board(ctx context.Context) ([][]byte, error) {
	return ask[[][]byte](ctx, c, "/v1/board", nil)
}

// Build asks for packages.
func (c *Client) Build(ctx context.Context, req BuildRequest) (BuildReply, error) {
	return ask[BuildReply](ctx, c, "/v1/build", req)
}

// Log copies a job's log to w.
func (c *Client) Log(ctx context.Context, w io.Writer, job string, follow bool) error {
	path := "/v1/logs?job=" + url.QueryEscape(job)
	if follow {
		path += "&follow"
	}
	res, err := c.do(ctx, path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("read log of %s: %w", job, err)
	}
	return nil
}

// patience is how long the daemon may take over a question. Only a build
// request takes longer: Portage thinks.
const patience = 20 * time.Second

func ask[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var v T
	if body == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, &Error{Kind: KindUnreachable,
			Message: fmt.Sprintf("the daemon on %s did not answer within %s", c.path, patience), Hint: "its log says what it is doing"})
		defer cancel()
	}
	res, err := c.do(ctx, path, body)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Type") == withProgress {
		return follow[T](ctx, res.Body, path)
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		if late, ok := errors.AsType[*Error](context.Cause(ctx)); ok {
			return v, late
		}
		return v, fmt.Errorf("read the daemon's answer to %s: %w", path, err)
	}
	return v, nil
}

func (c *Client) do(ctx context.Context, path string, body any) (*http.Response, error) {
	method, r := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		method, r = http.MethodPost, bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://swarm"+path, r)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if method == http.MethodPost && progress.Listened(ctx) {
		req.Header.Set("Accept", withProgress)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if late, ok := errors.AsType[*Error](context.Cause(ctx)); ok {
			return nil, late
		}
		return nil, c.explain(err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var e Error
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(&e); err != nil || e.Message == "" {
		return nil, &Error{Kind: KindInternal, Message: "the daemon answered " + res.Status}
	}
	return nil, &e
}

// explain says why no daemon answers, and what to do.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Kind: KindUnreachable, Message: "no swarm daemon answers on " + c.path, Hint: "start it: swarm run"}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Kind: KindUnreachable, Message: "this user may not use " + c.path, Hint: "use sudo, or join its group: usermod -aG " + group + " USER"}
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the made-up URL
	}
	return &Error{Kind: KindUnreachable, Message: fmt.Sprintf("the daemon on %s does not answer: %v", c.path, err), Hint: "its log says what it is doing"}
}
