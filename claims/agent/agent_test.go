package agent_test

import (
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

// wrongClock is a machine whose wall clock stands wrong by so many
// milliseconds. Its boot clock is right, as on every machine.
type wrongClock struct {
	agent.Clock
	by *atomic.Int64
}

func (c wrongClock) Now() claims.Now {
	now := c.Clock.Now()
	now.Wall += c.by.Load()
	return now
}

// alarms collects what a person would have been told.
type alarms struct {
	mu    sync.Mutex
	texts []string
}

func (a *alarms) collect(c *agent.Config) {
	c.Alarm = func(x claims.Alarm) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.texts = append(a.texts, x.Code+": "+x.Text)
	}
}

func (a *alarms) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.texts, "\n")
}

func willing(nick string) claims.Event {
	return claims.Report{Beat: claims.Beat{Nick: nick, Slots: 1, Speed: 1000, Accepting: true, Stores: true, StoreFree: 1 << 40, Builders: []build.Builder{build.BuilderSample}}}
}

// threeClocks runs three drones of which the last has a clock that is wrong.
func threeClocks(t *testing.T, wrong time.Duration) (ms []*member, by *atomic.Int64, heard *alarms) {
	net := p2ptest.NewNet(1)
	net.SetLatency(time.Millisecond)
	dir := t.TempDir()
	by, heard = &atomic.Int64{}, &alarms{}
	by.Store(wrong.Milliseconds())
	ms = []*member{start(t, net, 1, dir), start(t, net, 2, dir), start(t, net, 3, dir, heard.collect, func(c *agent.Config) {
		c.Clock = wrongClock{c.Clock, by}
	})}
	for i, nick := range []string{"alpha", "beta", "wrong"} {
		ms[i].do(func(*claims.Replica, claims.Now) []claims.Event { return []claims.Event{willing(nick)} })
	}
	time.Sleep(20 * time.Second) // of the bubble: a few Beats
	synctest.Wait()
	return ms, by, heard
}

// sees is what a peer's status would show, and whether it may claim.
func (m *member) sees() (s view.Snapshot, mayClaim bool) {
	m.do(func(r *claims.Replica, now claims.Now) []claims.Event {
		s = view.Of(r, now)
		mayClaim, _ = r.MayClaim()
		return nil
	})
	return s, mayClaim
}

func TestAClockTenMinutesSlowIsSaidToThePersonAtIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ms, by, heard := threeClocks(t, -10*time.Minute)
		s, may := ms[2].sees()
		if may {
			t.Error("a peer with a slow clock claims")
		}
		if got := strings.Join(s.Warnings, "\n"); !regexp.MustCompile(`this peer claims nothing: the clock is (599|600) s behind the other peers`).MatchString(got) {
			t.Errorf("its status warns %q", got)
		}
		if got := heard.String(); !regexp.MustCompile(`^clock: this machine's clock is (599|600) s behind most peers`).MatchString(got) {
			t.Errorf("its alarms are %q", got)
		}
		for _, m := range ms[:2] {
			if s, may := m.sees(); !may {
				t.Errorf("a peer with a right clock may not claim: %v", s.Warnings)
			}
		}
		// Somebody sets the clock.
		by.Store(0)
		time.Sleep(2 * claims.IdleBeatMillis * time.Millisecond) // others have to speak again
		if s, may := ms[2].sees(); !may {
			t.Errorf("it may not claim though its clock was set: %v", s.Warnings)
		}
		for _, m := range ms {
			m.leave()
		}
	})
}

func TestAClockTenMinutesFastHarmsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ms, _, _ := threeClocks(t, 10*time.Minute)
		for _, m := range ms[:2] {
			s, may := m.sees()
			if !may {
				t.Errorf("a peer with a right clock may not claim: %v", s.Warnings)
			}
			for _, p := range s.Peers {
				if p.ID == ms[2].id && (p.State != "away" || p.AheadMS < 9*60_000) {
					t.Errorf("the fast peer is %s, %d ms ahead; want it refused and its clock shown", p.State, p.AheadMS)
				}
			}
		}
		// The fast machine finds the difference in every other peer.
		s, _ := ms[2].sees()
		for _, p := range s.Peers {
			if !p.Self && p.AheadMS > -9*60_000 {
				t.Errorf("it sees %s %d ms ahead, want ten minutes behind", p.Nick, p.AheadMS)
			}
		}
		for _, m := range ms {
			m.leave()
		}
	})
}
