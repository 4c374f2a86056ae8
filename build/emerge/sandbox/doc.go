// Package sandbox runs a program in a root directory of its own: the isolation
// that builds get. It knows directories and processes, and nothing of packages.
//
// # What a program sees
//
// An overlay of the directories in Spec.Lower, with its changes in Spec.Upper;
// a /proc of its own processes, with what would reach the kernel's settings
// read-only or covered; a /dev of nine harmless nodes; what Spec.Binds names;
// and nothing else. The machine's own root is gone from its mount namespace, so
// that no path leads to the daemon's keys, its sockets or anybody's home. It
// has no network but a loopback of its own (unless Spec.Network), no System V
// IPC, no other processes, and the host name "swarm", since host names end up in
// packages. It can gain no rights by executing a file, and of root's own it has
// those that installing files takes: no mounting, no devices, no modules, no
// clock, no raw disk, no tracing, no opening of files by handle.
//
// # How
//
// The program that calls Run executes itself again ("/proc/self/exe", under the
// name that Main looks for) in new namespaces: that process is init there, puts
// the root together (mount.go), starts the program, reaps what is left to it,
// and tells what it all cost. As root no user namespace is needed; for an
// ordinary user newuidmap gives one with 65,536 ids (ids.go), for ebuilds
// change owners to users such as portage (250), and one id is not enough.
//
// # Nothing stays
//
// When init ends, the kernel ends every process of its namespace, whatever
// session or group it hides in, and with the last of them the mounts go. Init
// ends when its program has, when the caller's context does, and when the pipe
// that the caller holds is closed, which the kernel does for a caller that was
// killed. So there is nothing to sweep but directories, which are the caller's.
// What a program left running is told by name in Result.Left.
//
// # Limits
//
// Where this process may make control groups (cgroup v2), a run has one of its
// own below this process's (cgroup.go), which counts what it costs; limits of
// memory and processes need the controllers to be delegated. Elsewhere
// the number of processes is held by the namespace's own pid_max (Linux 6.14) or
// by RLIMIT_NPROC, and memory only by being the first that the kernel takes when
// it runs out.
//
// # Wants
//
// Linux 5.12 (overlayfs, mount_setattr; 5.13 for an ordinary user). What is
// missing is an error that says what, and Probe finds out beforehand.
package sandbox
