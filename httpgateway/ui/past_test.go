package ui_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build/view/viewtest"
)

// Without a script: the links alone lead back and forth.
func TestLinksLeadToTheSwarmAsItWas(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2})
	u := newUI(t, s)
	tl := &s.detail.Timeline
	now := get(t, u, "/").Body.String()
	if strings.Contains(now, "As it was at") || !strings.Contains(now, ">1 min back</a>") || strings.Contains(now, "min on</a>") {
		t.Error("the page of now shows no way back, or a way on")
	}
	at := (tl.StartMS + tl.NowMS) / 2
	_, stood := tl.At(at)
	past := get(t, u, fmt.Sprintf("/?at=%d", at)).Body.String()
	for _, want := range []string{"As it was at ", fmt.Sprintf("%d built", stood.Built), fmt.Sprintf("%d building then", stood.Building), ">then</text>", `href="/#timeline">now</a>`} {
		if !strings.Contains(past, want) {
			t.Errorf("the page of the middle has no %s", want)
		}
	}
	for _, m := range regexp.MustCompile(`href="(/\?at=\d+)#timeline"`).FindAllStringSubmatch(past, -1) {
		if body := get(t, u, m[1]).Body.String(); !strings.Contains(body, "As it was at ") {
			t.Errorf("%s is of now", m[1])
		}
	}
	for _, bad := range []string{"x", "-1", "1", "99999999999999999", "99999999999999999999999", "%00"} {
		if body := get(t, u, "/?at="+bad).Body.String(); strings.Contains(body, "As it was at") {
			t.Errorf("at=%s shows a time that there was not", bad)
		}
	}
}

// Of a hundred peers a phone shows what wants a look and what moves; who waits is
// a fold away.
func TestManyPeersAreFolded(t *testing.T) {
	s := newSource(viewtest.Options{Drones: 100, Jobs: 600, Away: 3})
	u := newUI(t, s)
	body := get(t, u, "/").Body.String()
	tiles := strings.Count(body, `<article class="tile`)
	if tiles > 18 || !strings.Contains(body, `<details class="rest" id="more-peers"><summary>`) {
		t.Errorf("%d tiles", tiles)
	}
	for _, p := range s.detail.Peers {
		if !strings.Contains(body, ">"+p.Nick+"</a>") {
			t.Errorf("%s is nowhere on the page", p.Nick)
		}
	}
	if all := get(t, u, "/?peers=all").Body.String(); !strings.Contains(all, `id="more-peers" open>`) {
		t.Error("with all peers they are folded")
	}
	few := newSource(viewtest.Options{Drones: 10, Jobs: 60})
	if body := get(t, newUI(t, few), "/").Body.String(); strings.Count(body, `<article class="tile`) != 11 || strings.Contains(body, "more-peers") {
		t.Error("of eleven peers some have no tile")
	}
}
