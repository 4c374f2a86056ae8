package p2p_test

import (
	"io"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

func TestAPeerThatNobodyCanDialIsReachedThroughAMember(t *testing.T) {
	key := p2p.NewSwarmKey()
	member := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	// These two listen nowhere, as behind NAT; both know the member alone.
	hidden := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: member.Addrs(), Listen: []string{}})
	asker := start(t, p2p.Config{Identity: p2ptest.Identity(2), SwarmKey: key, Static: member.Addrs(), Listen: []string{}})
	hidden.Handle("/test/echo", func(s p2p.Stream) {
		_, _ = io.Copy(s, s) // the test looks at what comes back
		_ = s.Close()
	})
	ctx := within(t)
	var s p2p.Stream
	for {
		var err error
		if s, err = asker.Open(ctx, hidden.Self(), "/test/echo"); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond): // not yet connected to the member, both
		}
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if info, ok := asker.PeerInfo(hidden.Self()); !ok || info.Kind != "relay" {
		t.Errorf("%+v", info)
	}
	if info, ok := asker.PeerInfo(member.Self()); !ok || info.Kind != "LAN" {
		t.Errorf("%+v", info)
	}
}
