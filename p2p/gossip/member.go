package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/build-swarm/swarm/p2p"
)

// maxRPC bounds what libp2p's pubsub packs into one transfer, in bytes: some
// messages, or the names of many.
const maxRPC = 4 * MaxMessage

// Member is a host's membership of a topic, over libp2p's gossipsub.
type Member struct {
	name   string
	host   *p2p.Host
	self   peer.ID
	topic  *pubsub.Topic
	sub    *pubsub.Subscription
	ctx    context.Context
	cancel context.CancelFunc
}

var _ Topic = (*Member)(nil)

// Join joins a topic on a host, which is in one topic at a time. validate may be
// nil. Its goroutines end with Close, or when the host closes.
func Join(h *p2p.Host, name string, validate Validator, log *slog.Logger) (*Member, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Member{name: name, host: h, self: h.Libp2p().ID(), ctx: ctx, cancel: cancel}
	if err := m.join(ctx, h, validate, log); err != nil {
		cancel()
		return nil, fmt.Errorf("join topic %s: %w", name, err)
	}
	return m, nil
}

func (m *Member) join(ctx context.Context, h *p2p.Host, validate Validator, log *slog.Logger) error {
	ps, err := pubsub.NewGossipSub(ctx, h.Libp2p(),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), // the records inside are signed
		pubsub.WithMessageIdFn(contentID),
		pubsub.WithPeerOutboundQueueSize(QueueLen), // 32 by default, and what is above is dropped
		pubsub.WithValidateQueueSize(QueueLen),
		pubsub.WithMaxMessageSize(maxRPC),
		// Own messages go to all subscribers, not to the mesh alone: the mesh of a
		// peer that has just joined is empty until the next heartbeat.
		pubsub.WithFloodPublish(true),
		pubsub.WithLogger(log),
	)
	if err != nil {
		return err
	}
	if err := ps.RegisterTopicValidator(m.name, m.validator(validate)); err != nil {
		return err
	}
	if m.topic, err = ps.Join(m.name); err != nil {
		return err
	}
	m.sub, err = m.topic.Subscribe(pubsub.WithBufferSize(QueueLen))
	return err
}

func contentID(msg *pb.Message) string {
	sum := sha256.Sum256(msg.GetData())
	return string(sum[:])
}

// validator adapts v, behind the bound on size.
func (m *Member) validator(v Validator) pubsub.ValidatorEx {
	return func(_ context.Context, from peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
		switch {
		case from == m.self:
			return pubsub.ValidationAccept // Publish bounds it, and who publishes knows what
		case len(msg.Data) > MaxMessage:
			return pubsub.ValidationReject
		case v == nil:
			return pubsub.ValidationAccept
		}
		switch v(from.String(), msg.Data) {
		case Accept:
			return pubsub.ValidationAccept
		case Ignore:
			return pubsub.ValidationIgnore
		}
		return pubsub.ValidationReject
	}
}

// Publish implements Topic.
func (m *Member) Publish(ctx context.Context, data []byte) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("publish %d bytes on %s: %w of %d", len(data), m.name, p2p.ErrTooLarge, MaxMessage)
	}
	err := m.topic.Publish(ctx, data)
	if _, refused := errors.AsType[pubsub.ValidationError](err); refused || err == nil {
		return nil // refused as a duplicate: it is out already
	}
	if m.ctx.Err() != nil || errors.Is(err, pubsub.ErrTopicClosed) {
		err = p2p.ErrClosed
	}
	return fmt.Errorf("publish on %s: %w", m.name, err)
}

// Next implements Topic.
func (m *Member) Next(ctx context.Context) (Message, error) {
	for {
		msg, err := m.sub.Next(ctx)
		switch {
		case err == nil && msg.ReceivedFrom == m.self:
			continue
		case err == nil:
			return Message{From: msg.ReceivedFrom.String(), Data: msg.Data}, nil
		case ctx.Err() != nil:
			return Message{}, ctx.Err()
		}
		return Message{}, fmt.Errorf("read topic %s: %w", m.name, p2p.ErrClosed)
	}
}

// WaitPeers waits until n other members are subscribed and can be sent to: what is
// published before is lost to them. It looks every 10 ms, since pubsub tells of a
// subscription even when its own stream to that peer does not stand yet.
func (m *Member) WaitPeers(ctx context.Context, n int) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for len(m.topic.ListPeers()) < n {
		select {
		case <-t.C:
		case <-m.ctx.Done():
			return fmt.Errorf("wait for %d members of %s: %w", n, m.name, p2p.ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait for %d members of %s: %w", n, m.name, ctx.Err())
		}
	}
	return nil
}

// Close implements Topic. The host may join again. pubsub has no end of its own:
// its handlers would stay, and so would its streams, over which the neighbours go
// on.
func (m *Member) Close() error {
	m.sub.Cancel()
	m.cancel()
	h := m.host.Libp2p()
	for _, id := range pubsub.GossipSubDefaultProtocols {
		h.RemoveStreamHandler(id)
	}
	for _, c := range h.Network().Conns() {
		for _, s := range c.GetStreams() {
			if slices.Contains(pubsub.GossipSubDefaultProtocols, s.Protocol()) {
				_ = s.Reset() // it is gone, then
			}
		}
	}
	return nil
}
