// Package archtest reads the source of the whole module and says where it
// leaves the architecture: which package may import which, which packages are
// pure, where goroutines are started, and the small rules that reviewers
// would otherwise have to repeat.
//
// A check is a function from a [Tree] to findings. The tests run every check
// over the module, and feed every check a small bad source to see it complain:
// a check that cannot fail is worth nothing.
//
// Everything is decided from the syntax alone. Type information would catch a
// little more (a goroutine hidden behind an alias, say) and would need every
// package to compile first; this way all checks together take under a second,
// build constraints hide no file, and half-written code gets a useful answer.
//
// Exceptions live in tables beside their check, each with its reason; an
// exception that nothing needs any more is a finding too. [Deviations] are
// other than exceptions: places known to break a rule that stands, printed by
// the tests until they are mended.
//
// What it does not do: check what go vet and staticcheck know (.ci/run runs
// both), order of map iteration, or floats (both need types).
package archtest
