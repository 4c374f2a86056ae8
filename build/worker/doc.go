// Package worker is the drone: it takes the jobs that the plan gives to this
// machine and carries each from claim to report:
//
//	claim -> root (fetch what it needs) -> settle -> build -> verify -> store -> outcome
//
// It is the only place where a builder's result becomes an artifact of the
// swarm.
//
// # Invariants
//
//   - An artifact is stored only after gpkg.Verify and gpkg.Check held for the
//     very bytes that are stored; anything else is an outcome of class mismatch.
//   - The outcome is posted only after the blob is on disk and this peer's
//     holdings say so: whoever reads "built" finds a holder.
//   - A build's scratch directory and its process tree are gone when its
//     goroutine ends, whatever happened.
//   - A failure of the machine never counts against the package, and a drone
//     that fails again and again pauses itself for longer and longer.
//
// The log of a running build is a file that other peers read through Logs; when
// the build ends it becomes a blob.
package worker
