package emerge

import "github.com/build-swarm/swarm/build"

// What a package that nobody in the swarm has built yet is expected to cost, in
// core-milliseconds: a build with nothing to compile (a virtual, an account, a
// script), what configuring adds, and what a MiB of compressed source adds.
//
// It is a guess within a factor of about three either way: 15 s and 25 s for each
// MiB say 40 s for rsync (about 25), 35 minutes for gcc (an hour), 4 hours for
// firefox (4 to 5), and too much for archives of data. What matters is that
// giants and dwarfs are told apart before anybody has built them: one number
// for all made a round of small packages look like days. The first build of a
// package replaces it, and how far such guesses are off together is learned.
const (
	guessNothing = 5_000
	guessSetup   = 15_000
	guessPerMiB  = 25_000
)

// What its work directory takes, in MiB: the sources unpacked, objects, the image
// and the package. Compiled code takes 10 to 30 times its compressed source (gcc 60,
// since it builds itself three times), data 2 to 4 times. A guess that is too low
// costs one failed build, from which all learn; one that is too high leaves a
// package to the largest drone, or to none.
const (
	guessSpace       = 64
	guessSpacePerMiB = 8
)

// guessDisk is the work space of a build, in MiB.
func guessDisk(sources []build.Source) int64 {
	var kib int64
	for _, s := range sources {
		kib += s.Size >> 10
	}
	return guessSpace + kib*guessSpacePerMiB>>10
}

func guessWork(sources []build.Source) int64 {
	var bytes int64
	for _, s := range sources {
		bytes += s.Size
	}
	if bytes == 0 {
		return guessNothing
	}
	// By KiB: a source of a terabyte must not overflow.
	return guessSetup + bytes>>10*guessPerMiB>>10
}
