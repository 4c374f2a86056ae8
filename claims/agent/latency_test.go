package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/gossip"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// The bars of a claim, from the round that asks for it to the last peer that
// sees it.
const (
	claimP50    = 200 * time.Millisecond
	claimP99    = time.Second
	claimRounds = 40
	// workerDebounce is how long build/worker lets changes settle.
	workerDebounce = 20 * time.Millisecond
)

// realPeer is an agent on a libp2p host: TCP on loopback, the private-network
// key, TLS, gossipsub, a journal on disk.
type realPeer struct {
	id    string
	host  *p2p.Host
	topic *gossip.Member
	board *agent.Agent
}

// realSwarm runs n of them; each has about eight connections.
func realSwarm(b *testing.B, n int) []*realPeer {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	key, dir := p2p.NewSwarmKey(), b.TempDir()
	clock, err := agent.SystemClock()
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	var peers []*realPeer
	joined := make(chan struct{}, n)
	for i := range n {
		id := p2ptest.Identity(1000 + i)
		p := &realPeer{id: id.ID()}
		if p.host, err = p2p.NewHost(p2p.Config{Identity: id, SwarmKey: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: log}); err != nil {
			b.Fatal(err)
		}
		j, err := agent.OpenJournal(filepath.Join(dir, p.id+".db"))
		if err != nil {
			b.Fatal(err)
		}
		p.board, err = agent.New(agent.Config{Key: id.PrivateKey(), Net: p.host, Journal: j, Clock: clock, Log: log, Alarm: func(a claims.Alarm) { b.Log(a.Text) },
			Join: func(v gossip.Validator) (gossip.Topic, error) {
				defer func() { joined <- struct{}{} }()
				p.topic, err = gossip.Join(p.host, agent.Topic, v, log)
				return p.topic, err
			}})
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			if err := p.board.Run(ctx); err != nil {
				b.Error(err)
			}
			_ = p.host.Close()
			_ = j.Close()
		})
		peers = append(peers, p)
	}
	b.Cleanup(func() { cancel(); wg.Wait() })
	for range n {
		<-joined
	}
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i, p := range peers {
		to := []int{(i + 1) % n}
		for range 3 {
			to = append(to, rng.IntN(n))
		}
		for _, k := range to {
			if k != i {
				if err := p.host.Connect(ctx, peers[k].host.Addrs()); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for _, p := range peers {
		if err := p.topic.WaitPeers(ctx, 2); err != nil {
			b.Fatal(err)
		}
	}
	return peers
}

// drone takes what the plan gives it, as build/worker does, and builds nothing.
func (p *realPeer) drone(ctx context.Context) {
	var s plan.Scheduler
	memory := plan.NewMemory()
	changed := p.board.Changed()
	timer := time.NewTimer(workerDebounce)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			timer.Reset(workerDebounce)
			continue
		case <-timer.C:
		}
		_ = p.board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			if ok, _ := r.MayClaim(); !ok || len(r.Held()) > 0 {
				return nil
			}
			peers := r.Peers(now)
			v := plan.View{Ready: r.Ready(nil, plan.Limit(len(peers)), now), Peers: peers, Passed: memory.Scarred, Excluded: memory.Passed}
			k, ok, all := s.Next(&v, p.id)
			memory.Note(all, peers, now.Boot)
			if !ok {
				return nil
			}
			return []claims.Event{claims.Take{Key: k}}
		})
	}
}

// until waits for something to be true of a peer's board.
func (p *realPeer) until(ctx context.Context, f func(*claims.Replica, claims.Now) bool) error {
	changed := p.board.Changed()
	poll := time.NewTicker(time.Second) // what time alone changes
	defer poll.Stop()
	for {
		ok := false
		err := p.board.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
			ok = f(r, now)
			return nil
		})
		if err != nil || ok {
			return err
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// all waits for it on every board.
func all(ctx context.Context, peers []*realPeer, f func(*claims.Replica, claims.Now) bool) error {
	errs := make(chan error, len(peers))
	for _, p := range peers {
		go func() { errs <- p.until(ctx, f) }()
	}
	for range peers {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkClaimLatency posts rounds of one job, one after another, and takes
// the time until every peer sees who has claimed it. All peers share the cores
// of this machine, so that the figure grows with their number; on machines of
// their own it is hops and round trips.
func BenchmarkClaimLatency(b *testing.B) {
	for _, n := range []int{5, 20, 50} {
		b.Run(fmt.Sprintf("peers=%d", n), func(b *testing.B) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			peers := realSwarm(b, n)
			for i, p := range peers {
				go p.drone(ctx)
				err := p.board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
					return []claims.Event{claims.Report{Beat: claims.Beat{Nick: fmt.Sprint(i), Slots: 1, Speed: int64(1000 + i), Accepting: true, Steady: true,
						DiskMiB: 1000, Builders: []build.Builder{build.BuilderSample}}}}
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			know := func(r *claims.Replica, now claims.Now) bool {
				live := 0
				for _, p := range r.Peers(now) {
					if p.Live && p.Beat.Accepting {
						live++
					}
				}
				ok, _ := r.MayClaim()
				return ok && live == n
			}
			if err := all(ctx, peers, know); err != nil {
				b.Fatalf("the peers do not know one another: %v", err)
			}
			var took []time.Duration
			for b.Loop() {
				for i := range claimRounds {
					took = append(took, claimOnce(ctx, b, peers, i))
				}
			}
			slices.Sort(took)
			p50, p99 := took[len(took)/2], took[len(took)*99/100]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(p50)/float64(claimP50), "p50-x-bar")
			b.ReportMetric(float64(p99)/float64(claimP99), "p99-x-bar")
		})
	}
}

var serial int

func claimOnce(ctx context.Context, b *testing.B, peers []*realPeer, i int) time.Duration {
	b.Helper()
	serial++
	job := testJob(b, fmt.Sprintf("job%dx%d", len(peers), serial))
	from := peers[i%len(peers)]
	round := build.Round{ID: fmt.Sprintf("r%d", serial), Target: "t", Requester: from.id, Priority: build.Normal, State: build.RoundOpen, Counter: 1,
		Jobs: 1, Plan: &build.Plan{Target: "t", Jobs: []build.Job{job}}}
	seen := make(chan error, 1)
	go func() {
		seen <- all(ctx, peers, func(r *claims.Replica, now claims.Now) bool {
			_, held := r.Holder(job.Key, now)
			return held
		})
	}()
	began := time.Now()
	err := from.board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewRound(round)}}
	})
	if err == nil {
		err = <-seen
	}
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	// The round is over, and its drone is free again.
	round.State, round.Counter = build.RoundCancelled, 2
	err = from.board.Do(ctx, func(*claims.Replica, claims.Now) []claims.Event {
		return []claims.Event{claims.Post{Body: claims.NewRound(round)}}
	})
	if err != nil {
		b.Fatal(err)
	}
	// Nobody takes it anew once everybody knows that.
	err = all(ctx, peers, func(r *claims.Replica, _ claims.Now) bool {
		rd, _, _ := r.Round(round.ID)
		return rd.State == build.RoundCancelled
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range peers {
		err := p.board.Do(ctx, func(r *claims.Replica, _ claims.Now) []claims.Event {
			var evs []claims.Event
			for _, j := range r.Held() {
				evs = append(evs, claims.GiveBack{Key: j.Key, Reason: "test"})
			}
			return evs
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	err = all(ctx, peers, func(r *claims.Replica, now claims.Now) bool {
		_, held := r.Holder(job.Key, now)
		return !held
	})
	if err != nil {
		b.Fatal(err)
	}
	return took
}
