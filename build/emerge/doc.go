// Package emerge drives Portage: its resolver makes the plans, its ebuild
// machinery makes the packages. Nothing of either is done again here.
//
// # Words
//
// WANT is what "emerge -uDN ATOMS" would do on a configuration, with the
// user's default options less those that choose how (--ask, --jobs, -g ...).
// NEED is the same with --emptytree --with-bdeps=y on the same installed
// packages: the complete graph, with the choices the installed set implies.
// The jobs of a plan are WANT and whatever of NEED the roots of jobs hold. A
// job's root is its build-time needs with all that these need to run, in merge
// order. What is installed where the plan is made, exactly as NEED has it, is
// the base: it stands in roots without a key.
//
// # Planning
//
// planner.py is run by the Python that runs emerge, which Detect finds by
// starting emerge with a module in PYTHONPATH that tells (through shell
// wrappers and python-exec alike). It prints tasks, typed edges and the facts
// that decide a build; convert turns these into a build.Plan, and trusts
// nothing: indices, names and sizes are checked. What the resolver said is kept as
// long as nothing that it read has changed (plancache.go): asked again, a plan of a
// few packages takes 0.3 s instead of 2.8 s. What the resolver cannot do
// is taken out by the records of the resolver itself, with the reason, and the
// rest resolved again, at most ten times.
//
// A cycle of build-time needs is no reason to drop anything: Portage has no
// order for it, but the graph is complete. cycles.go finds the strongly connected
// components and breaks each by what costs least: PDEPEND is not waited for; a
// seed, a quickpkg of what the requester has installed in the planned slot and
// subslot, bound to nothing that the plan replaces, is lent to the roots of the
// cycle; a bootstrap build has the flags that Portage itself suggests. Neither
// enters a release. What nothing breaks is left out by name, with what waits
// for it.
//
// # Planning for another machine
//
// StandIn is the Portage of this machine on what another one has published: its
// bundle, its installed packages as the resolver reads them, its world, and those of
// its default options that decide what an update is (release.Installed). The plan is
// that machine's own, key by key, on equal repositories; it is made of this
// machine's, and of snapshots that rounds brought where it has none. Seeds are those
// that the machine has lent to rounds of its own: nobody else can lend what it has
// installed.
//
// # Keys
//
// key.go is the table: which variables and FEATURES count. Unknown variables
// do; a deny-list does not. The ebuild counts without comments, blank lines
// and KEYWORDS; ebuildtext.go tells these from content, and leaves the whole
// text as it is where it does not understand it. Of 201 shell scripts of a
// Linux machine and of Portage it understood 147, and bash read every one of
// them as before ("declare -f" of both). Eclasses, the root list and Portage's
// version are provenance: they stand in the inputs digest of a result.
//
// # Building in a given root
//
// Roots builds a job that has a base: the base (package base), exactly the
// packages of the job's list, installed in its order with "-K --nodeps" from a
// directory that holds these alone, and nothing else. What is installed is
// compared with base and list before anything is compiled. Everything happens in
// a sandbox (package sandbox); sources that the swarm does not have (package sources)
// are fetched first, in the only run that sees a network, and whatever is there is
// held against the Manifest. The base's own Portage is asked what it would build, with the
// target's configuration or the machine's own, and any facet that differs from
// the job's key (but for the bound dependencies), and the drone declines with the
// name of what differs. The repositories are the round's own snapshots
// (TreeStore), unpacked once and never written to: a machine's own can be synced in
// the middle of a build, and comparing ::gentoo takes each build 20 s. Only where a
// round has no snapshots will the machine's own do, if before and after the build
// they are the tree of the plan. Then
// "--buildpkgonly", and the package is verified and compared with the job: USE,
// SLOT and every := that is bound.
//
// Roots are cached as layers (layers.go), ten packages in one at the most, so that
// jobs whose lists begin alike share the beginning. A job starts from the largest
// cached subset of its list, never from a root with a package more. Twenty layers
// deep they become one. The cache is on disk and locked by flock, since builds are
// processes of their own. Probe finds out by trying, before a drone takes such
// jobs, that a sandbox has no network and that files can be given to user 250.
//
// # The next generation of a base
//
// PlanNext asks a base's own Portage, inside of the base, what "emerge -uDN" would
// do there; Grow installs what was built for that above the base, and what changed
// becomes a layer (package base). The toolchain is a stage of its own: the rest is
// planned and built on a base that has the new one. Clean, if asked for, has that
// Portage take away what @system no longer needs.
//
// # Installing in a fresh root
//
// Roots.TryInstall is the install test of a release: above the base, and above
// nothing else, emerge --usepkgonly installs what is new, with the release's own
// index as PKGDIR. It is asked first what it would install, so that no other file
// has to be there. emerge goes on after a failure; its log is kept apart by package
// (merges.go), and with what is installed afterwards it is judged package by
// package: a phase that died (of a postinst phase emerge makes a warning), a file
// that another package has, the failure of one that it needs. What emerge says to
// block others gets a root of its own. What cannot be resolved in a fresh root, and
// what refuses the machine in its pretend phase, is told as untried: a release is
// closed relative to what consumers have installed, and need not install without
// that. A full disk and the end of the time are errors, not verdicts.
//
// # Building in place
//
// A Builder builds in a root that is there: the machine's own, which it adds to
// and replaces nothing in unless Config.Replace says so, or a Prefix of its own
// (Config.BuildPrefix), which holds exactly the job's list. It isolates nothing.
// The environment is made from nothing in both, since Portage puts it into
// packages.
//
// Portage ends with 1 whatever went wrong: classify.go reads the output, what
// is the machine's fault first. Phases of a build run in sessions of their
// own; Sweep finds them by the job's directory in their environment or working
// directory and leaves none, on cancel and after every run.
//
// Which phase a build is in, Portage says itself since 3.0.82 (observe.go), in given
// roots and in a Prefix of the builder's own; an older one, and one in place, its log.
//
// # Disk, and why there is no ccache in a given root
//
// Nothing of a build stays but what has a quota. A job's directory, with its
// unpacked sources, objects and image, goes when the job ends; what it will take is
// known before (claims.Replica.Disk). Sources are blobs of the store, under its
// quota, collected like packages (package sources): a root's DISTDIR is a directory
// of the job's, so that there is no other place where they could pile up. Cached
// roots have RootsConfig.Quota, and the least used goes first.
//
// A compiler cache would be the one thing that builds write and later builds read.
// It would have to be writable by every package's own scripts, so that one package
// could put its objects into another, past key, root list and inputs digest; all
// that the swarm says of a package rests on these. What it could win is small here:
// the same key is never compiled twice, a new version compiles below another path,
// and a rebuild after its dependency's goes to whichever drone is free. So FEATURES
// ccache, distcc and icecream of a target are off in a root (with ccache in the base,
// each job would fill a cache that goes with it, and be admitted by its size). They
// change no key. In place a machine's own settings hold, its ccache with its own
// max_size and its DISTDIR included: that is what building in place means.
//
// # What it does not do
//
// It sets the compiler that a target has selected only when a base is updated: a base
// with another one is declined. Packages of a Prefix carry its path in their metadata;
// Portage adjusts text files and links when it installs them elsewhere ("Adjusting
// Prefix"), but not paths that a compiler put into binaries. It keeps no time limits:
// the caller cancels.
//
// # Measured
//
// Given roots, Portage 3.0.82+, two cores shared with other work, the machine's
// own root as base: a trivial package 2.2 to 3.9 s in all; a sandbox about 20 ms
// of it; a cached root 1 to 9 ms; each package that a root is extended by 2.5 to 3 s.
// A round of 48 jobs (40 small programs that need 2 to 5 of 8 libraries): roots
// 34 s, the rest of the builds 184 s, 18 %; after the first 16 jobs no root cost
// anything, so that the share falls with the length of the round: 208 jobs, on a
// machine with a load of 15, roots 56 s, the rest 4,103 s, 1.4 %. Jobs without any
// cached root: 188 to 205 % (SWARM_ROUND=200 go test -run SmallPackages). Those
// roots were four. Where hardly two are the same (one to five of sixteen libraries,
// drawn by lot) layers bring 231 % down to 118 %, no further: each package more
// costs Portage 1.6 s of CPU to merge, most of it bash that saves its environment
// (SWARM_SPREAD=1).
//
// With Portage 3.0.82+ and Python 3.11 on two cores: Detect 0.4 s, a plan of 7
// packages 0.5 s, one trivial package 2 to 3 s (one more for the comparison of
// configurations), 3 s for each package that a root is extended by, both as
// root and as an ordinary user. 2,964 tasks on an empty root with md5-cache:
// 9 to 10 s of CPU where "emerge -puDN" takes 8 to 9 s (1,401 tasks: 2.2 s,
// 1.19 times emerge -p, BenchmarkPlanOf1400); with all of
// them installed a version behind there are two resolutions, 6 s: WANT 0.95 times
// emerge -p, NEED 0.6 times beside it. The real emerge is under
// test where one is on PATH; everywhere else package emergetest replays it.
//
// Planned by another machine, 1,401 packages cost 1.04 times what they cost the machine
// itself, 0.7 s of it to lay out what is published (BenchmarkPlanElsewhere); WANT is
// equal key by key.
//
// Two drones that share nothing but the base built hello 2.10, patch 2.7.6, jansson
// 2.14, libffi 3.4.4, expat 2.5.0 and less 590 from Debian's archives: six of six equal
// but for times (SWARM_SOURCES=DIR go test -run SourcesBuiltTwice). Of nine made up for
// the purpose two differ, which compile in when they were built.
//
// Once by hand: 28 packages of ::gentoo as it was in May 2023 (profile
// default/linux/amd64/17.1, its own eclasses, distfiles that agree with its
// Manifests), a stage archive made of Debian with Portage in it, two drones
// without a Portage, a repository or a source of their own. 25 were built. The
// three others fail for what that stage is not: automake is not in its package
// database, and bzip2 is there already. The install test of finalize refused the
// packages that clash with it by name; of the 19 that were released a consumer
// installed all 17 that it asked for in 24 s.
package emerge
