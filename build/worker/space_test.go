package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

func TestAWorkDirectoryIsWalkedAtThePaceOfItsSize(t *testing.T) {
	for _, c := range []struct {
		name        string
		takes       time.Duration // one walk
		phase       time.Duration // phases end so often; 0 = none does
		least, most int           // walks in an hour
	}{
		{"small", time.Millisecond, 0, 1700, 1800},
		{"giant", 5 * time.Second, 0, 12, 18},
		{"giant whose output names phases without end", 5 * time.Second, 100 * time.Millisecond, 100, 150},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				walks := 0
				s := newSpace(func(context.Context, string) (int64, error) {
					time.Sleep(c.takes)
					walks++
					return int64(walks), nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var phases sync.WaitGroup
				if c.phase > 0 {
					phases.Go(func() {
						for ctx.Err() == nil {
							time.Sleep(c.phase)
							s.ended()
						}
					})
				}
				s.watch(ctx, "", func() bool { return false })
				if walks < c.least || walks > c.most {
					t.Errorf("%d walks in an hour, want %d to %d", walks, c.least, c.most)
				}
				cancel()
				phases.Wait()
			})
		})
	}
}

func TestNothingIsWalkedWhileSomebodyIsAtTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpace(func(context.Context, string) (int64, error) {
			t.Error("it is walked")
			return 0, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s.watch(ctx, "", func() bool { return true })
	})
}

// write leaves a file of so many MiB in a build's directory.
func write(req Request, name string, mib int) error {
	return os.WriteFile(filepath.Join(req.Dir, name), make([]byte, mib<<20), 0o600)
}

func TestABuildTellsTheMostThatItsDirectoryTook(t *testing.T) {
	var x *bench
	looked := make(chan int64)
	x = newBench(t, t.TempDir(), builderFunc(func(ctx context.Context, req Request) (Result, error) {
		req.Phase("compile")
		if err := write(req, "objects", 7); err != nil {
			return Result{}, err
		}
		req.Phase("package")
		for seen := int64(0); seen < 7; seen = <-looked { // it cleans up when somebody has looked
			if err := ctx.Err(); err != nil {
				return Result{}, err
			}
		}
		return pack(t, req, nil), os.Remove(filepath.Join(req.Dir, "objects"))
	}), func(c *Config) {
		c.Space = func(_ context.Context, dir string) (n int64, err error) {
			st, err := os.Stat(filepath.Join(dir, "build", "objects"))
			if err == nil {
				n = st.Size()
			}
			select {
			case looked <- n >> 20:
			default:
			}
			return n, nil
		}
	})
	j := agenttest.Job(t, "app")
	x.Ask(j)
	infos := x.await("it is built", allDone)
	x.Do(func(r *claims.Replica, _ claims.Now) []claims.Event {
		if got := r.Disk(&j); got != 7 {
			t.Errorf("the next build is expected to want %d MiB, want 7", got)
		}
		return nil
	})
	if got := infos[0].Good.DiskMiB; got != 7 {
		t.Errorf("its outcome says %d MiB, want 7", got)
	}
}

func TestABuildThatRanOutOfDiskIsTriedWithMore(t *testing.T) {
	for name, c := range map[string]struct {
		fails error
		want  int64 // MiB
	}{
		"half as much again":        {&build.Failure{Class: build.BadMachine, Reason: "no space left on the device", SpaceMiB: build.Unsaid}, 6},
		"an error of the system's":  {&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 6},
		"what it says":              {&build.Failure{Class: build.BadMachine, Reason: "There is NOT at least 9 GiB disk space", SpaceMiB: 9 << 10}, 9 << 10},
		"for another reason":        {&build.Failure{Class: build.BadMachine, Reason: "out of memory"}, 0},
		"another error":             {errors.New("a pipe broke"), 0},
		"the package's own failure": {&build.Failure{Class: build.BadPackage, Reason: "it does not compile", SpaceMiB: 5}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t, t.TempDir(), builderFunc(func(_ context.Context, req Request) (Result, error) {
				return Result{}, errors.Join(write(req, "objects", 4), c.fails)
			}), func(cfg *Config) {
				cfg.Space = func(_ context.Context, dir string) (int64, error) {
					st, err := os.Stat(filepath.Join(dir, "build", "objects"))
					if err != nil {
						return 0, err
					}
					return st.Size(), nil
				}
			})
			j := agenttest.Job(t, "app")
			x.Ask(j)
			x.Until("an outcome", func(r *claims.Replica, _ claims.Now) bool {
				rs := r.Results(j.Key)
				if len(rs) == 0 {
					return false
				}
				if rs[0].DiskMiB != 4 || rs[0].ShortMiB != c.want || r.Disk(&j) != c.want {
					t.Errorf("it had %d MiB and is to be tried with %d, a job is expected to want %d; want 4, %d", rs[0].DiskMiB, rs[0].ShortMiB, r.Disk(&j), c.want)
				}
				return true
			})
			x.stop()
		})
	}
}
