// Package sample is the built-in builder: a dozen small packages, carried as
// sources in this binary, and the Builder that makes true gpkgs of them with
// the machine's C compiler. It is what `swarm demo` builds where there is no
// Portage.
//
// The packages are a small distribution with every kind of dependency that
// real ones have: a library with a subslot that its users bind with :=, a code
// generator that runs while others are built (BDEPEND), one package wanted with
// two sets of USE flags, shell scripts that need no compiler, a package that
// only pulls in others, and three that take seconds of real compiling
// (generated, unrolled arithmetic; measured with gcc 12 on a slow, shared server
// core: sample-dft 4 s, sample-sums 4 s, sample-spectrum 11 s; all others under
// 0.3 s, and 20 s for all together).
//
// Each package has a directory under src with its sources and a recipe.sh,
// POSIX sh, of two functions: src_compile and src_install. What the functions
// may call is src/common.sh. What the recipe does not say (names, slots,
// dependencies) stands in catalog.go.
//
// Invariants. The sources come from this binary alone: a job only names one of
// them, so nothing in a job from a peer becomes a path or a command. A build
// sees the packages of its root, its own sources, the machine's compiler and C
// library, and an environment that holds what the builder puts there and
// nothing else. Whatever ends a build, its whole process group is gone before
// Build returns.
//
// The build key of a sample covers its sources and recipe, USE, dependencies as
// bound, CHOST and the compiler's kind and major version ("gcc-12"), not its
// exact build: as with Gentoo's packages. A drone whose binary carries other
// sources or whose compiler is of another class computes another key, and
// CanBuild says so.
//
// What it is not: a distribution, or a way around Portage. A machine with
// Portage uses package emerge; the samples exist so that everything else of a
// swarm can be seen, and tested, on any Linux machine. On other systems only
// the shell packages are planned.
package sample
