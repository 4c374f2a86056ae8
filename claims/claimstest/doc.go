// Package claimstest simulates swarms: the real core (claims) and the real
// schedule (build/plan) on a virtual clock and a virtual network, from a seed.
//
// # Words
//
// A world is one simulated swarm. A node is one peer of it: a Replica, its
// journal, a machine with a clock, and a drone that behaves as build/worker
// does. A fault is one thing that goes wrong for a time. A law is what must
// hold whatever goes wrong. A run is a world from its seed to its end.
//
// # Invariants
//
//   - A run follows from its seed and nothing else: one goroutine, one source
//     of randomness, no clock; the same seed twice gives the same trace.
//   - What the core says is carried out as claims/agent does it: what is to be
//     persisted is in the journal before anything is told, streams keep their
//     order, gossip keeps none. A crash can fall between the two.
//   - Figures come from what happened in the world, not from what drones say.
//
// # What is checked
//
// Of the invariants of the test plan: I1 as far as it goes where nobody deletes
// (what a board calls available lies with a peer that is there), I2 (a finished
// job stays finished), I3 (every record is signed and follows from its body; a
// sample of runs), I4 (a channel never goes back), I5 (connected peers compile a
// job once), I6 (equal digests, equal boards), I7 (no build with more work in it
// is stopped for one with less); that a ready job which a free drone fits is
// claimed within three Beats, the settle delay and one look of a drone; that no
// job is lost; and that all boards are equal once nothing goes wrong any more.
// Two of these hold up to what two peers can mistake about each other: I5 and I7
// allow what claims.Yields calls equal, and the age of a Beat.
//
// Each was seen to fail when the core was broken on purpose: a crash that loses
// the disk (I1), a claim of a finished epoch that is let in (I2), a signature over
// something else (I3), a merge that takes each channel as it comes (I4: 17 of 200
// seeds), no rival that yields (I5), a digest over half the buckets (I6), Yields without its look at the work (I7), nobody passed
// over (three Beats), jobs that are not told of what they wait for (no job
// lost), no comparison of boards but on connect (equal boards).
//
// # What is modelled
//
//   - Records are opened once for all nodes, since they share the bytes. In
//     runs with faults every record is really signed; in the Makespan benchmark
//     none is: nobody checks one there, and signing was a third of its time.
//   - In runs with faults gossip is not relayed, which is worse than gossip.
//     The Makespan benchmark floods a random mesh: 1-5 or 50-200 ms a hop, 1 %
//     of hops lost and repaired after a second, 0.1 % of deliveries left to
//     anti-entropy.
//   - With 20 drones and more, that benchmark brings Beats to a drone when it
//     plans, and at the latest after four periods, at their usual age; a drone
//     does not plan while no view of any drone could hold a free job. Both
//     change when a drone computes, and nothing that it would find.
//   - With more than 200 nodes each knows its neighbours in the mesh alone; and a
//     drone does not look while there are better drones for every job that may be
//     free, all known to be idle (large.go). That, too, changes nothing it would find.
//   - With Roots a build begins with setting up its root, from the largest of the
//     16 that its drone keeps which is a subset. With Affinity a drone says in its
//     Beats which these are, and what installing a package takes.
//   - One build at a time on each drone there; a build begins with fetching and
//     unpacking, so that the settle delay is part of it. Transfers cost
//     nothing. For kill and partition, two more nodes copy each artifact within
//     five seconds, one of them at the other site; a partition is between sites.
//
// # What it does not do
//
// It runs no agent, no gossipsub and no builder: their own tests do. It says
// nothing of wall time.
package claimstest
