package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

func TestSinceReadsWhatPeopleType(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 30, 0, 0, time.FixedZone("", 3600))
	for in, want := range map[string]string{
		"2h": "2026-11-24T07:30:00+01:00", "90m": "2026-11-24T08:00:00+01:00", "3d": "2026-11-21T09:30:00+01:00",
		"03:14": "2026-11-24T03:14:00+01:00", "22:00": "2026-11-23T22:00:00+01:00",
		"2026-11-20": "2026-11-20T00:00:00+01:00", "2026-11-20T03:14": "2026-11-20T03:14:00+01:00", "2026-11-20T03:14:00Z": "2026-11-20T03:14:00Z",
	} {
		got, err := parseSince(in, now)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s, %v; want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-2h", "-1d", "25:00", "9e99d"} {
		if got, err := parseSince(in, now); err == nil {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func TestEventsShowHostileTextAsText(t *testing.T) {
	var b bytes.Buffer
	showEvents(render.Out{W: &b, Width: 80}, control.Events{Events: []view.Event{{AtMS: 1, Kind: view.EventFailed, Text: "a\x1b[31m\nb\tc\u202e" + strings.Repeat("x", 1<<20)}}})
	if strings.ContainsAny(b.String(), "\x1b\u202e") || strings.Count(b.String(), "\n") != 1 || strings.Count(b.String(), "\t") != 2 {
		t.Errorf("%.200q", b.String())
	}
}

func TestEventsUpToATime(t *testing.T) {
	var list []view.Event
	for n := range int64(10) {
		list = append(list, view.Event{AtMS: n * 10})
	}
	for _, x := range []struct {
		until int64
		limit int
		want  string
	}{{35, 100, "[0 10 20 30]"}, {30, 2, "[20 30]"}, {-1, 5, "[]"}, {1000, 3, "[70 80 90]"}} {
		got := []int64{}
		for _, e := range upTo(list, x.until, x.limit) {
			got = append(got, e.AtMS)
		}
		if fmt.Sprint(got) != x.want {
			t.Errorf("up to %d, %d of them: %v, want %s", x.until, x.limit, got, x.want)
		}
	}
}
