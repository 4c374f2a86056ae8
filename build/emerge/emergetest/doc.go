// Package emergetest is an emulated emerge for machines without Portage: it
// replays recorded runs of the real one.
//
// A run is one start of emerge, or of Portage's Python with the planner. What
// it was asked (arguments, standard input, the repositories of its
// configuration and the job's USE line) selects the recording; exit code,
// output, planner JSON and the files that Portage wrote (packages, entries of
// the package database) come back from it, with the directories of the machine
// that replays put where those of the one that recorded stood. A run that was
// never recorded exits with 99 and says so: code that begins to drive Portage
// otherwise fails its tests until somebody records that Portage bears it.
//
// Client is the other half: what Portage does as a client of a binary host,
// request by request. It is code, not a recording, since its answers depend on
// the server under test; recorded request logs of the real one hold it to the
// contract.
//
// Nothing here resolves, builds or installs anything. Recordings are made by
// the tests of package emerge with -record, where emerge is on PATH.
package emergetest
