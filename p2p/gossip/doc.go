// Package gossip carries small messages to every peer of the swarm on one topic.
//
// It is a hint, never a promise: a message published before the first peer has
// subscribed is lost, so is one that meets a full queue, and a peer that comes
// later never gets it. A peer passes on what it gets only from its next heartbeat
// (1 s) after its neighbours joined; own messages go out at once. Correctness comes from comparing state over p2p.Request.
// Messages must therefore be idempotent.
//
// # Invariants
//
//   - Publish refuses what is above MaxMessage with an error. (libp2p's pubsub
//     returns nil and drops it.)
//   - A message's name is the SHA-256 of its bytes: the same bytes from two peers
//     are one message, delivered once in two minutes.
//   - validate runs before a message is delivered or passed on; what it rejects
//     goes nowhere.
//   - A peer never receives its own messages.
//
// # Why no signatures here
//
// Every record on the board is signed by its author already. A second signature
// per message costs 22 % of the CPU of a delivery (measured), and would prove
// only who relayed first. So Message.From is the neighbour that handed the
// message over, not its author.
package gossip
