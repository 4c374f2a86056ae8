package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	"github.com/build-swarm/swarm/build"
)

const (
	sendWithin    = 15 * time.Second
	commandWithin = 30 * time.Second
)

// ParseURL makes the sender for a webhook's address:
//
//	https://HOST/api/push/TOKEN    an Uptime Kuma push monitor
//	https://ntfy.HOST/TOPIC, or ntfy+https://HOST/TOPIC
//	https://HOST/PATH              gets each Message as JSON, by POST
//
// An address may carry a secret, so no error and no log names more than its
// host.
func ParseURL(text string) (Sender, error) {
	ntfy := false
	if rest, ok := strings.CutPrefix(text, "ntfy+"); ok {
		ntfy, text = true, rest
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("an alert's address begins with https:// (or ntfy+https://)")
	}
	h := hook{url: u, client: &http.Client{Timeout: sendWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	switch {
	case strings.HasPrefix(u.Path, "/api/push/"):
		return &kuma{h}, nil
	case ntfy || u.Hostname() == "ntfy.sh" || strings.HasPrefix(u.Hostname(), "ntfy."):
		topic := path.Base(u.Path)
		if topic == "/" || topic == "." {
			return nil, errors.New("an ntfy address ends in a topic: https://ntfy.sh/TOPIC")
		}
		return &ntfySender{h, topic}, nil
	}
	return &jsonSender{h}, nil
}

// Parse makes the senders of a setting: an address each, or the absolute path
// of a program.
func Parse(where []string) ([]Sender, error) {
	var out []Sender
	for _, w := range where {
		if strings.HasPrefix(w, "/") {
			st, err := os.Stat(w)
			if err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
				return nil, fmt.Errorf("alert %s: there is no program of that path", w)
			}
			out = append(out, &Command{w})
			continue
		}
		s, err := ParseURL(w)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

type hook struct {
	url    *url.URL
	client *http.Client
}

func (h *hook) do(ctx context.Context, method string, u *url.URL, body any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode an alert: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), r)
	if err != nil {
		return fmt.Errorf("tell %s: not an address", h.url.Host)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "build-swarm")
	res, err := h.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the address
		}
		return fmt.Errorf("tell %s: %w", h.url.Host, err)
	}
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can be used again
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("tell %s: %w", h.url.Host, err)
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("tell %s: it answers %s", h.url.Host, res.Status)
	}
	return nil
}

// jsonSender posts a Message as it is.
type jsonSender struct{ hook }

func (s *jsonSender) Send(ctx context.Context, m Message) error {
	return s.do(ctx, http.MethodPost, s.url, m)
}
func (s *jsonSender) Pulse(context.Context, []string) error { return nil }

// ntfySender publishes to a topic (docs.ntfy.sh, publish as JSON).
type ntfySender struct {
	hook
	topic string
}

func (s *ntfySender) Send(ctx context.Context, m Message) error {
	root := *s.url
	root.Path = path.Dir(s.url.Path)
	priority, tag := 3, "warning"
	switch {
	case m.State == "resolved":
		priority, tag = 2, "white_check_mark"
	case m.Severity == "blocked":
		priority, tag = 4, "rotating_light"
	}
	return s.do(ctx, http.MethodPost, &root, map[string]any{"topic": s.topic, "title": m.Title, "message": Text(m), "priority": priority, "tags": []string{tag}})
}
func (s *ntfySender) Pulse(context.Context, []string) error { return nil }

// kuma feeds a push monitor: it is down while something is wrong, and goes down
// by itself when the whole swarm falls silent.
type kuma struct{ hook }

func (s *kuma) Send(ctx context.Context, m Message) error {
	if m.State == "open" {
		return s.push(ctx, "down", m.Title+". "+Text(m))
	}
	return nil // the next pulse says how things are
}

func (s *kuma) Pulse(ctx context.Context, open []string) error {
	if len(open) > 0 {
		return s.push(ctx, "down", strings.Join(open, "; "))
	}
	return s.push(ctx, "up", "OK")
}

func (s *kuma) push(ctx context.Context, status, text string) error {
	u := *s.url
	q := url.Values{"status": {status}, "msg": {build.OneLine(text, 250)}, "ping": {""}}
	u.RawQuery = q.Encode()
	return s.do(ctx, http.MethodGet, &u, nil)
}

// Text is a message's body for people.
func Text(m Message) string {
	parts := []string{}
	if m.Detail != "" {
		parts = append(parts, m.Detail+".")
	}
	if m.HoldsUp > 0 {
		parts = append(parts, fmt.Sprintf("%d jobs wait because of it.", m.HoldsUp))
	}
	if len(m.Drones) > 0 {
		parts = append(parts, "Tried on "+strings.Join(m.Drones, ", ")+".")
	}
	if m.Do != "" {
		parts = append(parts, "Next: "+m.Do)
	}
	if len(parts) == 0 {
		parts = append(parts, "Nothing needs to be done.")
	}
	return build.OneLine(strings.Join(parts, " "), 1000)
}

// Command runs a program for each message, with the Message as JSON on its
// standard input and its state in SWARM_ALERT. No shell reads any of it.
type Command struct{ Path string }

// Send runs the program; an exit code other than 0 is an error.
func (c *Command) Send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode an alert: %w", err)
	}
	cmd := exec.CommandContext(ctx, c.Path)
	cmd.Stdin = bytes.NewReader(b)
	cmd.WaitDelay = time.Second
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, "SWARM_ALERT="+m.State)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s for an alert: %w: %s", c.Path, err, build.OneLine(string(out), 200))
	}
	return nil
}

// Pulse does nothing: a command is told of changes.
func (c *Command) Pulse(context.Context, []string) error { return nil }
