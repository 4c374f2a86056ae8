// Package release is what a target's consumers are given: an immutable list
// of artifacts (the Manifest), and the moving name that points to one (the
// Channel head).
//
// Words. A release is a Manifest, named by the CID of its encoding. An entry
// is one artifact of it, with the build key it was built under and the keys
// it needs at run time. An identity is (CPV, enabled USE): what a consumer can
// ask for. A head says which release a channel shows, since when, and after
// which one.
//
// A consumer is a machine that installs a target's releases; its Installed set
// says what it has. A Listing is what the board says of a release, also when no
// head shows it any more. HeldBack is what the board says of packages that a gate
// refused when a release was made last.
//
// Invariants.
//   - A Manifest is closed: every Need of an entry is the key of an entry. What
//     the base gives is not listed as a Need.
//   - One identity has one entry, and Compose changes it only for a new key: a
//     second build of the same key never replaces the first, since a client
//     that has one would fetch and reinstall the other for nothing.
//   - A slot operator that was bound when an entry was built (RDEPEND
//     "dev-libs/a:0/2=") matches the highest version of that slot in the
//     release; so an update can never leave a consumer to compile a dependant.
//   - What subscribed consumers have installed counts as well: a library in
//     another subslot enters with a rebuild of every package that is installed
//     against the one before, or not at all, and a package enters only if what
//     it needs is in the release or installed where it will go. This is matching
//     of evaluated atoms (USE dependencies are not looked at); Portage itself has
//     the last word, in package publish.
//   - Encoding is a function of the value: entries and header are sorted, CBOR
//     is core deterministic. Two peers that compose the same make the same CID.
//   - A head's timestamp grows by 6 s or more with every version, on rollback
//     too: Portage ignores an index that is not newer, and its 304 rule hides
//     what came within 5 s of the last.
//
// What it does not do: it resolves no dependency (Portage did, when the round
// was planned), it does not ask whether blobs are safe, and it does not write
// heads to the board; that is package publish.
//
// The package is pure.
package release
