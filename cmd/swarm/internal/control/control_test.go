package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build/progress"
	"github.com/build-swarm/swarm/build/view"
)

// fake answers like a daemon of one peer. Its nil embedded Daemon is never
// asked for the rest.
type fake struct {
	Daemon
	built BuildRequest
}

func (f *fake) Asked() {}

func (f *fake) Info(context.Context) (Info, error) { return Info{ID: "me", PID: os.Getpid()}, nil }

func (f *fake) Status(context.Context) (view.Snapshot, error) {
	return view.Snapshot{}, errors.New("the board is closed")
}

func (f *fake) Jobs(_ context.Context, round string) ([]view.Job, error) {
	if round != "" {
		return nil, &Error{Kind: KindNotFound, Message: "no round " + round, Hint: "swarm status lists the rounds"}
	}
	return []view.Job{}, nil
}

func (f *fake) Build(ctx context.Context, req BuildRequest) (BuildReply, error) {
	f.built = req
	for n := range int64(3) {
		progress.Tell(ctx, progress.Step{What: "plan", Done: n, All: 3})
	}
	if len(req.Atoms) == 0 {
		return BuildReply{}, &Error{Kind: KindUsage, Message: "nothing is asked for"}
	}
	return BuildReply{Round: "r1"}, nil
}

func (f *fake) Log(_ context.Context, w io.Writer, job string, follow bool) error {
	if job == "none" {
		return &Error{Kind: KindNotFound, Message: "no job none"}
	}
	if _, err := fmt.Fprintf(w, "log of %s, follow %v\n", job, follow); err != nil {
		return err
	}
	if job == "half" {
		return errors.New("the blob is damaged")
	}
	return nil
}

func serve(t *testing.T) (*Client, *fake, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	f := &fake{}
	s, err := NewServer(path, f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return NewClient(path), f, path
}

func TestAnswersAndErrorsTravelWhole(t *testing.T) {
	ctx := context.Background()
	c, f, _ := serve(t)
	if i, err := c.Info(ctx); err != nil || i.ID != "me" {
		t.Errorf("Info: %+v, %v", i, err)
	}
	if jobs, err := c.Jobs(ctx, ""); err != nil || jobs == nil || len(jobs) != 0 {
		t.Errorf("Jobs: %v, %v", jobs, err)
	}
	_, err := c.Jobs(ctx, "a round/with?odd&characters")
	if e, ok := errors.AsType[*Error](err); !ok || *e != (Error{KindNotFound, "no round a round/with?odd&characters", "swarm status lists the rounds"}) {
		t.Errorf("Jobs of an unknown round: %+v", err)
	}
	_, err = c.Status(ctx)
	if e, ok := errors.AsType[*Error](err); !ok || *e != (Error{KindInternal, "the board is closed", ""}) {
		t.Errorf("Status: %+v", err)
	}
	want := BuildRequest{Atoms: []string{"a/b"}, Builder: "sample", Command: "swarm build a/b"}
	if r, err := c.Build(ctx, want); err != nil || r.Round != "r1" || fmt.Sprint(f.built) != fmt.Sprint(want) {
		t.Errorf("Build: %+v, %v; asked %+v", r, err, f.built)
	}
	if _, err := c.Build(ctx, BuildRequest{}); err == nil || err.Error() != "nothing is asked for" {
		t.Errorf("Build of nothing: %v", err)
	}
}

func TestWhoListensHearsHowFarTheDaemonIs(t *testing.T) {
	c, f, _ := serve(t)
	var heard []int64
	ctx := progress.With(context.Background(), func(s progress.Step) { heard = append(heard, s.Done) })
	want := BuildRequest{Atoms: []string{"a/b"}, Builder: "sample", Command: "swarm build a/b"}
	if r, err := c.Build(ctx, want); err != nil || r.Round != "r1" || fmt.Sprint(f.built) != fmt.Sprint(want) {
		t.Errorf("Build: %+v, %v; asked %+v", r, err, f.built)
	}
	if fmt.Sprint(heard) != "[0 1 2]" {
		t.Errorf("heard %v", heard)
	}
	_, err := c.Build(ctx, BuildRequest{})
	if e, ok := errors.AsType[*Error](err); !ok || *e != (Error{KindUsage, "nothing is asked for", ""}) {
		t.Errorf("Build of nothing: %+v", err)
	}
	// Questions are answered as before.
	if i, err := c.Info(ctx); err != nil || i.ID != "me" {
		t.Errorf("Info: %+v, %v", i, err)
	}
}

func TestALogIsWholeOrAnError(t *testing.T) {
	ctx := context.Background()
	c, _, _ := serve(t)
	var b bytes.Buffer
	if err := c.Log(ctx, &b, "app-misc/x-1.0", true); err != nil || b.String() != "log of app-misc/x-1.0, follow true\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	if err := c.Log(ctx, io.Discard, "../../v1/board", false); err != nil {
		t.Errorf("a name with dots is a name: %v", err)
	}
	if err := c.Log(ctx, io.Discard, "half", false); err == nil {
		t.Error("half a log was taken for a whole one")
	}
	err := c.Log(ctx, io.Discard, "none", false)
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != KindNotFound {
		t.Errorf("no log: %v", err)
	}
}

