// Package build is the vocabulary of building a package: what Portage calls
// things (CPV, atom, slot, USE), what one job of a round is, the build key
// that names everything that decides a package's content, and what a build
// came to (its Outcome).
//
// Words. A job is one package to build for a target; it has no record of its
// own but is an entry of a round's Plan. A round is one request and its plan.
// The build key is a hash of the job's Preimage; two jobs with one key are the
// same work, whoever planned them. An outcome says what one build came to.
//
// Invariants. A Key is a function of the preimage alone: facets are sorted by
// name and unique, so no order of planning shows. A Plan is valid only when
// every edge and every root entry names a job of the plan or an artifact that
// the plan lists as present, and when the edges needed before a build have no
// cycle.
//
// The package is pure: no clock, no file, no network, no goroutine. It reads
// Portage's names by the rules of the Package Manager Specification (PMS 3.1,
// "Names and Versions") but never resolves a dependency: that is Portage's
// work, driven by package emerge.
package build
