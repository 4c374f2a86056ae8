// Package cas is the vocabulary of content-addressed storage: the name of a
// blob (its CID), the tree of hashes behind that name, verified slices of a
// blob, and what a Store promises.
//
// Words. A blob is an immutable sequence of bytes. Its CID is CIDv1 with the
// raw codec and a BLAKE3-256 multihash, and no other form is accepted: one blob
// has one name. A group is 64 KiB of a blob, the unit of verification. The
// outboard is the tree of hashes above the groups, kept beside a blob so that
// any range of it can be proved against the CID alone. A slice is a range of a
// blob together with the part of the tree that proves it.
//
// Invariants. What a SliceReader hands out was verified against the CID first,
// group by group; a caller never sees a byte that could be wrong. The size a
// slice announces is proved only once the blob's last group was verified
// (Proven): a lie about the length is possible before that, a lie about bytes
// is not. Store.Put and Partial.Commit keep nothing that does not hash to its
// name, and what they acknowledge is durable.
//
// The encodings are those of Bao with groups of 2^6 chunks, as package
// lukechampine.com/blake3/bao writes them, and tests hold them together. The
// code here is not that package: its encoder wants the length beforehand, its
// ExtractSlice reads the whole outboard for each slice, and its decoder pushes
// into a writer, where the exchange must be able to stop in the middle. Two
// deliberate differences: a slice is never empty, except that an empty blob's
// slice is verified too (Bao's decoder accepts any name for it).
//
// Why 64 KiB: the outboard costs 1/1024 of the blob, and a group is enough for
// the SIMD code. Measured on two shared cores, 16 MiB: Hasher, outboard included,
// runs at 1.07 to 1.30 of blake3.Sum256's speed, SliceReader at 1.43 to 1.53.
//
// The package is pure: no file, no clock, no goroutine. Package disk keeps
// blobs in files, castest in memory; both pass castest's conformance suite.
package cas
