package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// SamplePlanner plans the built-in packages.
type SamplePlanner struct {
	Toolchain sample.Toolchain
	Target    string
}

// Sets of the built-in planner: all samples, and those that fail on purpose.
const (
	setSamples = "@samples"
	setBroken  = "@broken"
)

// Plan plans the named samples, and what they need.
func (p SamplePlanner) Plan(_ context.Context, atoms []string) (*build.Plan, error) {
	o := sample.Options{Target: p.Target}
	all := false
	for _, a := range atoms {
		switch {
		case a == setSamples:
			all = true
		case a == setBroken:
			o.Broken = true
		case a[0] == '@':
			return nil, &control.Error{Kind: control.KindUsage, Message: "the built-in builder does not know the set " + a, Hint: "swarm build " + setSamples + ", or swarm build --with portage " + a}
		default:
			o.Only = append(o.Only, a)
		}
	}
	var missing []build.Note
	switch {
	case all && len(o.Only) > 0: // what is named beside all is among them, or does not exist
		named, _, err := sample.Plan(p.Toolchain, o)
		if err != nil {
			return nil, err
		}
		missing, o.Only = named.Missing, nil
	case !all && o.Broken && len(o.Only) == 0:
		o.Only, o.Broken = []string{"sample-broken", "sample-broken-script"}, false
	}
	plan, _, err := sample.Plan(p.Toolchain, o)
	if err != nil {
		return nil, err
	}
	plan.Missing = append(plan.Missing, missing...)
	return &plan, nil
}

// PortagePlanner asks the machine's own Portage.
type PortagePlanner struct {
	Portage *emerge.Portage
	Target  string
	Samples []string // what "@samples" stands for; nil without the sample ebuilds
	// Host, if set, makes this machine's own root the base of what is planned.
	Host *base.Store
	// KeepSource keeps a file that no program may download, for the round.
	KeepSource func(context.Context, build.Source) (string, error)
	// Built says whether the swarm has the package of a key.
	Built func(context.Context, build.Key) (bool, error)
	// Snapshots keeps the repositories of a plan for the drones.
	Snapshots *Snapshots
}

// Plan plans what emerge would do for the atoms. A set is updated; a package
// that is named is built though it is installed.
func (p PortagePlanner) Plan(ctx context.Context, atoms []string) (*build.Plan, error) {
	if i := slices.Index(atoms, setSamples); i >= 0 && len(p.Samples) > 0 {
		atoms = slices.Concat(atoms[:i], p.Samples, atoms[i+1:])
	}
	update := slices.ContainsFunc(atoms, func(a string) bool { return strings.HasPrefix(a, "@") })
	req := emerge.PlanRequest{Target: p.Target, Atoms: atoms, Update: update}
	if p.Host != nil {
		ref, err := p.Host.AddHost(ctx, "host", p.Portage.Version)
		if err != nil {
			return nil, err
		}
		man, err := p.Host.Manifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		req.Base, req.BaseHas, req.KeepTree = ref, man.Packages, p.Snapshots.Keep
	}
	return p.ask(ctx, req)
}

// ask plans, and says what is wrong as people need it.
func (p PortagePlanner) ask(ctx context.Context, req emerge.PlanRequest) (*build.Plan, error) {
	req.KeepSource, req.Built = p.KeepSource, p.Built
	plan, err := p.Portage.Plan(ctx, req)
	switch {
	case errors.Is(err, emerge.ErrNoPackage) && strings.Contains(err.Error(), "package set"):
		return nil, &control.Error{Kind: control.KindNotFound, Message: build.OneLine(err.Error(), 400), Hint: "emerge --list-sets names the sets"}
	case errors.Is(err, emerge.ErrNoPackage), errors.Is(err, emerge.ErrAmbiguous):
		return nil, &control.Error{Kind: control.KindNotFound, Message: build.OneLine(err.Error(), 400), Hint: "emerge --search NAME finds the full name"}
	case errors.Is(err, emerge.ErrResolve):
		return nil, &control.Error{Kind: control.KindInternal, Message: build.OneLine(err.Error(), 600), Hint: "emerge --pretend with the same names says more"}
	}
	return plan, err
}
