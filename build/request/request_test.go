package request

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
)

func requester(p *agenttest.Peer, replicated *int) *Requester {
	return &Requester{Self: p.Self, Board: p.Board, Store: p.Store, Announce: p.Announce, Fetch: p.NoPeers,
		Replicate: func(_ context.Context, _ cid.Cid, copies int) error { *replicated = copies; return nil }}
}

func TestASmallPlanStandsInTheRound(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	copies := 0
	q := requester(p, &copies)
	p.Until("the peer may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	id, err := q.Submit(context.Background(), &build.Plan{Target: "t", Jobs: []build.Job{agenttest.Job(t, "a")}, Command: "swarm build a"}, build.WaitedFor)
	if err != nil {
		t.Fatal(err)
	}
	p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		rd, plan, ok := r.Round(id)
		if !ok || plan == nil || rd.Plan == nil || rd.PlanCID != "" || rd.Requester != p.Self || copies != 0 {
			t.Errorf("round %+v, plan %v", rd, plan)
		}
		if jobs := r.Survey(now); len(jobs) != 1 || jobs[0].Priority != build.WaitedFor {
			t.Errorf("jobs %+v", jobs)
		}
		return nil
	})
}

func TestALargePlanIsABlobThatTwoPeersHold(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	copies := 0
	q := requester(p, &copies)
	plan := build.Plan{Target: "t"}
	for i := range 400 {
		plan.Jobs = append(plan.Jobs, agenttest.Job(t, fmt.Sprintf("job%d", i)))
	}
	id, err := q.Submit(context.Background(), &plan, build.Normal)
	if err != nil {
		t.Fatal(err)
	}
	var planCID string
	p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
		rd, _, _ := r.Round(id)
		planCID = rd.PlanCID
		if n := len(r.Survey(now)); n != 400 || copies != 2 {
			t.Errorf("%d jobs, copied to %d peers", n, copies)
		}
		return nil
	})
	got, err := q.LoadPlan(context.Background(), planCID)
	if err != nil || len(got.Jobs) != 400 || got.Jobs[7].CPV != plan.Jobs[7].CPV {
		t.Errorf("LoadPlan: %v", err)
	}
}

func TestAPlanThatCannotBeIsRefused(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	copies := 0
	q := requester(p, &copies)
	if _, err := q.Submit(context.Background(), &build.Plan{Target: "t"}, build.Normal); !errors.Is(err, ErrNothing) {
		t.Errorf("an empty plan: %v", err)
	}
	j := agenttest.Job(t, "a")
	j.Key = build.Key(strings.Repeat("0", 64))
	if _, err := q.Submit(context.Background(), &build.Plan{Target: "t", Jobs: []build.Job{j}}, build.Normal); !errors.Is(err, build.ErrPlan) {
		t.Errorf("a wrong key: %v", err)
	}
	info, err := p.Store.Put(context.Background(), strings.NewReader("not a plan"), cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"nonsense", info.CID.String()} {
		if _, err := q.LoadPlan(context.Background(), bad); err == nil {
			t.Errorf("LoadPlan(%q) succeeded", bad)
		}
	}
}

func TestWhatAPlanBringsIsHeldByTwoPeersFirst(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	var copied []string
	q := requester(p, new(int))
	q.Replicate = func(_ context.Context, c cid.Cid, copies int) error {
		if copies != 2 {
			t.Errorf("%s is copied to %d peers", c, copies)
		}
		copied = append(copied, c.String())
		return nil
	}
	blob := func(s string) string { return cas.Sum([]byte(s)).String() }
	job := agenttest.Job(t, "a")
	job.Root = build.NewRoot(build.RootEntry{CPV: build.CPV{Category: "dev-libs", Name: "lent", Version: "1"}, Slot: "0/0", Seed: blob("lent")})
	plan := &build.Plan{Target: "t", Jobs: []build.Job{job}, Bundle: blob("bundle"), Trees: []build.Snapshot{{Name: "gentoo", Digest: strings.Repeat("a", 64), CID: blob("tree")}}}
	plan.Tree = build.TreeOf(plan.Trees)
	p.Until("the peer may write", func(r *claims.Replica, _ claims.Now) bool { ok, _ := r.MayClaim(); return ok })
	if _, err := q.Submit(context.Background(), plan, build.Normal); err != nil {
		t.Fatal(err)
	}
	if want := []string{blob("bundle"), blob("tree"), blob("lent")}; !slices.Equal(copied, want) {
		t.Errorf("copied %v, want %v", copied, want)
	}
	plan.Trees[0].Digest = strings.Repeat("b", 64)
	if _, err := q.Submit(context.Background(), plan, build.Normal); !errors.Is(err, build.ErrPlan) {
		t.Errorf("snapshots of another tree than the plan's: %v", err)
	}
}
