package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/shim"
	"github.com/build-swarm/swarm/build/worker"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
)

// lifeCmds are those that have to do with the life of this machine's daemon.
func lifeCmds(e *env) []*cli.Command { return []*cli.Command{doctorSelfCmd(e), shimCmd(e)} }

// shimCmd is a build's own process. The daemon starts it; people do not.
func shimCmd(e *env) *cli.Command {
	return &cli.Command{
		Name: "shim", Usage: "run one build (started by the daemon)", ArgsUsage: "DIR", Hidden: true,
		Action: func(c *cli.Context) error {
			args, err := positional(c, 1, 1, "the DIR of a job")
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(e.err, nil))
			return shim.Main(c.Context, args[0], func(ctx context.Context, name build.Builder, tools []byte) (worker.Builder, error) {
				return daemon.ShimBuilder(ctx, name, tools, log)
			})
		},
	}
}

// apart has builds run in processes of their own.
func apart(c *cli.Context, cfg *node.Config, found *daemon.Builders) error {
	keep, err := time.ParseDuration(c.String("keep-builds"))
	if err != nil || keep < 0 {
		return usage("for example: swarm run --keep-builds 2m", "--keep-builds %q: want a duration, 0 or more", c.String("keep-builds"))
	}
	if cfg.Slots == 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg.Pool, err = found.Apart([]string{self, "shim"}, filepath.Join(cfg.State, "work"), keep, cfg.Log)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return explainStart(agent.ErrInUse, *cfg)
	}
	return err
}
