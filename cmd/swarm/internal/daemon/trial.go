package daemon

import (
	"context"
	"log/slog"
	"slices"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/publish"
)

// Trial is the gate at which this machine's Portage speaks: what a release would
// have each subscribed consumer compile. It is nil where there is no Portage, or
// none that plans for the target. What Portage cannot judge here (another tree, a
// consumer's own conflict) holds nothing up, and neither does what the consumer
// compiles with the release before as well.
func Trial(planners map[build.Builder]Planner, log *slog.Logger) func(context.Context, publish.Trial) ([]publish.Compile, error) {
	pp, ok := planners[build.BuilderPortage].(PortagePlanner)
	if !ok {
		return nil
	}
	return func(ctx context.Context, t publish.Trial) (out []publish.Compile, err error) {
		if t.Target != pp.Target {
			return nil, nil
		}
		for _, c := range t.Consumers {
			list, err := pp.Portage.WouldCompile(ctx, t.Manifest, t.Index, c.Set)
			if err == nil && len(list) > 0 && t.Before != nil {
				var before []emerge.Compile
				before, err = pp.Portage.WouldCompile(ctx, t.Before, t.BeforeIndex, c.Set)
				list = moreThan(list, before)
			}
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				log.Info("Portage cannot judge the release here", "target", t.Target, "consumer", c.Name, "error", err)
			}
			for _, x := range list {
				out = append(out, publish.Compile{Consumer: c.Name, CPV: x.CPV, Because: x.Because})
			}
		}
		return out, nil
	}
}

// moreThan is what of list is not compiled already.
func moreThan(list, already []emerge.Compile) []emerge.Compile {
	return slices.DeleteFunc(list, func(x emerge.Compile) bool {
		return slices.ContainsFunc(already, func(y emerge.Compile) bool { return y.CPV == x.CPV })
	})
}
