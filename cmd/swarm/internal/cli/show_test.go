package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/demo"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func snapshot() view.Snapshot {
	return view.Snapshot{
		Verdict: view.Degraded, Sentence: "3 of 14 built, 1 building on 2 drones", Next: "swarm status --watch",
		Rounds: []view.Round{
			{ID: "1d0909b890", State: "open", Priority: "waited-for", Command: "swarm build @samples", Jobs: 14, Building: 1, Done: 3, Blocked: 2, Impulse: 41.6, LeftMS: 95_000, LeftLowMS: 70_000, LeftHighMS: 160_000},
			{ID: "0000000001", State: "closed", Command: "swarm build x"},
		},
		Peers: []view.Peer{
			{Nick: "nas", Self: true, State: "building", Cores: 4, Slots: 1, DiskMiB: 3 << 10, AgeMS: 100, Doing: []view.Build{{CPV: "sci-mathematics/sample-spectrum-3.0", Phase: "compile", InvestedMS: 12_000, LeftMS: 40_000}}},
			{Nick: "laptop", State: "held", Cores: 8, AgeMS: 4_000, Why: "on battery"},
			{Nick: "old\x1b[2J", State: "away", Cores: 2, AgeMS: 4_000_000, Doing: []view.Build{{CPV: "a/b-1", Phase: "compile"}}},
		},
		Releases: []view.Release{{Target: "default", Channel: "stable", Version: 3, Number: 2, Packages: 412, Timestamp: 1_800_000_000}},
		Staging:  []view.Staging{{Target: "default", New: 3, Changed: 1, Held: 2}, {Target: "nas", Problem: "the shown release cannot be read"}, {Target: "vm"}},
		AtMS:     1_800_000_000_000 + 3_720_000,
		Issues: []view.Issue{
			{Kind: view.IssueFailed, Severity: view.Degraded, Title: "dev-libs/icu-74 does not build", HoldsUp: 11, Drones: []string{"nas", "vm"}, Detail: "error: \x1b[31mno such type", Do: "swarm logs 3fa9c1d2"},
			{Kind: view.IssueAway, Title: "old fell silent", Do: "swarm peers"},
		},
		Blobs:    view.Blobs{Total: 9, Wanted: 2, Copies: map[int]int{1: 2, 2: 6, 3: 1}},
		Warnings: []string{"no connection to 12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmXj5UotvcE7kk: swarm key mismatch: /ip4/10.0.0.7/tcp/4747 does not hold this swarm's key"},
	}
}

func TestStatusOnATerminalAndInAPipe(t *testing.T) {
	for name, x := range map[string]struct {
		out  render.Out
		want string
	}{
		"80 columns": {render.Out{TTY: true, Width: 80}, `
DEGRADED: 3 of 14 built, 1 building on 2 drones
round 1d0909b890: swarm build @samples (waited-for): needed 14, building 1, done
                  3, 2 blocked, 42/h, ETA 1m10s - 2m40s

PEER    STATE     CORES  HEARD  DOING
nas *   building  4      -      sci-mathematics/sample-spectrum-3.0 (compile 12~
laptop  held      8      4s     on battery
old[2J  away      2      1h06m  was building a/b-1

attention: dev-libs/icu-74 does not build, holds up 11, tried on nas, vm: error:
           [31mno such type (swarm logs 3fa9c1d2)

copies: 7 of 9 blobs on 2 peers or more, 2 still being copied
  low on disk: nas has 3.0 GiB for builds
release: default/stable version 3, back at release 2, 412 packages, of
         2027-01-15T08:00:00Z (1h02m ago)
staging: default: 3 new, 1 changed, 2 held back (swarm diff --target default)
staging: nas: cannot be composed: the shown release cannot be read
staging: vm: nothing new
warning: no connection to 12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmXj5UotvcE7kk:
         swarm key mismatch: /ip4/10.0.0.7/tcp/4747 does not hold this swarm's
         key

NEXT ACTION: swarm status --watch
`},
		"a pipe": {render.Out{Width: 80}, `
DEGRADED: 3 of 14 built, 1 building on 2 drones
round 1d0909b890: swarm build @samples (waited-for): needed 14, building 1, done 3, 2 blocked, 42/h, ETA 1m10s - 2m40s

nas *	building	4	-	sci-mathematics/sample-spectrum-3.0 (compile 12s, about 40s left)
laptop	held	8	4s	on battery
old[2J	away	2	1h06m	was building a/b-1

attention: dev-libs/icu-74 does not build, holds up 11, tried on nas, vm: error: [31mno such type (swarm logs 3fa9c1d2)

copies: 7 of 9 blobs on 2 peers or more, 2 still being copied
  low on disk: nas has 3.0 GiB for builds
release: default/stable version 3, back at release 2, 412 packages, of 2027-01-15T08:00:00Z (1h02m ago)
staging: default: 3 new, 1 changed, 2 held back (swarm diff --target default)
staging: nas: cannot be composed: the shown release cannot be read
staging: vm: nothing new
warning: no connection to 12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmXj5UotvcE7kk: swarm key mismatch: /ip4/10.0.0.7/tcp/4747 does not hold this swarm's key

NEXT ACTION: swarm status --watch
`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			x.out.W = &b
			showStatus(x.out, snapshot())
			if got := "\n" + b.String(); got != x.want {
				t.Errorf("got:%s\nwant:%s", got, x.want)
			}
		})
	}
}

