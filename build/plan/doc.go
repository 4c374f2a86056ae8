// Package plan decides which job this drone takes now, forecasts the rest, and
// says why a job does not run.
//
// Every drone computes the same schedule from its view of the board and the
// Beats, and claims only what that schedule gives to itself; nobody assigns
// anything. The rule is list scheduling by earliest finish time (HEFT, Topcuoglu
// et al. 2002): jobs in the order of priority class and upward rank (the longest
// remaining path), each to the drone that would finish it first, busy fast
// drones included.
//
// # Invariants
//
//   - A pure function of its arguments, in integers: the same view gives the
//     same schedule on every architecture (Go fuses floating multiply-add on
//     some).
//   - Under any views, a ready job that some live drone fits is claimed within
//     three Beats: a drone that does not take what the plan gives it is passed
//     over for that job (Memory).
//
// # Why this, not that
//
// Simulated with 2,847 jobs, this rule stays within 2 % of the lower bound on 4
// drones and 3 % on 100; rendezvous hashing and random picks, blind to speed,
// cost a factor of 1.4 to 2.6, and a pull queue 1.25 to 1.9. A rendezvous hash
// is used among equals only.
package plan
