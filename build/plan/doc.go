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
//
// # Measured against the design
//
//   - Several slots on a wide drone (one for each eight cores, each with its share
//     of them; 5-25 s per job that no core makes faster): with 4 drones 0.970 of
//     the bound of one build at a time instead of 1.040, with 20 drones 1.436
//     instead of 1.029, because a giant on the critical path then has a third of
//     its machine. So one slot stays the default. It would pay if a lone build
//     could have the cores of the idle slots.
//
//   - Roots that cost 20 s and 5 s for each package which no cached root brings:
//     a schedule that knows (View.Setup) needs 0.93 of the time of one that does
//     not with 4 drones, 0.82 with 20. The drones of these runs say in their Beats
//     of which 16 jobs they keep the roots (Affinity): names of jobs, and not
//     hashes of roots or a filter of packages, since a root can only start from a
//     subset, and from a name everybody can tell what is one. With exact
//     knowledge of all caches it was 0.93 and 0.82, too. It costs 50 ns for each job
//     and drone: 0.15 ms of a look at 144 jobs and 20 drones.
//
// # How good the forecast is
//
// The range of a round's end (Ends) is drawn; what is known of how guesses err is
// learned from the round itself. A planner's guesses are corrected by how they lie
// (Tweedie's formula). How long builds take for their work, what each takes for its
// set-up, and by how much that changes in the course of a round (somebody else uses
// the machines), is learned from those that have ended, and from one that is
// overdue before any has.
//
// It is to hold the truth in 70 to 90 % of looks and, from a tenth of the round on,
// to be at most 40 % of the time that is left wide. With 20 drones llvm, rust and
// chromium one after another decide, and three builds do not cancel one another's
// errors: whoever knows the deviation of the estimates and nothing of the inside of
// a build needs, to hold 80 % (70 %), ranges of 39 % (31 %) for a deviation of 0.10,
// 58 % (46 %) for 0.15 and 115 % (92 %) for 0.30 (BenchmarkBestETA). So a drone tells
// how far a build is (BeatJob.Done): by how the log of the last build of the package
// grew, or by the steps that ninja counts. Seen (BenchmarkETA, 600 jobs, 8 rounds
// each), holds and width:
//
//	known before               4 drones     20 drones
//	guesses within 0.3         83 %,  16 %  75 %,  67 %
//	guesses, 0.6 and all x1.5  84 %,  25 %  63 %,  80 %
//	nothing                    81 %,  91 %  85 %, 122 %
//	built before, within 0.15  93 %,  13 %  81 %,  35 %
//	the same, 5-25 s serial    97 %,  13 %  80 %,  35 %
//	all                        87 %,  18 %  77 %,  68 %
//
// All of it together: 82 %, 39 %. What was never built is wider with 20 drones, and
// has to be: the steps of chromium are known then, and not what they will cost.
//
// Three things made it so. The draws of each job are stratified: one build that
// decides the end had 32 numbers that followed from its name, in every round the
// same and a sixth too narrow. Of packages of which nothing is known the
// distribution is what this round's own turned out to be, those that run counted
// as what takes longer (Kaplan and Meier), and giants apart from it: 335 % wide
// before, with 4 drones, and 59 % held. And a drawn schedule chooses a drone by what
// is expected, not by what is drawn: it knew who is a giant before anybody does.
// The range reaches 1.1 deviations of the drawn ends instead of the 1.28 of a normal
// distribution, with which it held some points more and was 43 % wide.
//
// Recorded rounds of real builds (replay/testdata; the same benchmark) do not meet it:
// four rounds of 20 to 23 packages on two drones held 25 to 50 %, 47 to 94 % wide.
// Both drones shared two cores with much other work, and a build took from 1.6 to 13
// times what its CPU time says, changing within minutes: how the machines' pace will
// change cannot be known from so few builds. Before it was learned at all, those rounds
// were forecast at a tenth of what they took.
//
// How well a log tells: git 2.47 by the log of git 2.39 (two years between them, 11 %
// more to print) was taken for 20 % further than it was at a fifth of its CPU time
// and for 8 % at the half: 0.11 of the logarithm for each factor of e.
// DoneDeviation is 0.12, and at the least 0.03.
package plan
