// Package exchange moves blobs between peers as verified ranges.
//
// Protocol /swarm/blob/1, one libp2p stream, any number of requests in turn:
//
//	request   op (1 GET, 2 HAS)  digest (32)  off (8, big endian; -1: the last n)  n (8)
//	reply     status (0 ok, 1 not held, 2 bad request, 3 busy, 4 failed), then
//	          for GET the slice (see package cas), for HAS the size (8)
//
// A reply that cannot be finished ends with a reset: a slice is never padded.
//
// Words. A holder is a peer that is said to hold a blob. A range is 16 MiB of
// a blob, what a worker asks for at once. A liar is a holder whose slice did
// not verify, or that names another size than what was proved; it is not asked
// for that blob again by this process. A stalled holder delivered no group for
// StallAfter.
//
// How Fetch works. It asks for the last MiB first, which proves the size, and is
// the whole blob when that is small. Then one worker for each holder takes ranges
// from a queue, writes group after group as they are verified, and gives back
// what it could not finish. A worker with nothing to do halves the largest range
// still under way, so a slow holder costs its own pace and not the tail. What was
// verified stays in the store's Partial: the next Fetch of the blob, after an
// error or a restart, goes on from there. One Fetch of a blob runs at a time;
// others wait for it.
//
// How Open works. It asks the holders who has the blob, the next one half a
// second later or when one has failed, so that nobody at all is an error at
// once, and then reads one stream as fast as its reader does. When the holder
// fails, lies or stalls, the next one goes on from the same byte. It stores
// nothing and keeps one group; a reader that pauses costs a stream and nothing
// else.
//
// Why not Bitswap: boxo 0.41 brought 512 MiB over the same private network, from
// memory and with its blocks written once and fsynced, at 0.75 of the stream
// written and fsynced unverified (blocks of 1 MiB, five pairs, 0.62 to 0.79) and
// at 0.69 (256 KiB, three pairs), where this protocol reaches 0.91 to 0.95; its
// blocks have to be put together and kept beside the blob, or be the store; and a
// request per range needs no want list that can be dropped. One stream per
// holder, since streams of one connection share its cipher: four gave 1.05.
//
// Large blobs come over what UseForBulk names (package direct), since the private
// network's cipher is 39 % of the CPU and verification 3 %. Proofs of size and small
// blobs come one after the other on sessions that stay open for two seconds, the
// first two of a holder on the private network and what is wanted beside them
// directly: 2,000 blobs of 64 KiB into memory took 345 ms with a stream for each,
// and take 225 ms. Limit and Limited bound what peers take and what copies take; a
// build or a person's download is not slowed.
//
// Figures of BenchmarkTransfer, medians of interleaved pairs, both ends and other
// work on two cores. 512 MiB over the private network, verified, written and
// fsynced: 0.86 to 0.95 of the same stream written and fsynced without
// verification; on the direct carrier 0.71 to 0.96 of a TLS 1.3 connection written
// and fsynced (the less the faster the disk), at twice the speed of the private
// network. Three holders on loopback: 1.06 to 1.25 of one; each limited to a third:
// 3.15 of one (a limit lets a first eighth of a second through at once). 2,000 blobs
// of 64 KiB against writing, fsyncing and renaming the same files locally with four
// workers: 0.50 to 1.17, as the disk is (ext4 without a journal looks through what
// was deleted lately for each file it makes, which costs more than all else here).
// It was 0.43 to 0.6 on the same disk with a stream for each blob, and 0.3 while
// eight fetches at once waited for the disk: a blob's two fsyncs (file and directory) are journal commits
// that concurrent ones share, so that thirty-two at once cost little more than
// eight; the rest was the opening of a new store, which was timed too.
package exchange