func TestTheSocketIsForItsUser(t *testing.T) {
	_, _, path := serve(t)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode %v, %v; others may use it", st.Mode(), err)
	}
}

func TestOneDaemonOnASocket(t *testing.T) {
	c, _, path := serve(t)
	_, err := NewServer(path, &fake{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another swarm daemon answers on "+path) {
		t.Errorf("a second daemon: %v", err)
	}
	if _, err := c.Info(context.Background()); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
}

func TestWhatACrashLeftIsReplacedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false) // as a crash does
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(path, &fake{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ln.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"file", "directory", "link"} {
		other := filepath.Join(dir, kind)
		switch kind {
		case "file":
			err = os.WriteFile(other, []byte("precious"), 0o600)
		case "directory":
			err = os.Mkdir(other, 0o700)
		case "link":
			err = os.Symlink("/etc/passwd", other)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewServer(other, &fake{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("a %s: %v", kind, err)
		}
		if _, err := os.Lstat(other); err != nil {
			t.Errorf("the %s is gone: %v", kind, err)
		}
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if _, err := NewServer(long, &fake{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the system takes 107") {
		t.Errorf("a long path: %v", err)
	}
}

func TestNoDaemonSaysHowToStartOne(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Info(context.Background())
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Kind != KindUnreachable || e.Hint != "start it: swarm run" {
		t.Errorf("%+v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewClient("/nowhere").Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupt: %v", err)
	}
}

func TestASilentOrOddDaemonIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	answers := []string{"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"id\":\"x\"", ""}
	served := make(chan error, 1)
	go func() {
		for _, a := range answers {
			conn, err := ln.Accept()
			if err != nil {
				served <- err
				return
			}
			_, err = conn.Read(make([]byte, 4096))
			if err == nil {
				_, err = io.WriteString(conn, a)
			}
			if err = errors.Join(err, conn.Close()); err != nil {
				served <- err
				return
			}
		}
		served <- nil
	}()
	c := NewClient(path)
	for i, want := range []string{"the daemon answered 418", "read the daemon's answer", "does not answer"} {
		if _, err := c.Info(context.Background()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "http://") {
			t.Errorf("answer %d: %v, want %q", i, err, want)
		}
	}
	if err := errors.Join(<-served, ln.Close()); err != nil {
		t.Error(err)
	}
}

func TestARequestThatIsNoJSONIsRefused(t *testing.T) {
	_, _, path := serve(t)
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://swarm/v1/build", strings.NewReader(`{"atoms":[`+strings.Repeat(" ", maxBody)+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusBadRequest || !bytes.Contains(b, []byte("not JSON")) {
		t.Errorf("%s %s %v", res.Status, b, err)
	}
}
