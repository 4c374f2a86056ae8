// Package p2p connects the machines of one swarm: identities, the swarm key,
// the join code, and a Host that keeps the connections up.
//
// It knows bytes, topics, streams and peers; never packages, jobs or leases.
// Everybody above it programs against the small interfaces Network and Stream,
// which have two implementations: *Host over libp2p, and p2ptest's in-memory
// network. Both pass the suite p2ptest.TestNetwork.
//
// # Words
//
//   - peer ID: the text form of an Ed25519 libp2p peer ID, "12D3Koo...". It is
//     a plain string everywhere outside this package.
//   - swarm key: 32 secret bytes in libp2p's own private-network format. It
//     admits a machine to the network and hides the network from all others.
//   - fingerprint: 16 hex digits derived from the swarm key, not secret. It names
//     the swarm in logs, in mDNS and as the prefix of the DHT protocol.
//   - join code: the swarm key and where its peers are, as one line to paste.
//   - static peer: an address a person configured. known peer: one this machine
//     was connected to, or was told about by a peer that is.
//   - rest: a host keeps two connections, looks for nobody, and has told everybody so
//     (rest.go).
//
// # Invariants
//
//   - A connection exists only to a peer that holds the same swarm key, and only
//     under the peer ID that its TLS certificate proves. There is no bootstrap
//     peer, relay or port mapping outside the swarm.
//   - A Handler that blocks blocks its own stream only. Close resets every
//     stream, waits for the handlers, and leaves no goroutine.
//   - Everything read from a peer is bounded before it is believed.
//
// # Figures
//
// Measured on two shared cores, TCP over loopback with the private-network key,
// TLS: from NewHost to a full mesh when all know one address: 2 hosts 28 ms, 3 in
// 23 ms, 6 in 0.27 s, 20 in 3.1 s (one process, all cores busy). A restarted host
// sees two others after 8 ms. One Request: median 0.13 ms. Twenty idle hosts in a
// full mesh: 0.02 % of a core and 5 wake-ups/s each, 1 MB of heap each.
//
// A peer that rests, in a swarm of twenty processes that idle: 2.0 wake-ups a second
// where a bare libp2p host with two connections beside it had 2.4 and an idle peer
// that does not rest 39 (BenchmarkQuietPeer).
//
// # Why this and not that
//
//   - TCP alone: the private-network layer exists for no UDP transport. It costs two
//     CPU seconds per GiB on either side, and hides the swarm from everybody else.
//   - libp2p's limits are replaced (limits.go): they are made for strangers.
//   - A wrong swarm key has no error of its own in libp2p: the first bytes are noise
//     to the other side, which hangs up, complains of a message too large, or waits
//     for the rest of it (8 of 25 dials). Explain and dial make one answer of it.
//   - A peer that rests closes connections and does not merely stop talking: every
//     open one costs a keep-alive each way, and the other end's gossip.
//   - Peers tell each other whom they are connected to (peers.go), since the DHT
//     refreshes every ten minutes and mDNS does not leave the segment.
//
// # What it does not do
//
// It does not decide whom to trust inside the swarm (claims does, by signature),
// does not verify content (p2p/exchange does), and does not find strangers
// (p2p/discovery does: it tells Host.Learn).
package p2p
