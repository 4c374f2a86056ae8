// Package sources shares among peers the files that builds download (Gentoo's
// distfiles), so that a swarm fetches each once, however many drones need it.
//
// A source is known by the hash that its Manifest has (build.Source). The drone
// that has downloaded one stores it as a blob after checking it and remembers
// which blob it is. A drone that needs one looks, in this order, at what the round
// brings, at its own blobs, at its machine's DISTDIR, and asks every peer that is
// connected; what nobody has it downloads itself. What comes from a peer is checked
// against the hash before a build sees it, so that a lying peer costs time and
// nothing else.
//
// # Once
//
// Two drones that begin at the same moment would both download. So a drone says
// that it is asking, then asks, then downloads: a peer that is asking or
// downloading says so, and remembers who asked it meanwhile. Of two that ask at
// the same time at least one hears of the other; the one with the lower peer ID
// goes on, the other asks again until it is served (Lamport's bakery, with peer
// IDs for tickets). Nobody waits longer than Patience for another's slow mirror. A
// peer that vanishes is not heard of, and is not waited for.
//
// # What it does not do
//
// It downloads nothing: that is the build's own first step, in its sandbox. There
// is no list of sources on the board: asking costs one small message per peer and
// job, and nothing when no job needs anything. A blob is kept as long as an open
// round has a job to build from it, and collected a day later, like all others; a
// source that is wanted after that is downloaded again.
package sources
