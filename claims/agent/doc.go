// Package agent runs one peer's board: the loop that owns its claims.Replica,
// the journal on disk, gossip, the anti-entropy exchange, and the timers.
//
// Signatures are checked before the loop, on as many cores as there are, so that a
// flood of records costs the loop nothing but a merge. A page of the exchange is
// checked while its sender brings the next; the loop gets them in their order.
// Every effect that persists is on disk before any effect after it is done: what
// others hear of this peer, it still knows after a crash. What it only heard waits
// for the disk up to 200 ms, unless this peer has something to say: after a crash
// the next comparison of boards brings it again.
//
// Others reach the replica through Do, which runs a function on the loop. The
// function must be quick and must not keep the replica.
//
// The journal is one bbolt file: key of the record to its bytes, written in
// one transaction for everything that waits (measured: 0.7 ms a put, 7 ms to
// read 20,000 back), so a slow disk delays answers and never reorders them. It is
// ordered by key, and so is what one peer sends another: each page is then
// written once, where the order of the buckets wrote most of the file each time.
//
// # What a join costs
//
// BenchmarkJoin streams 60,000 records to an empty peer, both ends on two cores
// with much other work on the machine: 19,000 records a second, 1.005 of the bytes
// of the state, and 1.7 to 1.8 of the processor time of the signature checks alone
// (2.4 before the three things above; then a third of all was the journal and a
// list that was kept sorted). By the clock that is 1.2 to 1.3 of the checks on one
// core, and 1.6 to 2.1 of the checks on both, by what else ran. The bar of 1.5 is not met against the latter:
// of the 0.7 that are not checks, 0.2 is the merge, 0.15 the collector, 0.1 each the
// journal and reading the bodies, the rest the sender and the copies between.
//
// Checking signatures in batches would halve the checks. It was not done: a batch
// holds for some signatures that alone do not (it multiplies by the cofactor), so
// one member could make records that are good on one way in and bad on another.
package agent
