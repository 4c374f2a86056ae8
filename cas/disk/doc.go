// Package disk keeps blobs as plain files: the one place that touches blob
// files.
//
//	DIR/blobs/<xx>/<cid>        the blob; xx is the first byte of its digest in hex
//	DIR/blobs/<xx>/<cid>.bao    its outboard, when the blob has more than one group
//	DIR/partial/<cid>.part      a blob on its way in, and <cid>.tree, the hashes of
//	                            the groups that are here
//	DIR/tmp/                    what Put is writing; emptied by Open
//	DIR/quarantine/<cid>        the last few blobs that were found damaged
//	DIR/lock, DIR/clean         one process at a time; present after an orderly Close
//
// Words. Committed: renamed to its place with the directory fsynced; the steps
// are numbered in commit.go. Verified: its bytes were hashed and gave its name.
//
// Invariants. A file under blobs/ was whole and fsynced before it got its name.
// Nothing is acknowledged before its directory is fsynced too. No error leaves
// a temp file behind, also not ENOSPC; what a kill leaves behind, the next Open
// removes. The outboard is derived: it is not fsynced, it is checked against
// the CID before its first use in a process, and made anew from the blob when
// it is missing or wrong.
//
// When bytes are checked. Disks flip bits, so Open hashes a blob before it
// hands it out, unless it was verified (or committed, or received) within
// Options.VerifiedFor, 24 hours by default, and its size and mtime are those
// of then. The time of the last verification survives an orderly restart as
// the outboard's mtime; after a crash nothing counts as verified. A bit that
// flips within these 24 hours can reach a local reader, which sees it: Portage
// checks the index's hashes and the gpkg's Manifest, and a peer checks every
// group. Hashing each blob on each request instead would cost the sendfile path
// everything; VerifiedFor < 0 does it. Scrub finds the rest. A damaged blob
// moves to quarantine, and is not held any more: replication brings a new copy.
// One that the disk does not give (EIO, or a file system that finds itself
// damaged; at open, at read, or told by Failed after sendfile) is not held any
// more either: its next reader is sent to the other holders.
//
// The files of the 64 blobs opened last stay open, shared by all who read
// them: opening, looking and closing is a sixth of what serving 64 KiB costs. A
// blob that leaves the index is closed with its last reader; one whose file
// changed or lost its name is opened, and verified, anew within a second.
//
// Why files: sendfile and ranges for free, no process memory, and a person can
// look at them. Key-value stores were measured at 0.4 to 0.7 of the time for
// writing a blob durably, at 2 GB of memory for one of 512 MiB.
//
// What it does not do: decide what to keep (package replication and the
// collector), or talk to peers (package exchange). It starts no goroutine.
package disk
