// Package shim runs each build in a process of its own, which outlives the
// daemon: a daemon that is killed, restarted or upgraded finds its builds again,
// and a build can be held back or stopped as a whole.
//
// The daemon has a Pool, whose Builder looks like any worker.Builder. For each
// build it writes the order into the job's directory and starts the program
// again as a shim (Main), which runs the true Builder and leaves the result in a
// file. What stands in the job's directory (the parent of Request.Dir):
//
//	order    the request, and what the true builder needs to know of this machine
//	pid      number, start time and boot of the shim, which name one process for ever
//	phase    the name of the phase under way
//	result   written last, in one step; who finds it knows that the build ended
//	stderr   what a shim said that died
//
// # Invariants
//
//   - The shim leads a session and reaps what its builds leave behind, so its
//     descendants are the whole build; where a cgroup can be had it has one.
//   - Every process of a build is gone when Build or Resume returns, except
//     after Detach.
//   - A shim whose daemon is gone goes on for a while (Config.Keep); then it ends
//     its build and removes the job's directory. It learns of it at once, from a
//     lock that the daemon holds, and asks for nothing meanwhile.
//
// # Holding builds back
//
// With a cgroup v2: cpu.idle, cpu.max and io.weight where their controllers are
// there, cgroup.freeze always. Without: nice, SCHED_IDLE and the idle I/O class
// for every thread, and SIGSTOP for the tree. Missing says what this machine
// lacks.
//
// # Why this and not that
//
//   - Not exec'ing emerge itself in the background: a build is several programs and
//     the Go code between them, and that code has to survive too.
//   - Not the death signal alone: it would end a build with every upgrade. The
//     builders keep theirs, tied to the shim.
package shim
