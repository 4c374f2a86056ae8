package discovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/build-swarm/swarm/p2p"
)

const (
	// tieBreak is how long the greater peer ID of two waits for the other's dial.
	tieBreak = 700 * time.Millisecond
	// mdnsRetry is how often mDNS is tried again where it does not work.
	mdnsRetry = time.Minute
	// mdnsSettle gathers changes of addresses before mDNS is started anew.
	mdnsSettle = 3 * time.Second
	// lookupPeriod is how often the DHT is asked for known peers that are away, on
	// average; lookupsPerTurn of them, lookupTimeout each.
	lookupPeriod   = time.Minute
	lookupsPerTurn = 8
	lookupTimeout  = 10 * time.Second
	// foundQueue bounds what mDNS found and nobody has looked at yet.
	foundQueue = 256
)

// Config says what a Service does.
type Config struct {
	NoMDNS bool
	NoDHT  bool
	Log    *slog.Logger // nil discards it
}

// Service finds peers for one host.
type Service struct {
	host *p2p.Host
	cfg  Config
	log  *slog.Logger
}

// New makes the service of a host.
func New(h *p2p.Host, cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{host: h, cfg: cfg, log: cfg.Log}
}

// Run finds peers until ctx ends, and returns nil then, but not while the host
// rests. Close the host after it.
func (s *Service) Run(ctx context.Context) error {
	var err error
	s.host.Awake(ctx, func(ctx context.Context) { err = errors.Join(err, s.run(ctx)) })
	return err
}

func (s *Service) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if !s.cfg.NoMDNS {
		wg.Go(func() { s.runMDNS(ctx) })
	}
	if s.cfg.NoDHT {
		<-ctx.Done()
		return nil
	}
	table, err := newDHT(s.host)
	if err != nil {
		s.log.Warn("no dht", "err", err) // one of three ways to find peers
		<-ctx.Done()
		return nil
	}
	s.lookUp(ctx, table)
	s.hangUp()
	if err := table.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// hangUp ends what a DHT leaves behind when it is closed: handlers that would
// answer of a table which nobody keeps, and open streams.
func (s *Service) hangUp() {
	h, prefix := s.host.Libp2p(), string(dhtPrefix(s.host))
	for _, id := range h.Mux().Protocols() {
		if strings.HasPrefix(string(id), prefix) {
			h.RemoveStreamHandler(id)
		}
	}
	for _, c := range h.Network().Conns() {
		for _, stream := range c.GetStreams() {
			if strings.HasPrefix(string(stream.Protocol()), prefix) {
				_ = stream.Reset() // it is gone, then
			}
		}
	}
}

// dhtPrefix makes the DHT's protocol name: no other swarm's DHT understands it.
func dhtPrefix(h *p2p.Host) protocol.ID { return protocol.ID("/swarm/" + h.Fingerprint()) }

// newDHT joins the swarm's DHT. Mode auto would wait for a proof that this machine
// is reachable from the Internet and stay a client; a client is in nobody's table.
func newDHT(h *p2p.Host) (*dht.IpfsDHT, error) {
	return dht.New(h.Libp2p(),
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix(dhtPrefix(h)),
		dht.DisableProviders(),
		dht.DisableValues(),
		dht.AddressFilter(p2p.Dialable), // no names: this machine does not ask the DNS what a peer wants
		dht.BootstrapPeers(),            // none, ever: the table fills from the swarm's connections
	)
}

// lookUp asks the DHT, now and then, where known peers are that are away.
func (s *Service) lookUp(ctx context.Context, table *dht.IpfsDHT) {
	for {
		t := time.NewTimer(lookupPeriod/2 + rand.N(lookupPeriod))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		away := s.away()
		rand.Shuffle(len(away), func(i, j int) { away[i], away[j] = away[j], away[i] })
		for _, id := range away[:min(len(away), lookupsPerTurn)] {
			s.find(ctx, table, id)
		}
	}
}

