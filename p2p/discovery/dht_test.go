package discovery

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// The first and the last know only the middle, and no host's own exchange runs:
// what the first learns of the last comes from the DHT.
func TestTheDHTKnowsWhereAPeerIs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	key := p2p.NewSwarmKey()
	var hosts []*p2p.Host
	var tables []*dht.IpfsDHT
	for i := range 3 {
		h, err := p2p.NewHost(p2p.Config{Identity: p2ptest.Identity(i), SwarmKey: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		table, err := newDHT(h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Close() })
		hosts, tables = append(hosts, h), append(tables, table)
	}
	for _, p := range hosts[0].Libp2p().Mux().Protocols() {
		if strings.Contains(string(p), "/kad/") && !strings.HasPrefix(string(p), "/swarm/"+key.Fingerprint()+"/") {
			t.Errorf("the DHT speaks %s", p)
		}
	}
	for _, i := range []int{0, 2} {
		if err := hosts[i].Connect(ctx, hosts[1].Addrs()); err != nil {
			t.Fatal(err)
		}
	}
	s := &Service{host: hosts[0], log: slog.New(slog.DiscardHandler)}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for { // the tables fill a moment after the connections
		s.find(ctx, tables[0], hosts[2].Self())
		info, ok := hosts[0].PeerInfo(hosts[2].Self())
		if ok && len(info.Addrs) > 0 && strings.HasPrefix(info.Addrs[0], "/ip4/127.0.0.1/tcp/") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the first knows of the last: %+v, %v", info, ok)
		}
	}
}
