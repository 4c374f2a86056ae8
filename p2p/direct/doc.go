// Package direct carries streams between peers over TLS 1.3 connections of their
// own, beside the private network, for bulk: the private network's cipher costs
// two CPU seconds per GiB on each side, more than all else together.
//
// Words. Home is the private network that a Carrier stands beside. A direct
// stream is one TCP connection, one TLS 1.3 handshake and one protocol, which is
// negotiated by ALPN.
//
// Who may. Both sides prove their libp2p identities by the certificates that
// libp2p's own TLS uses. That proves who somebody is, and not that he knows the
// swarm key; so a Carrier serves only peers that Home admits: connected over the
// private network now, or within the last hour, and not banned. Anybody else is
// cut off after the handshake, before a byte of his is read. The rule is asked
// again before each read, so a ban ends a stream at its next request.
//
// How a peer is found. Its port is asked for over Home, its address is that of
// the connection there. Where there is no port, or it cannot be reached (a
// firewall), Open takes a stream of Home's, and does not try again for ten
// minutes. Nothing depends on the direct way.
//
// What it does not do: many streams on one connection. A handshake costs about
// two milliseconds of CPU, which pays from a few MiB on; small things stay on
// Home.
package direct
