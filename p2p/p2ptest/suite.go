package p2ptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
)

// patience bounds what a suite waits for; nothing waits for it to pass.
const patience = 30 * time.Second

// TestNetwork is what every p2p.Network must do. connected returns n networks,
// each connected with all others; it closes them when the test ends.
func TestNetwork(t *testing.T, connected func(t *testing.T, n int) []p2p.Network) {
	for name, f := range map[string]func(*testing.T, []p2p.Network){
		"peers are sorted and without oneself":         peersAreSorted,
		"bytes arrive in order and end with EOF":       bytesArrive,
		"a reset is not an EOF":                        resetIsNotEOF,
		"a deadline ends a read and may be moved":      deadlineEndsRead,
		"an unknown peer is unreachable":               unknownPeer,
		"an unknown protocol is named":                 unknownProtocol,
		"a request is answered":                        requestAnswered,
		"a failing handler reaches the asker as text":  handlerFails,
		"sizes are bounded both ways":                  sizesBounded,
		"cancelling ends a request":                    cancelEndsRequest,
		"closing is seen by the others and by streams": closingIsSeen,
	} {
		t.Run(name, func(t *testing.T) { f(t, connected(t, 3)) })
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func mustOpen(t *testing.T, n p2p.Network, peer, proto string) p2p.Stream {
	t.Helper()
	s, err := n.Open(within(t), peer, proto)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

func peersAreSorted(t *testing.T, n []p2p.Network) {
	for _, me := range n {
		var want []string
		for _, other := range n {
			if other.Self() != me.Self() {
				want = append(want, other.Self())
			}
		}
		slices.Sort(want)
		if got := me.Peers(); !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", me.Self(), got, want)
		}
	}
}

func bytesArrive(t *testing.T, n []p2p.Network) {
	n[1].Handle("/echo/1", func(s p2p.Stream) {
		if s.Peer() != n[0].Self() {
			_ = s.Reset()
			return
		}
		if _, err := io.Copy(s, s); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
	s := mustOpen(t, n[0], n[1].Self(), "/echo/1")
	if s.Peer() != n[1].Self() {
		t.Errorf("the stream's peer is %s, want %s", s.Peer(), n[1].Self())
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 512<<10) // 8 MiB: far above any window
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(sent)
		wrote <- errors.Join(err, s.CloseWrite())
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes back (%v), want the %d sent", len(got), err, len(sent))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func resetIsNotEOF(t *testing.T, n []p2p.Network) {
	n[1].Handle("/reset/1", func(s p2p.Stream) {
		_, _ = io.ReadFull(s, make([]byte, 1)) // opened, on both sides
		_ = s.Reset()
	})
	s := mustOpen(t, n[0], n[1].Self(), "/reset/1")
	_, _ = s.Write([]byte("x"))
	if _, err := io.ReadAll(s); err == nil {
		t.Error("a reset stream reads like a finished one")
	}
}

func deadlineEndsRead(t *testing.T, n []p2p.Network) {
	n[1].Handle("/late/1", func(s p2p.Stream) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(s, b); err == nil {
			_, _ = s.Write(b)
		}
		_ = s.Close()
	})
	s := mustOpen(t, n[0], n[1].Self(), "/late/1")
	if err := s.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Fatalf("read after the deadline: %v, want a timeout", err)
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("z")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "z" {
		t.Errorf("after a new deadline: %q, %v", got, err)
	}
}

func unknownPeer(t *testing.T, n []p2p.Network) {
	if _, err := n[0].Open(within(t), ID(1<<20), "/x/1"); !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	if _, err := n[0].Open(within(t), "not a peer ID", "/x/1"); !errors.Is(err, p2p.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

func unknownProtocol(t *testing.T, n []p2p.Network) {
	if _, err := p2p.Request(within(t), n[0], n[1].Self(), "/nobody/1", nil, 10); !errors.Is(err, p2p.ErrNoProtocol) {
		t.Errorf("got %v, want ErrNoProtocol", err)
	}
	n[1].Handle("/gone/1", func(s p2p.Stream) { _ = s.Close() })
	n[1].Handle("/gone/1", nil)
	if _, err := p2p.Request(within(t), n[0], n[1].Self(), "/gone/1", nil, 10); !errors.Is(err, p2p.ErrNoProtocol) {
		t.Errorf("got %v, want ErrNoProtocol", err)
	}
}

func requestAnswered(t *testing.T, n []p2p.Network) {
	p2p.Serve(n[1], "/up/1", 1<<20, func(_ context.Context, from string, req []byte) ([]byte, error) {
		return append([]byte(from+" "), bytes.ToUpper(req)...), nil
	})
	for _, req := range []string{"", "hello", strings.Repeat("a", 1<<20)} {
		got, err := p2p.Request(within(t), n[0], n[1].Self(), "/up/1", []byte(req), 2<<20)
		if want := n[0].Self() + " " + strings.ToUpper(req); err != nil || string(got) != want {
			t.Errorf("request of %d bytes: %.60q, %v", len(req), got, err)
		}
	}
}

func handlerFails(t *testing.T, n []p2p.Network) {
	p2p.Serve(n[1], "/fail/1", 100, func(context.Context, string, []byte) ([]byte, error) {
		return nil, errors.New("no such thing" + strings.Repeat(".", 4000))
	})
	_, err := p2p.Request(within(t), n[0], n[1].Self(), "/fail/1", nil, 100)
	re, ok := errors.AsType[*p2p.RemoteError](err)
	if !ok || re.Peer != n[1].Self() || !strings.HasPrefix(re.Text, "no such thing") || len(re.Text) > 1024 {
		t.Errorf("got %v, want the handler's text, cut", err)
	}
}

func sizesBounded(t *testing.T, n []p2p.Network) {
	p2p.Serve(n[1], "/big/1", 100, func(context.Context, string, []byte) ([]byte, error) {
		return make([]byte, 101), nil
	})
	if _, err := p2p.Request(within(t), n[0], n[1].Self(), "/big/1", make([]byte, 101), 200); err == nil ||
		!strings.Contains(err.Error(), "100 allowed") {
		t.Errorf("a request above the server's bound: %v", err)
	}
	if _, err := p2p.Request(within(t), n[0], n[1].Self(), "/big/1", nil, 100); !errors.Is(err, p2p.ErrTooLarge) {
		t.Errorf("a reply above the asker's bound: %v, want ErrTooLarge", err)
	}
}

func cancelEndsRequest(t *testing.T, n []p2p.Network) {
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan struct{})
	n[1].Handle("/never/1", func(s p2p.Stream) {
		cancel()
		_, _ = io.Copy(io.Discard, s)
		_, _ = s.Read(make([]byte, 1))
		close(ended)
	})
	if _, err := p2p.Request(ctx, n[0], n[1].Self(), "/never/1", nil, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	<-ended
}

func closingIsSeen(t *testing.T, n []p2p.Network) {
	began, ended := make(chan struct{}), make(chan error, 1)
	n[1].Handle("/hold/1", func(s p2p.Stream) {
		_, _ = io.ReadFull(s, make([]byte, 1))
		close(began)
		_, err := s.Read(make([]byte, 1))
		ended <- err
	})
	s := mustOpen(t, n[0], n[1].Self(), "/hold/1")
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-began
	watch := n[0].Watch()
	if err := n[1].(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a handler's read outlived Close")
	}
	if _, err := n[1].Open(within(t), n[2].Self(), "/hold/1"); !errors.Is(err, p2p.ErrClosed) {
		t.Errorf("open on a closed network: %v, want ErrClosed", err)
	}
	ctx := within(t)
	for slices.Contains(n[0].Peers(), n[1].Self()) {
		select {
		case <-watch:
		case <-ctx.Done():
			t.Fatal("no signal for a peer that left")
		}
	}
	if _, err := io.ReadAll(s); err == nil {
		t.Error("a stream to a peer that left reads like a finished one")
	}
}

// TestTopic is what every gossip.Topic must do. joined returns n members of one
// topic, connected and subscribed to each other, each with the validator; it
// closes them when the test ends.
func TestTopic(t *testing.T, joined func(t *testing.T, n int, v gossip.Validator) []gossip.Topic) {
	t.Run("a message reaches every other member once", func(t *testing.T) {
		m := joined(t, 3, nil)
		for i, text := range []string{"one", "two", "two", "three"} {
			if err := m[i%2].Publish(within(t), []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for range 3 {
			msg, err := m[2].Next(within(t))
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			got = append(got, string(msg.Data))
		}
		slices.Sort(got)
		if want := []string{"one", "three", "two"}; !slices.Equal(got, want) {
			t.Errorf("received %v, want %v", got, want)
		}
	})
	t.Run("a member does not hear itself", func(t *testing.T) {
		m := joined(t, 2, nil)
		if err := m[0].Publish(within(t), []byte("mine")); err != nil {
			t.Fatal(err)
		}
		if msg, err := m[1].Next(within(t)); err != nil || string(msg.Data) != "mine" {
			t.Fatalf("%q, %v", msg.Data, err)
		}
		if err := m[1].Publish(within(t), []byte("theirs")); err != nil {
			t.Fatal(err)
		}
		if msg, err := m[0].Next(within(t)); err != nil || string(msg.Data) != "theirs" {
			t.Errorf("the first message heard is %q (%v), want theirs", msg.Data, err)
		}
	})
	t.Run("a message above the limit is an error", func(t *testing.T) {
		m := joined(t, 2, nil)
		if err := m[0].Publish(within(t), make([]byte, gossip.MaxMessage+1)); !errors.Is(err, p2p.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
		if err := m[0].Publish(within(t), make([]byte, gossip.MaxMessage)); err != nil {
			t.Fatal(err)
		}
		if msg, err := m[1].Next(within(t)); err != nil || len(msg.Data) != gossip.MaxMessage {
			t.Errorf("the largest message: %d bytes, %v", len(msg.Data), err)
		}
	})
	t.Run("what the validator refuses is not delivered", func(t *testing.T) {
		m := joined(t, 2, func(_ string, data []byte) gossip.Verdict {
			switch data[0] {
			case 'i':
				return gossip.Ignore
			case 'r':
				return gossip.Reject
			}
			return gossip.Accept
		})
		for _, text := range []string{"ignored", "rejected", "good"} {
			// A real topic may refuse a local message that its own validator refuses.
			if err := m[0].Publish(within(t), []byte(text)); err != nil && text == "good" {
				t.Fatal(err)
			}
		}
		if msg, err := m[1].Next(within(t)); err != nil || string(msg.Data) != "good" {
			t.Errorf("received %q (%v), want the good one alone", msg.Data, err)
		}
	})
	t.Run("every message of a burst arrives", func(t *testing.T) {
		m := joined(t, 3, nil)
		const burst = 200
		for i := range burst {
			if err := m[0].Publish(within(t), fmt.Appendf(nil, "message %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range burst {
			if _, err := m[1].Next(within(t)); err != nil {
				t.Fatalf("after %d of %d: %v", i, burst, err)
			}
		}
	})
	t.Run("closing ends Next and Publish", func(t *testing.T) {
		m := joined(t, 2, nil)
		ctx, cancel := context.WithCancel(within(t))
		cancel()
		if _, err := m[0].Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Next with a cancelled context: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := m[0].Next(within(t))
			done <- err
		}()
		if err := m[0].Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, p2p.ErrClosed) {
			t.Errorf("Next on a closed topic: %v, want ErrClosed", err)
		}
		if err := m[0].Publish(within(t), []byte("late")); !errors.Is(err, p2p.ErrClosed) {
			t.Errorf("Publish on a closed topic: %v, want ErrClosed", err)
		}
	})
}
