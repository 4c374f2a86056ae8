package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/publish"
)

// Trial is the gate at which this machine's Portage speaks: what a release would
// have each subscribed consumer compile. It is nil where there is no Portage, or
// none that plans for the target. What Portage cannot judge here (another tree, a
// consumer's own conflict) holds nothing up.
func Trial(planners map[build.Builder]Planner, log *slog.Logger) func(context.Context, publish.Trial) ([]string, error) {
	pp, ok := planners[build.BuilderPortage].(PortagePlanner)
	if !ok {
		return nil
	}
	return func(ctx context.Context, t publish.Trial) (against []string, err error) {
		if t.Target != pp.Target {
			return nil, nil
		}
		for _, c := range t.Consumers {
			list, err := pp.Portage.WouldCompile(ctx, t.Manifest, t.Index, c.Set)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				log.Info("Portage cannot judge the release here", "target", t.Target, "consumer", c.Name, "error", err)
			case len(list) > 0:
				against = append(against, fmt.Sprintf("%s would compile %s", c.Name, strings.Join(list, " ")))
			}
		}
		return against, nil
	}
}
