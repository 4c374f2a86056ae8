package daemon

import (
	"context"
	"errors"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// SamplePlanner plans the built-in packages.
type SamplePlanner struct {
	Toolchain sample.Toolchain
	Target    string
}

// Plan plans the named samples, or all of them for "@samples".
func (p SamplePlanner) Plan(_ context.Context, atoms []string) (*build.Plan, error) {
	o := sample.Options{Target: p.Target, Only: atoms}
	if len(atoms) == 1 && atoms[0] == "@samples" {
		o.Only = nil
	}
	plan, notes, err := sample.Plan(p.Toolchain, o)
	if err != nil {
		return nil, err
	}
	plan.Missing = append(plan.Missing, notes...)
	return &plan, nil
}

// PortagePlanner asks the machine's own Portage.
type PortagePlanner struct {
	Portage *emerge.Portage
	Target  string
}

// Plan plans what emerge would do for the atoms. A set is updated; a package
// that is named is built though it is installed.
func (p PortagePlanner) Plan(ctx context.Context, atoms []string) (*build.Plan, error) {
	update := false
	for _, a := range atoms {
		update = update || a[0] == '@'
	}
	plan, err := p.Portage.Plan(ctx, emerge.PlanRequest{Target: p.Target, Atoms: atoms, Update: update})
	switch {
	case errors.Is(err, emerge.ErrNoPackage), errors.Is(err, emerge.ErrAmbiguous):
		return nil, &control.Error{Kind: control.KindNotFound, Message: build.OneLine(err.Error(), 400), Hint: "emerge --search NAME finds the full name"}
	case errors.Is(err, emerge.ErrResolve):
		return nil, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 600), Hint: "emerge --pretend with the same names says more"}
	}
	return plan, err
}
