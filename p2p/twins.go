package p2p

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// Two machines with one identity (a cloned disk) are one peer to libp2p: whoever
// knows both has two connections with one peer, and most protocols speak over one
// of them. They cannot see each other either, since nobody dials himself. So each
// host asks every connection, not every peer, which process is at its other end,
// and tells both when two answer.

// instanceProto asks who is there: the request lists the other processes that
// answer to the asked peer's ID, 8 bytes each; the reply is 8 bytes.
const instanceProto = "/swarm/instance/1"

const (
	instanceLen = 8
	maxTwins    = 16
	// twinPeriod is how often two processes with one identity are told so, for as
	// long as both answer; twinFresh how old an answer may be to count as now: it
	// must be younger than the other's connection, too. The connection of a process
	// that was killed may stand for a minute and answers nothing, so a restart is
	// no twin.
	twinPeriod  = 10 * time.Second
	twinFresh   = 5 * time.Second
	twinTimeout = 4 * time.Second
)

// TwinPeriod is how often a host hears of its twin while there is one.
const TwinPeriod = twinPeriod

// answered is what one connection said last.
type answered struct {
	conn     network.Conn
	instance uint64
	at       time.Time
	told     time.Time
}

// Twins returns a signal that fires when a peer says that another process answers
// to this host's identity: every TwinPeriod while that is so. It is for one
// receiver.
func (h *Host) Twins() <-chan struct{} { return h.twin }

// twinsOf reports whether two processes answer to a peer's ID.
func (h *Host) twinsOf(id peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.doubles[id]) < 3*twinPeriod
}

// onInstance answers instanceProto.
func (h *Host) onInstance(_ context.Context, from string, req []byte) ([]byte, error) {
	if len(req)%instanceLen != 0 {
		return nil, fmt.Errorf("instances of %d bytes", len(req))
	}
	for part := range slices.Chunk(req, instanceLen) {
		if binary.BigEndian.Uint64(part) != h.instance {
			h.log.Debug("another process has this identity", "says", from)
			signal(h.twin)
		}
	}
	return binary.BigEndian.AppendUint64(nil, h.instance), nil
}

// watchTwins asks each connection that comes in, and owns what they answer.
func (h *Host) watchTwins(ctx context.Context, wg *sync.WaitGroup, conns <-chan network.Conn) {
	known := map[string]*answered{} // by connection
	replies := make(chan answered, maxTwins)
	ask := func(c network.Conn, others []uint64) {
		wg.Go(func() {
			n, err := h.askInstance(ctx, c, others)
			if err != nil {
				return // an older peer, or one that is gone
			}
			select {
			case replies <- answered{conn: c, instance: n, at: time.Now()}:
			case <-ctx.Done():
			}
		})
	}
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-conns:
			ask(c, nil)
			continue
		case a := <-replies:
			if old := known[a.conn.ID()]; old != nil {
				a.told = old.told
			}
			known[a.conn.ID()] = &a
			h.compare(&a, known, ask)
		case <-again.C:
			for _, a := range known {
				if len(doubles(a, known)) > 0 {
					ask(a.conn, nil)
				}
			}
		}
		twins := false
		for id, a := range known {
			if a.conn.IsClosed() {
				delete(known, id)
				continue
			}
			twins = twins || len(doubles(a, known)) > 0
		}
		again.Reset(time.Hour)
		if twins {
			again.Reset(twinPeriod)
		}
	}
}

// doubles are the other connections with a's peer at whose end another process is.
func doubles(a *answered, known map[string]*answered) (out []*answered) {
	for _, b := range known {
		if b.conn.RemotePeer() == a.conn.RemotePeer() && b.instance != a.instance && !b.conn.IsClosed() {
			out = append(out, b)
		}
	}
	return out
}

// compare holds a new answer against those of the same peer's other connections:
// one that is old is asked for anew, and when two are of now, both are told.
func (h *Host) compare(a *answered, known map[string]*answered, ask func(network.Conn, []uint64)) {
	for _, b := range doubles(a, known) {
		if a.at.Sub(b.at) > twinFresh || b.at.Before(a.conn.Stat().Opened) {
			ask(b.conn, nil)
			continue
		}
		h.mu.Lock()
		h.doubles[a.conn.RemotePeer()] = a.at
		h.mu.Unlock()
		for _, x := range []*answered{a, b} {
			if a.at.Sub(x.told) < twinFresh {
				continue
			}
			x.told = a.at
			var others []uint64
			for _, y := range doubles(x, known) {
				others = append(others, y.instance)
			}
			ask(x.conn, others[:min(len(others), maxTwins)])
		}
	}
}

// askInstance asks over one connection and no other.
func (h *Host) askInstance(ctx context.Context, c network.Conn, others []uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	var req []byte
	for _, n := range others {
		req = binary.BigEndian.AppendUint64(req, n)
	}
	err = multistream.SelectProtoOrFail(protocol.ID(instanceProto), s)
	if err == nil {
		err = s.SetProtocol(instanceProto)
	}
	var reply []byte
	if err == nil {
		reply, err = roundTrip(&stream{Stream: s, host: h}, req, instanceLen)
	}
	if err == nil && len(reply) != instanceLen {
		err = fmt.Errorf("an instance of %d bytes", len(reply))
	}
	if err != nil {
		_ = s.Reset()
		return 0, err
	}
	return binary.BigEndian.Uint64(reply), s.Close()
}
