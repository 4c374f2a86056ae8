package worker

import (
	"context"
	"io"

	"github.com/build-swarm/swarm/build"
)

// Builder builds one package: build/sample for the built-in packages,
// build/emerge for real ebuilds. Build returns a *build.Failure for every
// ending that is the package's, the machine's or the network's; any other
// error counts as the machine's. When ctx ends, the whole process tree of the
// build is gone before Build returns.
type Builder interface {
	Build(ctx context.Context, req Request) (Result, error)
}

// Request is what a builder gets. Dir is an empty scratch directory that the
// worker removes afterwards, whatever happened.
type Request struct {
	Job    build.Job
	Target string
	Dir    string
	Log    io.Writer  // the build's log as it is written
	Root   []RootFile // what the root adds to the base, in merge order
	Phase  func(name string)
	Jobs   int // make -j
}

// RootFile is one verified .gpkg.tar that a root installs.
type RootFile struct {
	Entry build.RootEntry
	Path  string
}

// Result is a package that was built but not yet verified or stored.
type Result struct {
	Path       string // the .gpkg.tar, inside Request.Dir
	CoreMillis int64
	PeakMiB    int64
	Inputs     string // digest of the provenance, see build.Outcome.Inputs
}
