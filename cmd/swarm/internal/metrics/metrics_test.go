package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/build/view/viewtest"
)

func scrape(t *testing.T, s Source) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(s, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w
}

func TestMetricsSayWhatTheSnapshotSays(t *testing.T) {
	sw := viewtest.New(viewtest.Options{Drones: 4, Jobs: 60, Failures: 2, Away: 1, Hostile: true})
	d := view.Look(sw.Replica, sw.Now)
	d.Releases = append(d.Releases, view.Release{Target: "desktop", Channel: "stable", Version: 3, Timestamp: 17})
	refused := reflect.ValueOf(&d.Refused).Elem()
	for i := range refused.NumField() {
		refused.Field(i).SetUint(uint64(100 + i))
	}
	w := scrape(t, Source{Version: "v1", Latest: func(context.Context) (*view.Detail, error) { return d, nil },
		Gateway: func() Gateway {
			return Gateway{Requests: map[string]uint64{"local": 7}, Bytes: map[string]uint64{"package": 99}}
		}})
	body := w.Body.String()
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, body)
	}
	for _, want := range []string{`swarm_build_info{version="v1"} 1`, `swarm_verdict{verdict="degraded"} 1`, `swarm_verdict{verdict="healthy"} 0`, `swarm_peers{state="away"} 1`,
		`swarm_release_version{channel="stable",target="desktop"} 3`, `swarm_gateway_requests_total{result="local"} 7`, `swarm_gateway_sent_bytes_total{kind="package"} 99`,
		`swarm_issues{kind="failed",severity="degraded"} 2`} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	rd := &d.Rounds[0]
	for q, ms := range map[string]int64{"0.1": rd.LeftLowMS, "0.5": rd.LeftMS, "0.9": rd.LeftHighMS} {
		if want := fmt.Sprintf("swarm_round_left_seconds{quantile=%q,round=%q} %v\n", q, rd.ID, float64(ms)/1000); ms <= 0 || !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	// Every counter that the board has, by the name that it has in --json.
	for i := range refused.NumField() {
		reason := refused.Type().Field(i).Tag.Get("json")
		if want := fmt.Sprintf("swarm_board_refused_total{reason=%q} %d\n", reason, 100+i); !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, "\x1b") || strings.Contains(body, "\u202e") {
		t.Error("a nickname's escapes are let through")
	}
}

// The package comment is the contract: all of it is there, and nothing else.
func TestTheNamesAreThoseThatAreWrittenDown(t *testing.T) {
	src, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, _, _ := strings.Cut(string(src), "\npackage metrics")
	var written, made []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(swarm_\w+)`).FindAllStringSubmatch(doc, -1) {
		written = append(written, m[1])
	}
	for name := range newCollector(Source{}).desc {
		made = append(made, "swarm_"+name)
	}
	slices.Sort(written)
	slices.Sort(made)
	if !slices.Equal(written, made) {
		t.Errorf("written down: %v\nmade:         %v", written, made)
	}
}

func TestABoardThatDoesNotAnswerIsAnError(t *testing.T) {
	w := scrape(t, Source{Latest: func(context.Context) (*view.Detail, error) { return nil, errors.New("the board is closed") }})
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "the board is closed") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