func TestJobsOnATerminalAndInAPipe(t *testing.T) {
	key := build.Key(strings.Repeat("ab", 32))
	jobs := []view.Job{
		{CPV: "app-misc/sample-hello-2.1", State: "safe", Peer: "nas", Copies: 2, Key: key, USE: []string{"color"}},
		{CPV: "sci-mathematics/sample-spectrum-3.0", State: "waiting", Key: key, WaitsFor: []string{"dev-util/sample-gen-1.4"}},
		{CPV: "app-misc/sample-broken-1.0", State: "blocked", Peer: "nas", Key: key, Reason: "cc: error: no_such_name"},
		{CPV: "a/b-1", State: "available", Peer: "nas", Copies: 1, Key: key},
	}
	for name, x := range map[string]struct {
		out  render.Out
		want string
	}{
		"80 columns": {render.Out{TTY: true, Width: 80}, `
PACKAGE                              STATE      PEER  KEY       NOTE
app-misc/sample-hello-2.1            safe       nas   abababab  2 copies USE=co~
sci-mathematics/sample-spectrum-3.0  waiting          abababab  waits for dev-u~
app-misc/sample-broken-1.0           blocked    nas   abababab  cc: error: no_s~
a/b-1                                available  nas   abababab  1 copy
`},
		"a pipe": {render.Out{Width: 80}, `
app-misc/sample-hello-2.1	safe	nas	2	abababab	USE=color
sci-mathematics/sample-spectrum-3.0	waiting		0	abababab	waits for dev-util/sample-gen-1.4
app-misc/sample-broken-1.0	blocked	nas	0	abababab	cc: error: no_such_name
a/b-1	available	nas	1	abababab	
`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			x.out.W = &b
			showJobs(x.out, jobs)
			if got := "\n" + b.String(); got != x.want {
				t.Errorf("got:%s\nwant:%s", got, x.want)
			}
		})
	}
}

