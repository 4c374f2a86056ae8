package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/emerge"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

func TestADroneMakesOneInstallTestAtATimeAndTellsItOnce(t *testing.T) {
	t.Parallel()
	p := agenttest.Start(t, t.TempDir())
	net := p2ptest.NewNet(1)
	host, asker := net.Host("drone"), &InstallTests{Net: net.Host("asker")}
	began, end := make(chan string, 8), make(chan struct{})
	drone := &InstallTests{Board: p.Board, Net: host, Ground: &Ground{Roots: emerge.NewRoots(emerge.RootsConfig{})}, Log: p.Log,
		try: func(_ context.Context, r installRequest) (emerge.InstallReport, error) {
			began <- r.Manifest
			<-end
			return emerge.InstallReport{Installed: 3, Failed: []emerge.Tested{{Reason: "postinst phase"}}}, nil
		}}
	drone.Serve()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- drone.Run(running) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	type result struct {
		reply installReply
		err   error
	}
	first := make(chan result, 1)
	ask := func() {
		r, err := asker.ask(ctx, "drone", installRequest{Manifest: "one"})
		first <- result{r, err}
	}
	go ask()
	if m := <-began; m != "one" {
		t.Fatalf("it began with %q", m)
	}
	busy, err := asker.ask(ctx, "drone", installRequest{Manifest: "two"})
	if err != nil || !busy.Done || !strings.Contains(busy.Why, "another") {
		t.Errorf("asked for another meanwhile: %+v %v", busy, err)
	}
	end <- struct{}{}
	if r := <-first; r.err != nil || r.reply.Why != "" || r.reply.Report.Installed != 3 || len(r.reply.Report.Failed) != 1 {
		t.Errorf("it says %+v", r)
	}
	// Whoever asks again wants it tried again: what failed may be mended.
	go ask()
	if m := <-began; m != "one" {
		t.Errorf("it began with %q", m)
	}
	end <- struct{}{}
	if r := <-first; r.err != nil || r.reply.Report.Installed != 3 {
		t.Errorf("again: %+v", r)
	}
}

func TestAPeerThatCanIsolateNothingDeclinesAnInstallTest(t *testing.T) {
	t.Parallel()
	net := p2ptest.NewNet(1)
	drone := &InstallTests{Net: net.Host("drone"), Ground: &Ground{}}
	drone.Serve()
	reply, err := (&InstallTests{Net: net.Host("asker")}).ask(t.Context(), "drone", installRequest{Manifest: "one"})
	if err != nil || !reply.Done || reply.Why != "it can isolate nothing" {
		t.Errorf("%+v %v", reply, err)
	}
}

func TestAnotherDroneIsAskedWhereOneCannotEndAnInstallTest(t *testing.T) {
	t.Parallel()
	full := installReply{Done: true, Why: "no space left on the device (while x/a-1 was installed)", Broke: true}
	busy := installReply{Done: true, Why: "it makes another install test"}
	good := installReply{Done: true, Report: emerge.InstallReport{Installed: 2, Failed: []emerge.Tested{{Reason: "preinst phase: no"}}}}
	lost := fmt.Errorf("%w, and then: %w", errBegun, errors.New("connection reset"))
	for name, c := range map[string]struct {
		replies []any
		want    string
		broke   bool
		asked   int
	}{
		"the second makes it":            {[]any{full, good}, "d1 installed 2 packages into a fresh root; 1 could not be installed", false, 2},
		"nobody is free":                 {[]any{busy, busy}, "not made: d0: it makes another install test; d1: it makes another install test", false, 2},
		"one broke off, one is not free": {[]any{full, busy}, "not made: d0: no space left on the device (while x/a-1 was installed); d1: it makes another install test", true, 2},
		"it began and was lost":          {[]any{lost}, "", true, 1},
		"it was never heard of":          {[]any{errors.New("no route")}, "not made: d0: no route", false, 1},
		"enough broke off":               {[]any{full, full, full, good}, "", true, installBreaks},
	} {
		var drones []drone
		for i := range c.replies {
			drones = append(drones, drone{fmt.Sprint(i), fmt.Sprint("d", i)})
		}
		asked := 0
		got, err := eachUntilOne(t.Context(), drones, nil, time.Minute, func(_ context.Context, id string) (installReply, error) {
			asked++
			switch r := c.replies[asked-1].(type) {
			case installReply:
				return r, nil
			case error:
				return installReply{}, r
			}
			return installReply{}, nil
		})
		if err != nil || got.Broke != c.broke || asked != c.asked || c.want != "" && got.String() != c.want {
			t.Errorf("%s: %s (broke %v) after %d, %v", name, got.String(), got.Broke, asked, err)
		}
	}
}
