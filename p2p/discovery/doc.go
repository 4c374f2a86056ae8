// Package discovery finds the peers of a swarm: on the local network by mDNS, and
// in the swarm's own DHT. What it finds it tells p2p.Host.Learn; dialling, retries
// and memory are the host's, static peers too.
//
// # Invariants
//
//   - The swarm's fingerprint is in the mDNS service name and in the DHT's protocol
//     name: swarms on one network do not meet, and no public node is ever asked.
//   - Without multicast (containers, VPN tunnels, an interface that is down) the
//     rest goes on, and mDNS is tried again every minute.
//   - Run leaves no goroutine.
//
// # mDNS
//
// Two peers find each other in the same millisecond. If both dialled at once from
// their listening ports, TCP would make one connection out of two dials, with two
// TLS clients (6 of 63 starts, measured). The host dials from other ports, and here
// only the smaller peer ID dials at once, the other after 700 ms; each alone is
// enough. libp2p reports a found peer once in 53 minutes, so what is found goes
// into the host's book, which retries. The addresses are announced as they were at
// the start: when they change, the service is started anew.
//
// mDNS is not protected by the swarm key. Anybody on the network can announce
// anything under the name; it costs this machine a failed dial.
//
// # DHT
//
// Kademlia in server mode, as an address book only: no provider records, no values
// (who holds what is on the board). It finds a known peer whose address has
// changed, when no directly connected peer knows the new one. The mesh of a small
// swarm comes from the host's own question to each peer whom it is connected to.
package discovery
