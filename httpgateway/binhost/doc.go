// Package binhost is the text of Portage's binary package index, both ways:
// Render writes the Packages file of a release under a channel head, Parse
// reads one.
//
// Words. BUILD_ID is the instance number that a client sees; here it is 31
// bits of the artifact's CID, so that a path names one CID for ever and old
// generations need no bookkeeping while the blob is kept. It need not match
// the BUILD_ID inside the package (Portage installs such packages). Two
// artifacts of one CPV whose first 31 bits agree (one in 2^31) take the next
// 31 bits, the lower CID first.
//
// A chunk is a run of entries, 64 in the mean, whose text depends on nothing
// around it. It ends where the hash of the next CPV says so, so that every peer
// cuts alike, whatever it served before, and one package changes one chunk.
//
// Invariants.
//   - The bytes are a function of (Manifest, Channel): every gateway writes the
//     same, and no clock, order of maps or local setting shows.
//   - No value can begin a line, so no package can add a PATH, a FETCHCOMMAND
//     or an entry. Names come from a fixed list: in the header what a target's
//     Portage wrote and is safe on another machine (no URI, no mirrors, no
//     local paths: a client takes the union of every header's USE_EXPAND, so a
//     wrong one widens IUSE there); in an entry what the client keeps.
//   - Every entry has CPV, PATH, BUILD_ID, SIZE, MTIME, MD5 and SHA1. Without
//     PATH emerge hangs, without SIZE it verifies nothing, without BUILD_ID it
//     renames the file by its own rules.
//   - Order and omissions are those of Portage's own writer (PackageIndex.write):
//     keys sorted by their internal names (MTIME and REPO last), entries by CPV
//     as text, values that equal their default or the header's left out.
//
// TTL is 1 s unless the target's header says more: within TTL a client does
// not ask at all, and a person who built something a moment ago wants to see
// it. A 304 costs less than the parse that follows it anyway.
//
// What it does not do: it keeps no files and speaks no HTTP (package
// httpgateway), and it judges no release (package release).
//
// The package is pure.
package binhost