func TestPeersOnATerminalSayWhatIsWrong(t *testing.T) {
	var b bytes.Buffer
	lost := control.Peer{Problem: "swarm key mismatch: /ip4/10.0.0.7/tcp/4747 does not hold this swarm's key"}
	lost.ID, lost.State = "12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmXj5UotvcE7kk", "unreached"
	near := control.Peer{Connected: true, Via: "LAN", RTTMicros: 4120, Rate: 93 << 20}
	near.ID, near.Nick, near.State, near.Cores, near.Blobs, near.UsedB, near.AgeMS = "12D3KooWG1xZcYMTjWHDxEbPcPQWtugPcfPXJVBxbx5qmqnvy1oX", "nas", "idle", 4, 28, 553_000, 2100
	showPeers(render.Out{W: &b, TTY: true, Width: 80}, []control.Peer{near, lost})
	want := `
PEER  STATE      VIA  RTT    RATE   CORES  BLOBS  KEPT       HEARD  ID
nas   idle       LAN  4.1ms  93M/s  4      28     540.0 KiB  2s     mqnvy1oX
-     unreached  -    -      -      0      0      0 B        -      otvcE7kk
warning: otvcE7kk: swarm key mismatch: /ip4/10.0.0.7/tcp/4747 does not hold this
         swarm's key
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

func TestTheDemoEndsInTenLines(t *testing.T) {
	r := demo.Result{Peers: 4, Jobs: 14, Built: 14, TakenOver: 1, ReplicasMin: 2, Served: 14, Bytes: 553_000, Seconds: 49.8, Killed: "gamma",
		IndexURL: "http://127.0.0.1:39555/demo/stable/Packages", Example: "app-misc/sample-hello", Dir: "/tmp/swarm-demo-1", Sockets: []string{"/tmp/swarm-demo-1/alpha.sock"}, PIDs: []int{11, 12, 13}}
	var b bytes.Buffer
	showDemo(render.Out{W: &b, TTY: true, Width: 80}, &r)
	want := `
ok  peers          4 found one another; gamma was killed in the middle of a build
ok  built          14 of 14 packages, in 50 s in all
ok  built twice    0
ok  taken over     1 of the lost peer's jobs, under production leases
ok  copies         2 or more of each package on the survivors' disks, re-hashed
ok  served         14 files, 540.0 KiB: SIZE, SHA1, MD5 and CID agree
ok  goes on        swarm status --socket /tmp/swarm-demo-1/alpha.sock
ok  to end it      kill 11 12 13; rm -r /tmp/swarm-demo-1

A Gentoo machine with this peer on it would type:
  swarm portage setup --target demo --gateway 127.0.0.1:39555
  emerge --ask --getbinpkgonly app-misc/sample-hello
`
	if b.String() != want {
		t.Errorf("got:%s\nwant:%s", b.String(), want)
	}
	b.Reset()
	r.BuiltTwice, r.Served = 1, 13
	showDemo(render.Out{W: &b}, &r)
	if got := b.String(); strings.Count(got, "BAD") != 2 || !strings.Contains(got, "BAD built twice    1\n") || !strings.Contains(got, "BAD served         13 files") {
		t.Errorf("what is wrong does not show:\n%s", got)
	}
}

func TestErrorsAreOneLineAndAHint(t *testing.T) {
	joined := errors.Join(&control.Error{Kind: control.KindNotFound, Message: "no job x", Hint: "swarm jobs lists them"}, errors.New("close: bad\x1b[2J file"))
	for name, x := range map[string]struct {
		err  error
		json bool
		code int
		want string
	}{
		"none":        {nil, false, exitOK, ""},
		"plain":       {errors.New("open x: no such file"), false, exitError, "swarm: error: open x: no such file\n"},
		"with a hint": {usage("swarm build --wait x", "wrong"), false, exitUsage, "swarm: error: wrong\nswarm: hint: swarm build --wait x\n"},
		"wrapped":     {fmt.Errorf("start: %w", usage("do", "wrong")), false, exitUsage, "swarm: error: start: wrong\nswarm: hint: do\n"},
		"several":     {joined, false, exitNotFound, "swarm: error: no job x; close: bad[2J file\nswarm: hint: swarm jobs lists them\n"},
		"partly":      {errPartial, false, exitPartial, ""},
		"for programs": {usage("do", "wrong \"word\""), true, exitUsage,
			`{"kind":"usage","error":"wrong \"word\"","hint":"do"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if code := report(t.Context(), x.err, x.json, &b); code != x.code || b.String() != x.want {
				t.Errorf("code %d, %q; want %d, %q", code, b.String(), x.code, x.want)
			}
			if x.json && !json.Valid(b.Bytes()) {
				t.Error("not JSON")
			}
		})
	}
}

func TestHelpFitsATerminalAndNamesEveryCommand(t *testing.T) {
	e := &env{}
	app := newApp(e, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	texts := map[string]string{"swarm": appHelp(app)}
	for _, cmd := range app.Commands {
		texts["swarm "+cmd.Name] = commandHelp(cmd, "swarm "+cmd.Name)
		for _, sub := range cmd.Subcommands {
			texts["swarm "+cmd.Name+" "+sub.Name] = commandHelp(sub, "swarm "+cmd.Name+" "+sub.Name)
		}
		if !cmd.Hidden && !strings.Contains(texts["swarm"], "\n  "+cmd.Name+" ") {
			t.Errorf("the list lacks %s", cmd.Name)
		}
	}
	for name, text := range texts {
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
			if strings.Contains(line, "`") || strings.Contains(line, "VALUE") {
				t.Errorf("%s: a flag whose value has no name: %s", name, line)
			}
		}
		if !strings.HasPrefix(text, name+" - ") || !strings.Contains(text, "usage: "+name) {
			t.Errorf("%s begins %.60q", name, text)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1024": 1024, "1K": 1 << 10, "500M": 500 << 20, "50G": 50 << 30, "2T": 2 << 40} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "G", "-1", "1.5G", "1GB", "K5", "5 G", "99999999T", "9223372036854775808"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("%q is %d, want an error", bad, got)
		}
	}
}