func (s *Service) away() []string {
	var out []string
	for _, p := range s.host.Known() {
		if !p.Connected && !p.Banned && !p.Rests {
			out = append(out, p.ID)
		}
	}
	return out
}

// find asks for one peer, and tells the host where it is.
func (s *Service) find(ctx context.Context, table *dht.IpfsDHT, id string) {
	pid, err := peer.Decode(id)
	if err != nil || len(s.host.Peers()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	info, err := table.FindPeer(ctx, pid)
	if err != nil {
		s.log.Debug("not in the dht", "peer", id, "err", err)
		return
	}
	s.host.Learn(id, texts(info.Addrs))
}

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// found is what mDNS found, from libp2p's goroutines to ours.
type found chan peer.AddrInfo

// HandlePeerFound implements libp2p's mdns.Notifee.
func (f found) HandlePeerFound(info peer.AddrInfo) {
	select {
	case f <- info:
	default: // a flood; a peer comes again
	}
}

// mdnsName is the service under which the peers of a swarm announce themselves.
func mdnsName(h *p2p.Host) string { return "_swarm-" + h.Fingerprint() + "._udp" }

// runMDNS keeps an mDNS service up until ctx ends.
func (s *Service) runMDNS(ctx context.Context) {
	changes, err := s.host.Libp2p().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.BufSize(16), eventbus.Name("swarm mdns"))
	if err != nil {
		s.log.Warn("no mdns", "err", err)
		return
	}
	defer changes.Close()
	peers := make(found, foundQueue)
	told := ""
	for ctx.Err() == nil {
		problem := s.announce(ctx, peers, changes.Out())
		if problem != nil && problem.Error() != told {
			told = problem.Error()
			s.log.Info("mdns does not work here: peers are found by address only", "err", problem)
		}
	}
}

var errLoopbackOnly = errors.New("listening on loopback only")

// announce runs one mDNS service: until the addresses change, or ctx ends, or, when
// it cannot be started, until it is time to try again.
func (s *Service) announce(ctx context.Context, peers found, changes <-chan any) error {
	service, err := s.startMDNS(peers)
	var retry <-chan time.Time
	if err != nil {
		t := time.NewTimer(mdnsRetry)
		defer t.Stop()
		retry = t.C
	} else {
		defer service.Close()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return err
		case <-retry:
			return err
		case info := <-peers:
			wg.Go(func() { s.tell(ctx, info) })
		case <-changes:
			settle(ctx, changes)
			return err
		}
	}
}

// startMDNS starts a service. Without an address that others can use there is
// nothing to announce: another machine would dial itself.
func (s *Service) startMDNS(peers found) (mdns.Service, error) {
	addrs, err := s.host.Libp2p().Network().InterfaceListenAddresses()
	if err != nil {
		return nil, err
	}
	if len(notLoopback(addrs)) == 0 {
		return nil, errLoopbackOnly
	}
	service := mdns.NewMdnsService(s.host.Libp2p(), mdnsName(s.host), peers)
	if err := service.Start(); err != nil {
		return nil, errors.Join(err, service.Close())
	}
	return service, nil
}

// settle waits until the addresses have not changed for a moment.
func settle(ctx context.Context, changes <-chan any) {
	t := time.NewTimer(mdnsSettle)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			t.Reset(mdnsSettle)
		case <-t.C:
			return
		}
	}
}

// tell hands a found peer to the host, later when it is the other's turn to dial.
func (s *Service) tell(ctx context.Context, info peer.AddrInfo) {
	if s.host.Self() > info.ID.String() {
		t := time.NewTimer(tieBreak)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	if known, ok := s.host.PeerInfo(info.ID.String()); ok && known.Connected {
		return
	}
	s.log.Debug("found by mdns", "peer", info.ID.String())
	s.host.Learn(info.ID.String(), texts(notLoopback(info.Addrs)))
}

// notLoopback drops addresses that mean another machine wherever they are read.
func notLoopback(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if !manet.IsIPLoopback(a) {
			out = append(out, a)
		}
	}
	return out
}
