package worker

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

func TestWhenABuildIsStuck(t *testing.T) {
	t0 := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name     string
		expect   time.Duration
		measured bool
		does     func(at time.Duration) progress // since it began
		ends     time.Duration                   // 0 = never, within three days
		says     string
	}{
		{"silent, no history", time.Minute, false, func(time.Duration) progress { return progress{} }, 2 * time.Hour, "no output and no CPU time for 2h0m0s"},
		{"silent, a history of 40 minutes", 40 * time.Minute, true, func(time.Duration) progress { return progress{} }, 40 * time.Minute, "no output and no CPU"},
		{"silent, a history of 20 seconds", 20 * time.Second, true, func(time.Duration) progress { return progress{} }, 10 * time.Minute, "no output and no CPU"},
		{"silent, a history of 9 hours", 9 * time.Hour, true, func(time.Duration) progress { return progress{} }, 2 * time.Hour, "no output and no CPU"},
		{"silent and computing", time.Minute, true, func(at time.Duration) progress { return progress{cpu: at / 2} }, 24 * time.Hour, "not done after 24h0m0s; about 1m0s were expected"},
		{"talking and waiting", 4 * time.Hour, true, func(at time.Duration) progress { return progress{log: int64(at / time.Minute)} }, 40 * time.Hour, "not done after 40h0m0s"},
		{"all but idle", time.Minute, false, func(at time.Duration) progress { return progress{cpu: at / 1000} }, 2 * time.Hour, "no output and no CPU"},
		{"stops after three hours", time.Minute, false, func(at time.Duration) progress { return progress{log: int64(min(at, 3*time.Hour))} }, 5 * time.Hour, "no output and no CPU"},
	} {
		s := stuckWatch{began: t0, moved: t0, looked: t0, expect: c.expect, measured: c.measured}
		at, why := time.Duration(0), ""
		for ; why == "" && at < 72*time.Hour; at += stuckEvery {
			why = s.look(t0.Add(at), c.does(at))
		}
		at -= stuckEvery
		if late := at - c.ends; late < 0 || late > 2*stuckEvery || !strings.HasPrefix(why, c.says) {
			t.Errorf("%s: ended after %s, %q; want %s, %q", c.name, at, why, c.ends, c.says)
		}
	}
}

func TestATimeInWhichABuildIsFrozenIsNotItsFault(t *testing.T) {
	t0 := time.Unix(1_800_000_000, 0)
	s := stuckWatch{began: t0, moved: t0, looked: t0}
	at := t0
	for at.Sub(t0) < 30*time.Hour {
		at = at.Add(stuckEvery)
		s.wait(at)
	}
	if why := s.look(at.Add(stuckEvery), progress{}); why != "" {
		t.Errorf("a build that was frozen for 30 hours: %s", why)
	}
}

func TestTheCPUOfABuildsProcessesIsSeen(t *testing.T) {
	before := childCPU()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Skip("no shell: ", err)
	}
	buf := make([]byte, 4)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	if d := childCPU() - before; d < 20*time.Millisecond {
		t.Errorf("a grandchild that counted to 200,000 took %s", d)
	}
	_ = in.Close()
	_ = cmd.Wait()
}

func TestAStuckBuildEndsAsStuckAndIsNotThePackagesFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := agenttest.Job(t, "hangs")
		ended := make(chan struct{})
		x := newBench(t, t.TempDir(), builderFunc(func(ctx context.Context, _ Request) (Result, error) {
			<-ctx.Done()
			close(ended)
			return Result{}, ctx.Err()
		}))
		// A package that took a minute is not waited for as long as an unknown one.
		before := agenttest.Job(t, "hangs-once-built")
		x.Do(func(*claims.Replica, claims.Now) []claims.Event {
			return []claims.Event{claims.Post{Body: claims.NewOutcome(build.Outcome{Key: before.Key, CPV: j.CPV, Target: "t", Class: build.Good, Epoch: 1,
				CoreMillis: 60_000, Artifact: &build.Artifact{CID: cas.Sum([]byte("x")).String(), Size: 1}})}}
		})
		x.Ask(j)
		time.Sleep(quietLeast + 2*stuckEvery) // of the bubble
		synctest.Wait()
		x.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			rs := r.Results(j.Key)
			if len(rs) != 1 || rs[0].Class != build.Stuck || !strings.Contains(rs[0].Reason, "no output and no CPU time for 10m") {
				t.Errorf("outcomes %+v", rs)
			}
			if infos := r.SurveyRound("r1", now); infos[0].State == claims.JobBlocked || len(infos[0].Failures) > 0 {
				t.Errorf("the package is %s with %d failures against it", infos[0].State, len(infos[0].Failures))
			}
			if why, declined := r.Declined(j.Key, x.Self, now); !declined || !strings.Contains(why, "stuck") {
				t.Errorf("it would take it again at once (%v %q)", declined, why)
			}
			return nil
		})
		select {
		case <-ended:
		default:
			t.Error("its processes go on")
		}
		x.stop()
	})
}
