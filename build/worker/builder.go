package worker

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/build-swarm/swarm/build"
)

// ErrDetached is returned by a Builder that left the build running for the
// process that comes after this one: see Resumer.
var ErrDetached = errors.New("the build goes on without this process")

// Resumer is a Builder whose builds outlive the process. Resume is Build for
// one that an earlier process began.
type Resumer interface {
	Builder
	Resume(ctx context.Context, req Request) (Result, error)
}

// Survivor is a build that an earlier process began, and when.
type Survivor struct {
	Request Request
	Began   time.Time
}

// Builder builds one package: build/sample for the built-in packages,
// build/emerge for real ebuilds. Build returns a *build.Failure for every
// ending that is the package's, the machine's or the network's; any other
// error counts as the machine's. When ctx ends, the whole process tree of the
// build is gone before Build returns.
type Builder interface {
	Build(ctx context.Context, req Request) (Result, error)
}

// RootKeeper is a Builder that keeps the roots of its builds for later ones: a
// root is made from the largest kept one that is a subset of it. The schedule
// then prefers jobs whose roots are here.
type RootKeeper interface {
	// KeptRoots lists jobs whose whole roots are kept, the last used first, and
	// how long adding one package to a root takes here; 0 = none are kept. It is
	// asked every few seconds and before each claim, so it answers from memory.
	KeptRoots() (jobs []build.Key, install time.Duration)
}

// Request is what a builder gets. Dir is an empty scratch directory that the
// worker removes afterwards, whatever happened.
type Request struct {
	Job    build.Job
	Target string
	Dir    string
	Log    io.Writer `cbor:"-"` // the build's log as it is written
	// LogPath is the file that Log writes; a builder elsewhere appends to it (AppendLog).
	LogPath string
	Root    []RootFile        // what the root adds to the base, in merge order
	Phase   func(name string) `cbor:"-"`
	Jobs    int               // make -j

	// What the job's round was planned on. Without a base the builder's own
	// root is meant, without a bundle the configuration of its own machine.
	Base   build.BaseRef
	Bundle *build.Bundle
	// Repos are the repositories of the plan's tree by name: directories that
	// nothing changes. Empty = the machine's own, if they are that tree.
	Repos map[string]string
}

// SourceDir is the directory below Request.Dir in which a build finds what the
// swarm has of the job's sources, and leaves what it downloaded itself.
const SourceDir = "sources"

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
	RootMillis int64  // of the whole, what setting up the root took
	// Provisional: see build.Outcome.
	Provisional bool
}
