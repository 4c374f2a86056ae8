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
// nothing: indices, names and sizes are checked. What the resolver cannot do
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
// # Building
//
// A Builder first asks Portage on its own machine, with the job's USE flags,
// what it would build: any facet that differs from the job's key (but for the
// bound dependencies), or another content of the repositories, and it declines
// with the name of what differs. Then it fills the root: in a Prefix of its
// own (Config.BuildPrefix) exactly the job's list, extended from a subset or
// emptied, never used as a superset; in place, it adds what is missing and
// replaces nothing unless Config.Replace says so. Then "--buildpkgonly", and
// the package is verified and compared with the job: USE, SLOT and every :=
// that is bound. The configuration is the machine's own by reference, with one
// package.use line more that names every flag. The environment is made from
// nothing, since Portage puts it into packages.
//
// Portage ends with 1 whatever went wrong: classify.go reads the output, what
// is the machine's fault first. Phases of a build run in sessions of their
// own; Sweep finds them by the job's directory in their environment or working
// directory and leaves none, on cancel and after every run.
//
// # What it does not do
//
// It isolates nothing: builds see the machine they run on, network included
// where the configuration allows it (bases, overlay roots and namespaces are
// to come). Packages of a Prefix carry its path in their metadata; Portage adjusts text
// files and links when it installs them elsewhere ("Adjusting Prefix"), but
// not paths that a compiler put into binaries. It keeps no time limits: the
// caller cancels.
//
// # Measured
//
// With Portage 3.0.82+ and Python 3.11 on two cores: Detect 0.4 s, a plan of 7
// packages 0.5 s, one trivial package 2 to 3 s (one more for the comparison of
// configurations), 3 s for each package that a root is extended by, both as
// root and as an ordinary user. 2,964 tasks on an empty root with md5-cache:
// 9 to 10 s of CPU where "emerge -puDN" takes 8 to 9 s (1,401 tasks: 2.2 s,
// 1.19 times emerge -p, BenchmarkPlanOf1400); with packages
// installed there are two resolutions, twice that. The real emerge is under
// test where one is on PATH; everywhere else package emergetest replays it.
package emerge
