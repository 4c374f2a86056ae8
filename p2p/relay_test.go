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

func TestADetourIsLeftWhenTheDirectWayWorks(t *testing.T) {
	key := p2p.NewSwarmKey()
	member := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key})
	late := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Static: member.Addrs()})
	// Not run, so that it dials whom this test says, and listens nowhere.
	asker, err := p2p.NewHost(p2p.Config{Identity: p2ptest.Identity(2), SwarmKey: key})
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	if err := asker.Connect(within(t), member.Addrs()); err != nil {
		t.Fatal(err)
	}
	until(t, func() string {
		if err := asker.Detour(within(t), late.Self()); err != nil {
			return err.Error() // it has no reservation yet
		}
		return ""
	})
	if info, _ := asker.PeerInfo(late.Self()); info.Kind != "relay" {
		t.Fatalf("it is reached as %+v", info)
	}
	asker.Learn(late.Self(), late.Addrs())
	asker.GoStraight(within(t))
	if info, _ := asker.PeerInfo(late.Self()); info.Kind != "LAN" {
		t.Errorf("it is reached as %+v", info)
	}
	if n := asker.Connections(late.Self()); n != 1 {
		t.Errorf("%d connections to it are open; the detour was not in use", n)
	}
}
