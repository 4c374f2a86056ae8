package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// A quiet peer is off the gossip and still has every record within minutes, as
// the others have its; on its return gossip reaches it at once.
func TestAQuietPeerLeavesTheGossipAndStillHearsAndIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, dir := p2ptest.NewNet(1), t.TempDir()
		net.SetLatency(time.Millisecond)
		a, b, q := start(t, net, 1, dir), start(t, net, 2, dir), start(t, net, 3, dir)
		equalAfter(t, time.Minute, 0, a, b, q)
		say := func(quiet bool) {
			q.do(func(*claims.Replica, claims.Now) []claims.Event {
				return []claims.Event{claims.Report{Beat: claims.Beat{Nick: "q", Slots: 1, Quiet: quiet, Why: "it runs on battery"}}}
			})
		}
		say(true)
		if err := q.board.Quiet(true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // it says so twice
		a.post(pauses("x", 3)...)
		time.Sleep(time.Second)
		synctest.Wait()
		if _, n := q.digest(); n != 0 {
			t.Errorf("a quiet peer has %d records by gossip", n)
		}
		equalAfter(t, 2*claims.QuietMillis*time.Millisecond, 3, a, b, q)
		q.post(pauses("y", 2)...)
		equalAfter(t, 3*claims.QuietMillis*time.Millisecond, 5, a, b, q)
		time.Sleep(time.Hour)
		for _, m := range []*member{a, b} {
			m.do(func(r *claims.Replica, now claims.Now) []claims.Event {
				for _, p := range r.Peers(now) {
					if p.ID == q.id && !p.Live {
						t.Errorf("it is taken for dead %d ms after its Beat", p.AgeMS)
					}
				}
				return nil
			})
		}
		if err := q.board.Quiet(false); err != nil {
			t.Fatal(err)
		}
		say(false)
		time.Sleep(time.Second)
		a.post(pauses("z", 1)...)
		equalAfter(t, 100*time.Millisecond, 6, a, b, q)
	})
}
