package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/build/sample"
	"github.com/build-swarm/swarm/build/shim"
	"github.com/build-swarm/swarm/build/worker"
)

// tools are what a build in a process of its own needs to make its builder,
// without looking for everything again.
type tools struct {
	Toolchain sample.Toolchain
	Portage   *emerge.Found // nil = no Portage that can be used
	Prefix    bool          // jobs without a base have a root of the builder's own
	Roots     rootTools
}

// Apart makes every builder run its builds in processes of their own, started by
// the command line program. The pool is for node, which closes it.
func (b *Builders) Apart(program []string, dir string, keep time.Duration, log *slog.Logger) (*shim.Pool, error) {
	text, err := json.Marshal(b.tools)
	if err != nil {
		return nil, fmt.Errorf("tell builds of this machine: %w", err)
	}
	pool, err := shim.NewPool(shim.Config{Program: program, Dir: dir, Keep: keep, Log: log,
		Tools: func(build.Builder) ([]byte, error) { return text, nil }})
	if err != nil {
		return nil, err
	}
	for name, inner := range b.Build {
		b.Build[name] = pool.Builder(name, inner)
	}
	return pool, nil
}

// ebuilds is the builder of real ebuilds.
func (t tools) ebuilds(own *emerge.Portage, roots *emerge.Roots, log *slog.Logger) ebuilds {
	e := ebuilds{roots: roots, own: t.Prefix}
	if own != nil && (t.Prefix || t.Roots.InPlace) {
		e.place = emerge.NewBuilder(own, log)
	}
	return e
}

// ShimBuilder makes the builder of a build's own process.
func ShimBuilder(_ context.Context, name build.Builder, text []byte, log *slog.Logger) (worker.Builder, error) {
	var t tools
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read the build's tools: %w", err)
	}
	switch name {
	case build.BuilderSample:
		return sample.NewBuilder(t.Toolchain, time.Now), nil
	case build.BuilderPortage:
		var own *emerge.Portage
		if t.Portage != nil {
			own = t.Portage.Portage()
		}
		return t.ebuilds(own, t.Roots.roots(t.Roots.bases(&Shelf{}), own, true, log), log), nil
	}
	return nil, fmt.Errorf("nothing builds with %q", name)
}

// Keys are the jobs of builds that go on.
func Keys(list []worker.Survivor) []build.Key {
	out := make([]build.Key, 0, len(list))
	for _, s := range list {
		out = append(out, s.Request.Job.Key)
	}
	return out
}
