package daemon

import (
	"errors"
	"log/slog"
	"syscall"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/direct"
)

// Direct makes the carrier of bulk. A port that another program has is no reason
// not to start: peers then fetch over the private network, as from behind a
// firewall, and only slower.
func Direct(h *p2p.Host, id p2p.Identity, listen []string, log *slog.Logger) (*direct.Carrier, error) {
	cfg := direct.Config{Home: h, Key: id.PrivateKey(), Listen: listen, Log: log}
	c, err := direct.New(cfg)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		log.Warn("blobs are served over the private network alone, which is slower; choose another port with --direct", "error", err)
		cfg.Listen = nil
		return direct.New(cfg)
	}
	return c, err
}
