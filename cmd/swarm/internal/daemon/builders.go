package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// StateMode is the mode of root's state directory: builds in place, which Portage
// runs as the user portage, go through it to theirs, and nobody lists it.
const StateMode = 0o711

// lookTimeout bounds how long compiler and Portage may take to say what they
// are.
const lookTimeout = time.Minute

// Search says what to look for on this machine, and where.
type Search struct {
	Want          string // portage, sample, or auto: Portage where there is one
	Emerge        string // program; "" looks on PATH
	PortageConfig string // directory of a configuration with the sample ebuilds; "" is the machine's own
	Target        string
	State         string // directory of this peer, where bases and roots are kept
	InPlace       bool   // jobs without a base are built in the machine's own root
	Log           *slog.Logger
}

// Builders is what this machine can plan and build.
type Builders struct {
	Build   map[build.Builder]worker.Builder
	Plan    map[build.Builder]Planner
	Default build.Builder // what `swarm build` plans with
	Ground  *Ground       // what rounds are planned on

	tools tools
}

// Find looks for real Portage, and for a compiler for the samples, which any
// machine can at least plan.
func Find(ctx context.Context, s Search) (Builders, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	switch s.Want {
	case string(build.BuilderPortage), string(build.BuilderSample), "auto":
	default:
		return Builders{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("there is no builder %q", s.Want), Hint: "swarm run --builder portage, sample, auto, or the path of an emerge"}
	}
	tc := sample.Detect(ctx, "")
	b := Builders{
		Build:   map[build.Builder]worker.Builder{build.BuilderSample: sample.NewBuilder(tc, time.Now)},
		Plan:    map[build.Builder]Planner{build.BuilderSample: SamplePlanner{Toolchain: tc, Target: s.Target}},
		Default: build.BuilderSample,
		tools:   tools{Toolchain: tc},
	}
	b.tools.Roots = rootTools{State: s.State, Arch: emerge.MachineArch(), Hide: []string{s.State}, InPlace: s.InPlace}
	shelf := &Shelf{}
	b.Ground = &Ground{Bases: b.tools.Roots.bases(shelf), Shelf: shelf, Trees: emerge.NewTreeStore(filepath.Join(s.State, "trees"), shelf.OpenNamed), Log: s.Log}
	if err := b.Ground.Trees.Sweep(); err != nil {
		return Builders{}, err
	}
	if s.Want == string(build.BuilderSample) {
		return b, nil
	}
	roots := b.tools.Roots.roots(b.Ground.Bases, nil, false, s.Log)
	why := roots.Probe(ctx)
	if why != nil {
		s.Log.Info("jobs that have a base are not built here", "reason", why)
	}
	p, samples, err := findPortage(ctx, s, why == nil)
	if err != nil && why == nil {
		// A base carries a Portage of its own.
		b.Build[build.BuilderPortage] = b.tools.ebuilds(nil, roots, s.Log)
	}
	if why == nil {
		b.Ground.Roots = b.tools.Roots.fresh(b.Ground.Bases, p, s.Log)
	}
	switch {
	case err == nil:
		found := p.Found()
		b.Ground.Own = p
		if s.InPlace && os.Geteuid() == 0 {
			// Portage builds as a user of its own, on its way through. What is secret
			// there is so by its own mode.
			if err := os.Chmod(s.State, StateMode); err != nil {
				return Builders{}, fmt.Errorf("let builds through the state directory: %w", err)
			}
		}
		b.tools.Portage, b.tools.Prefix = &found, found.Config.BuildPrefix != ""
		b.Build[build.BuilderPortage] = b.tools.ebuilds(p, b.tools.Roots.roots(b.Ground.Bases, p, why == nil, s.Log), s.Log)
		planner := PortagePlanner{Portage: p, Target: s.Target, Samples: samples, Snapshots: &Snapshots{Shelf: shelf}, KeepSource: b.Ground.keepSource, Built: b.Ground.built}
		if samples != nil && !b.tools.Prefix {
			planner.Host = b.Ground.Bases
		}
		b.Plan[build.BuilderPortage] = planner
		b.Default = build.BuilderPortage
	case s.Want == string(build.BuilderPortage):
		return Builders{}, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 400), Hint: "put emerge on PATH, or name it with --builder /PATH/emerge"}
	case errors.Is(err, emerge.ErrNoPortage):
		s.Log.Info("no emerge here: this peer builds the sample packages only")
	default:
		s.Log.Warn("emerge is here and cannot be used", "error", err)
	}
	return b, nil
}

// findPortage finds the machine's Portage, on its own configuration or on the
// one below the directory that was named. If nobody put one there it makes that
// of the sample ebuilds: on the machine's own root where builds can have roots
// above it, else in a Prefix.
func findPortage(ctx context.Context, s Search, isolated bool) (*emerge.Portage, []string, error) {
	if s.PortageConfig == "" {
		p, err := emerge.Detect(ctx, emerge.Config{Emerge: s.Emerge})
		return p, nil, err
	}
	own, err := emerge.HoldsConfig(s.PortageConfig)
	if err != nil {
		return nil, nil, err
	}
	if own {
		dir, err := filepath.Abs(s.PortageConfig)
		if err != nil {
			return nil, nil, fmt.Errorf("find Portage's configuration: %w", err)
		}
		c := emerge.Config{Emerge: s.Emerge, ConfigRoot: dir}
		if os.Geteuid() != 0 {
			c.EPrefix = dir // all that an ordinary user may change
		}
		p, err := emerge.Detect(ctx, c)
		return p, nil, err
	}
	c, err := emerge.DemoConfig(s.PortageConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("lay out Portage's configuration in %s: %w", s.PortageConfig, err)
	}
	if isolated && os.Geteuid() == 0 {
		c.EPrefix, c.BuildPrefix = "", ""
	}
	c.Emerge = s.Emerge
	p, err := emerge.Detect(ctx, c)
	return p, emerge.DemoAtoms(), err
}

// Tools is what this machine has to build with: the JSON document of `swarm
// version`.
type Tools struct {
	Schema      int    `json:"schema"`
	Version     string `json:"version"`      // of swarm
	Compiler    string `json:"compiler"`     // kind and major version, as in build keys; "" = none
	CompilerWhy string `json:"compiler_why"` // there is none
	Portage     string `json:"portage"`      // version; "" = none that can be used
	PortageWhy  string `json:"portage_why"`  // there is none
	Emerge      string `json:"emerge"`       // program
}

// LookAround finds the tools of this machine.
func LookAround(ctx context.Context, version string) Tools {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	t := Tools{Schema: 1, Version: version}
	tc := sample.Detect(ctx, "")
	if t.CompilerWhy = tc.Why; tc.CC != "" {
		t.Compiler, t.CompilerWhy = tc.Class, ""
	}
	p, err := emerge.Detect(ctx, emerge.Config{})
	if err != nil {
		t.PortageWhy = build.OneLine(err.Error(), 200)
		return t
	}
	t.Portage, t.Emerge = p.Version, p.Emerge
	return t
}
