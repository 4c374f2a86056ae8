// Package guest decides when a drone may build on somebody's machine, and what
// its running builds have to do meanwhile. It is pure: a Guest is stepped with
// what the sensors read, the policy and the time, and answers with a Verdict.
// build/guest/watch has the sensors and carries the verdicts out.
//
// # Words
//
//   - policy: Always (a server) or WhenIdle (a machine that somebody uses). The
//     default is by what the machine is: a battery or a lid makes it WhenIdle.
//   - hold: one reason for not building now. Every hold is a sentence that
//     status and why show; it says what is so, never merely that something is.
//   - level: what running builds get. Full, Shrunk (only what nobody else
//     wants), Frozen (nothing; their memory is kept).
//   - away: the time from the first hold that freezes to the end of the last.
//
// # Invariants
//
//   - There is a reason whenever a build may not begin or runs below Full.
//   - A person at the machine: Shrunk in the step that sees the input, Frozen
//     FreezeAfter later. Nothing thaws before the last hold is over.
//   - A frozen build is given back after max(10 minutes, a quarter of the work
//     in it), at once when a free drone would finish it earlier from the start,
//     and when somebody wants the memory. Until then its deadline is known, so
//     that others leave it alone for as long and no longer (claims.BeatJob).
//   - All durations are by the clock that counts suspend: a machine that wakes
//     after the deadline gives back what it kept and does not go on with it.
//
// # What it does not do
//
// It reads no sensor and stops no process, and knows nothing of other drones but
// how soon one of them could finish a build (Build.ElsewhereMS).
package guest
