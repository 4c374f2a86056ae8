package discovery_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/discovery"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// node is a host with its discovery, both running.
type node struct {
	*p2p.Host
	stop func()
}

func start(t *testing.T, cfg p2p.Config, d discovery.Config) *node {
	t.Helper()
	h, err := p2p.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{h.Run, discovery.New(h, d).Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	n := &node{Host: h, stop: sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(n.stop)
	return n
}

func (n *node) sees(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	ctx, watch := within(t), n.Watch()
	for !slices.Equal(n.Peers(), want) {
		select {
		case <-watch:
		case <-ctx.Done():
			t.Fatalf("%s sees %v, want %v", n.Self(), n.Peers(), want)
		}
	}
}

func TestPeersFindEachOtherByMDNSAndNotAnotherSwarm(t *testing.T) {
	if !multicast(t) {
		t.Skip("SKIPPED, mDNS IS NOT TESTED HERE: no multicast on this machine")
	}
	listen := []string{"/ip4/0.0.0.0/tcp/0"}
	key := p2p.NewSwarmKey()
	a := start(t, p2p.Config{Identity: p2ptest.Identity(0), SwarmKey: key, Listen: listen}, discovery.Config{})
	b := start(t, p2p.Config{Identity: p2ptest.Identity(1), SwarmKey: key, Listen: listen}, discovery.Config{})
	other := start(t, p2p.Config{Identity: p2ptest.Identity(2), SwarmKey: p2p.NewSwarmKey(), Listen: listen}, discovery.Config{})
	a.sees(t, b.Self())
	b.sees(t, a.Self())
	if known := other.Known(); len(known) != 0 {
		t.Errorf("another swarm's peers were found: %+v", known)
	}
}

// multicast says whether a datagram to the mDNS group comes back here.
func multicast(t *testing.T) bool {
	ifaces, err := net.Interfaces()
	if err != nil {
		return false
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 53535} // not mDNS's own port: nobody else should read it
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		in, err := net.ListenMulticastUDP("udp4", &i, group)
		if err != nil {
			continue
		}
		defer in.Close()
		out, err := net.DialUDP("udp4", nil, group)
		if err != nil {
			continue
		}
		defer out.Close()
		if _, err := out.Write([]byte("x")); err != nil {
			continue
		}
		if err := in.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			continue
		}
		if _, _, err := in.ReadFrom(make([]byte, 1)); err == nil {
			return true
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Log(err)
		}
	}
	return false
}

func TestALoopbackOnlyHostRunsWithoutMDNS(t *testing.T) {
	n := start(t, p2p.Config{
		Identity: p2ptest.Identity(0), SwarmKey: p2p.NewSwarmKey(), Listen: []string{"/ip4/127.0.0.1/tcp/0"},
	}, discovery.Config{})
	if len(n.Peers()) != 0 {
		t.Error("peers out of nothing")
	}
}

func TestNothingRunsAfterTheEnd(t *testing.T) {
	key := p2p.NewSwarmKey()
	cfg := func(i int, static []string) p2p.Config {
		return p2p.Config{Identity: p2ptest.Identity(i), SwarmKey: key, Listen: []string{"/ip4/0.0.0.0/tcp/0"}, Static: static}
	}
	a := start(t, cfg(0, nil), discovery.Config{})
	b := start(t, cfg(1, a.Addrs()), discovery.Config{})
	b.sees(t, a.Self())
	a.stop()
	b.stop()
	p2ptest.NothingRuns(t)
}
