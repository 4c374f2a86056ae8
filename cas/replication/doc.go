// Package replication decides which blobs this peer copies from others, so that
// every blob has R copies and keeps them while peers come and go.
//
// Words. R: how many copies a blob should have, 3 unless said otherwise and
// never more than there are peers that store. Steady: a peer without a battery
// and without an idle policy. A copy is live when its peer is, and away when its
// peer left less than 15 minutes ago (24 hours, when it is not steady).
//
// The rule, from design 7. Fewer than two live copies: repair at once. Fewer
// than R copies, live and away together: repair. Copies on peers that are not
// steady count to R only while there are fewer than R steady peers that store:
// a laptop that leaves for a week is no emergency, and a laptop that is here
// is no archive.
//
// Who repairs is not negotiated. Every peer ranks the candidates of a blob by
// weighted rendezvous (the weight is the free space as a power of two, so that
// it changes only when that doubles or halves), steady ones first, sites without
// a copy first; as many as are missing are to act, and each peer acts when it is
// among them. Peers with different views can make a copy too many, which costs
// space and no correctness. A peer that comes moves nothing: what has R copies
// stays where it is.
//
// Everything is integers: two architectures must agree. The weighted score
// -log2(u)/w is computed to 32 binary digits by squaring.
//
// A peer that only builds keeps its copies until others have them: they can be
// fetched and count for nothing else.
//
// Dropping is asked for, see Ledger. Garbage is what nothing has referred to for
// a day; all its copies go. Surplus is a copy beyond R, which is a cache as long as
// there is room. Two laws: of a surplus R copies are left on disks, however late the
// board and whatever is lost; and what somebody began to refer to while it saw a
// copy keeps one, as long as records reach everybody within half of Settle. 10^5
// schedules of drop against reference against everybody dropping at once hold
// them (11 s); without the promises, or without Settle, a few dozen break them.
//
// What it does not do: say what is referred to. That is the board's to know.
//
// The package is pure. Package replicator carries the plan out.
package replication
