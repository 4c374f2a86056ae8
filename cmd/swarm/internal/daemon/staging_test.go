package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/build-swarm/swarm/build/view"
)

func TestAReleaseIsComposedForScreensAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s staging
		made := 0
		ask := func(targets ...string) []view.Staging {
			return s.of(t.Context(), targets, func(_ context.Context, target string) view.Staging {
				made++
				time.Sleep(100 * time.Millisecond)
				return view.Staging{Target: target, New: made}
			})
		}
		for range 10 {
			if got := ask("a"); len(got) != 1 || got[0].New != 1 {
				t.Fatalf("%+v", got)
			}
		}
		if got := ask("a", "b"); got[0].New != 1 || got[1].New != 2 {
			t.Errorf("a second target: %+v", got)
		}
		time.Sleep(stagingFactor * 100 * time.Millisecond)
		if got := ask("b"); got[0].New != 3 {
			t.Errorf("after its rest: %+v", got)
		}
		if got := ask(); len(got) != 0 {
			t.Errorf("nothing is open: %+v", got)
		}
	})
}
