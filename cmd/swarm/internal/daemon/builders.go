package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// lookTimeout bounds how long compiler and Portage may take to say what they
// are.
const lookTimeout = time.Minute

// Search says what to look for on this machine, and where.
type Search struct {
	Want          string // portage, sample, or auto: Portage where there is one
	Emerge        string // program; "" looks on PATH
	PortageConfig string // directory of a configuration with the sample ebuilds; "" is the machine's own
	Target        string
	Log           *slog.Logger
}

// Builders is what this machine can plan and build.
type Builders struct {
	Build   map[build.Builder]worker.Builder
	Plan    map[build.Builder]Planner
	Default build.Builder // what `swarm build` plans with

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
		return Builders{}, &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("there is no builder %q", s.Want), Hint: "swarm run --builder portage, sample or auto"}
	}
	tc := sample.Detect(ctx, "")
	b := Builders{
		Build:   map[build.Builder]worker.Builder{build.BuilderSample: sample.NewBuilder(tc, time.Now)},
		Plan:    map[build.Builder]Planner{build.BuilderSample: SamplePlanner{Toolchain: tc, Target: s.Target}},
		Default: build.BuilderSample,
		tools:   tools{Toolchain: tc},
	}
	if s.Want == string(build.BuilderSample) {
		return b, nil
	}
	config, p, samples, err := findPortage(ctx, s)
	switch {
	case err == nil:
		b.tools.Portage = config
		b.Build[build.BuilderPortage] = emerge.NewBuilder(p, s.Log)
		b.Plan[build.BuilderPortage] = PortagePlanner{Portage: p, Target: s.Target, Samples: samples}
		b.Default = build.BuilderPortage
	case s.Want == string(build.BuilderPortage):
		return Builders{}, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 400), Hint: "put emerge on PATH, or name it with --emerge"}
	case errors.Is(err, emerge.ErrNoPortage):
		s.Log.Info("no emerge here: this peer builds the sample packages only")
	default:
		s.Log.Warn("emerge is here and cannot be used", "error", err)
	}
	return b, nil
}

func findPortage(ctx context.Context, s Search) (emerge.Config, *emerge.Portage, []string, error) {
	if s.PortageConfig == "" {
		c := emerge.Config{Emerge: s.Emerge}
		p, err := emerge.Detect(ctx, c)
		return c, p, nil, err
	}
	c, err := emerge.DemoConfig(s.PortageConfig)
	if err != nil {
		return c, nil, nil, fmt.Errorf("lay out Portage's configuration in %s: %w", s.PortageConfig, err)
	}
	c.Emerge = s.Emerge
	p, err := emerge.Detect(ctx, c)
	return c, p, emerge.DemoAtoms(), err
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
