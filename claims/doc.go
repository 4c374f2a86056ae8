// Package claims is the replicated board: what the swarm knows, as a map from
// key to signed record that every peer holds whole, and the rules by which
// drones claim jobs on it without a leader.
//
// # Words
//
// A record is one signed entry of the board. A claim is a drone's leased
// intent to build a job; its lease is renewed by the drone's Beats and judged
// by each observer on its own clock. An epoch counts how often a job was
// given out: a new one is opened only after expiry or give-back. A Beat is a
// peer's sign of life; Beats are not on the board.
//
// A quiet peer (Beat.Quiet: a laptop on battery that builds nothing) is off the
// gossip. Once a minute it compares its board with a neighbour's and hands it its
// Beat, which the neighbour gossips on, and gets everybody's. Its lease is that of
// any Beat of that period. It takes others for dead three minutes later than they
// said, claims nothing, and when it is quiet no more judges as after a suspend.
//
// # Invariants
//
//  1. One merge for every record: the greater order wins, ties go to the lower
//     hash (wire.Opened.Wins). The board is therefore the same whatever the
//     order, the number of times and the route in which records arrive.
//  2. The order of a known type follows from its body, and its author may
//     write its key; Validate refuses everything else before the merge.
//  3. What leaves the board leaves it as a function of the board: a claim,
//     when a good outcome of its key has its epoch or a later one.
//  4. Time changes how a record is read, never whether it is there.
//  5. Every effect that tells others something comes after the effect that
//     persists it.
//  6. A compiling drone is stopped only for a build that will finish earlier.
//
// # The machine
//
// A Replica is one peer's board and everything derived from it. Step takes
// the time and one event and returns effects; it does no I/O, reads no clock
// and starts nothing, so the simulator in claimstest runs the same code as a
// swarm does. Package agent owns the one goroutine that calls it.
//
// # Bounds
//
// One author has at most 200,000 records and 128 MiB on the board, all together
// 1 GiB; a record that is longer than 32 KiB, or stamped more than 30 s ahead, is
// none. What is above that is refused and counted (Counters), but for what takes
// the place of an older record that is no shorter; of a full board a person is told. How fast it can come is bounded by the neighbour that brings it
// (package agent).
//
// How many authors there are is not bounded by itself. Whoever has the swarm's key
// can make up as many as it likes, each with Beats and all; and nothing tells a
// made-up one from a member that was away for a year, or from any member to one
// who joins today and has met nobody yet. A rule by whom this peer has seen would
// refuse the long absent, and give two peers two boards that never become equal.
// The bound of the whole is there so that such a flood costs memory and not the
// daemon; what ends it is a new key (swarm rekey).
//
// # Why this, not that
//
// A Merkle-DAG CRDT keeps a history that nobody reads and that only grows;
// operations need a delivery that gossip does not give. A map of small records
// under one merge law needs neither: gossip carries changes as a hint, and
// bucket sums (1,024 of 8 bytes: 8 KiB and two messages a round) carry
// correctness. Plain last-writer-wins for claims would let a later claim steal
// a running build and a fast clock win every race, so the order of a claim is
// (epoch, earliest stamp), never the latest stamp.
//
// Two rules here say more than "whoever ends later stops" and "a quarter of the
// work is the grace", because the simulator showed what those cost:
//
//   - Yields takes builds that began within a Beat of each other for equally
//     far, when one ends three Beats before the other. Else a slow drone that
//     won a race by a second builds a giant to its end beside the fast one.
//   - When more than a third of the peers fall silent together, the network
//     broke. Each side takes first the free jobs that rendezvous hashing gives
//     to a drone that it hears, and leaves each of the others' builds alone for
//     as long as building it anew would take (invested and left): the rule for
//     renting skis, which costs at most twice what who knew would have paid.
//
// The second was chosen by simulating 2,847 jobs over a WAN that breaks in two
// at 40 % of the bound, for so many minutes; the median of three seeds (20
// drones) and of nine (4), in percent of all work that was done twice:
//
//	minutes                             5     15     30     45     60    120
//	20 drones, design 4's grace       0.82   3.52   8.85  12.83  18.80  32.44
//	  order alone                     0.41   1.79   2.74  10.56  16.56  32.33
//	  30 minutes' grace alone         0.34   1.82   5.02  10.95  16.85  33.14
//	  order, 30 minutes' grace        0.08   0.08   0.08   7.15  13.55  32.74
//	  order, grace as invested        0.24   0.85   1.68   2.67   3.90  19.57
//	  order, grace as invested + left 0.22   0.57   1.31   2.55   3.20  19.53
//	4 drones, design 4's grace        0.36   0.85   1.67   2.47   3.35   6.54
//	  order, grace as invested + left 0.00   0.17   0.30   0.30   0.30   0.30
//
// A fixed grace wins for partitions that are shorter than it and loses
// everything beyond. When half of the swarm did die, each of these came to 1.000
// of the bound of the survivors (with 4 and with 20 drones): there is other work
// meanwhile. What it can cost is a round that waits for one build of a drone that
// died together with a third of the swarm, and it is at most that build's length.
package claims
