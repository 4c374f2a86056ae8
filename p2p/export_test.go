package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// JoinBody and JoinText let a fuzz test write bodies under a right checksum.
func JoinBody(j JoinCode) []byte {
	b, err := decodeJoin(j.String()[len(joinPrefix):])
	if err != nil {
		return nil
	}
	return b[joinHead : len(b)-joinSum]
}

func JoinText(body []byte) string {
	return sealJoin(append(make([]byte, joinHead), body[:min(len(body), 60000)]...))
}

// Detour connects to a peer through the members that both are connected to.
func (h *Host) Detour(ctx context.Context, id string) error {
	p, err := peer.Decode(id)
	if err != nil {
		return err
	}
	return h.dialThrough(ctx, p)
}

// GoStraight is one look at the peers that are reached through members, an hour
// after they were met.
func (h *Host) GoStraight(ctx context.Context) {
	known := map[peer.ID]detour{}
	for _, id := range h.lh.Network().Peers() {
		known[id] = detour{}
	}
	h.goStraight(ctx, known, time.Now())
	h.goStraight(ctx, known, time.Now()) // which closes what is not needed any more
}

// Connections counts those to a peer.
func (h *Host) Connections(id string) int {
	p, err := peer.Decode(id)
	if err != nil {
		return 0
	}
	return len(h.lh.Network().ConnsToPeer(p))
}

// Freeze makes a host answer no more which process it is; the channel is closed
// when somebody asks for it.
func (h *Host) Freeze() <-chan struct{} {
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	h.Handle(instanceProto, func(s Stream) {
		once()
		<-h.ctx.Done()
		_ = s.Reset()
	})
	return asked
}
