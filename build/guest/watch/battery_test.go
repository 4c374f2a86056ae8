package watch

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPeerThatOnlyStoresIsQuietOnBatteryUntilItIsAsked(t *testing.T) {
	m := newLaptop(t)
	plug := func(in bool) {
		online := map[bool]string{true: "1", false: "0"}[in]
		m.write("sys/class/power_supply/AC/online", online)
		m.write("sys/class/power_supply/BAT0/status", map[bool]string{true: "Charging", false: "Discharging"}[in])
	}
	synctest.Test(t, func(t *testing.T) {
		var did []string
		began := time.Now()
		var b *Battery
		note := func(what string) {
			if len(did) == 0 || did[len(did)-1] != what { // that it goes on is told again and again
				did = append(did, what)
			}
		}
		b = NewBattery(Config{Root: m.root, Boot: func() int64 { return 1 + time.Since(began).Milliseconds() },
			Tell: func(ctx context.Context) {
				note(map[bool]string{true: "tells that it is quiet", false: "tells that it is not"}[b.Report(ctx).Quiet])
			},
			Quiet: func(_ context.Context, on bool) { note(map[bool]string{true: "quiet", false: "awake"}[on]) }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		is := func(at time.Duration, quiet bool) {
			t.Helper()
			time.Sleep(time.Until(began.Add(at)))
			synctest.Wait()
			if got := b.Report(ctx); got.Quiet != quiet || !got.Steady {
				t.Errorf("after %v: %+v, want quiet %v", at, got.Verdict, quiet)
			}
		}
		is(5*time.Minute, false) // on AC
		plug(false)
		is(5*time.Minute+55*time.Second, false)
		is(6*time.Minute+15*time.Second, true)
		b.Asked()
		is(6*time.Minute+16*time.Second, false)
		is(8*time.Minute+14*time.Second, false)
		is(8*time.Minute+16*time.Second, true)
		plug(true)
		is(8*time.Minute+30*time.Second, false)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []string{"tells that it is quiet", "quiet", "awake", "tells that it is not", "tells that it is quiet", "quiet", "awake", "tells that it is not"}; !slices.Equal(did, want) {
			t.Errorf("it %q", did)
		}
	})
}
