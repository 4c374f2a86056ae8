// Package metrics tells Prometheus what the screens show, from the same
// snapshot. The names are a contract:
//
//	swarm_build_info{version}                      1
//	swarm_verdict{verdict}                         1 for the one that holds, else 0
//	swarm_peers{state}                             peers by state
//	swarm_peer_heard_seconds{peer,nick}            since a peer was last heard of
//	swarm_peer_builds{peer,nick}                   builds that it runs
//	swarm_peer_store_used_bytes{peer,nick}         kept by it
//	swarm_peer_store_free_bytes{peer,nick}         free for it
//	swarm_jobs{round,target,state}                 jobs of open rounds by state
//	swarm_round_left_seconds{round,quantile}       until it ends, by the forecast: one in ten ends before quantile 0.1, half
//	                                               before 0.5, one in ten after 0.9; none while nothing is known
//	swarm_round_builds_per_hour{round}             in the last ten minutes
//	swarm_round_busy_ratio                         share of the drones' slots that was busy
//	swarm_blobs{copies}                            blobs by copies on live peers
//	swarm_blob_copies_wanted                       R, as this swarm can have it
//	swarm_issues{kind,severity}                    root causes that want attention
//	swarm_issue_jobs_held_up                       jobs that wait because of them
//	swarm_release_version{target,channel}          what a channel shows
//	swarm_release_timestamp_seconds{target,channel}
//	swarm_board_records                            records on the board
//	swarm_board_refused_total{reason}              records of others that this peer did not take since it began:
//	                                               invalid, future, banned, quota, full, stale; and messages: malformed, flood
//	swarm_gateway_requests_total{result}           local, streamed, missing, unavailable, index, not_modified, refused
//	swarm_gateway_sent_bytes_total{kind}           package, index
//	go_*, process_*                                of this daemon
//
// Every peer tells of the whole swarm; scrape one, or all and take the maximum.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/build-swarm/swarm/build/view"
)

// Gateway is what a binhost answered, by result, and what it sent, by kind.
type Gateway struct {
	Requests map[string]uint64
	Bytes    map[string]uint64
}

// Source is what is measured. Its functions are called by each scrape.
type Source struct {
	Version string
	Latest  func(context.Context) (*view.Detail, error)
	Gateway func() Gateway
}

// scrapeWithin bounds how long a snapshot may take.
const scrapeWithin = 5 * time.Second

// Handler serves /metrics.
func Handler(s Source, log *slog.Logger) http.Handler {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), MaxRequestsInFlight: 4})
}

// collector turns a snapshot into metrics.
type collector struct {
	Source
	desc map[string]*prometheus.Desc
}

func newCollector(s Source) *collector {
	c := &collector{s, map[string]*prometheus.Desc{}}
	for _, m := range []struct {
		name, help string
		labels     []string
	}{
		{"build_info", "The version that runs.", []string{"version"}},
		{"verdict", "1 for the verdict that holds.", []string{"verdict"}},
		{"peers", "Peers by state.", []string{"state"}},
		{"peer_heard_seconds", "Seconds since a peer was last heard of.", []string{"peer", "nick"}},
		{"peer_builds", "Builds that a peer runs.", []string{"peer", "nick"}},
		{"peer_store_used_bytes", "Bytes of blobs that a peer keeps.", []string{"peer", "nick"}},
		{"peer_store_free_bytes", "Bytes free for blobs on a peer.", []string{"peer", "nick"}},
		{"jobs", "Jobs of open rounds by state.", []string{"round", "target", "state"}},
		{"round_left_seconds", "Seconds until an open round ends, by the forecast, as quantiles of what may come.", []string{"round", "quantile"}},
		{"round_builds_per_hour", "Builds that ended well, per hour, in the last ten minutes.", []string{"round"}},
		{"round_busy_ratio", "Share of the drones' slots that was busy since the round began.", nil},
		{"blobs", "Blobs by the number of live peers that hold them.", []string{"copies"}},
		{"blob_copies_wanted", "Copies wanted of each blob.", nil},
		{"issues", "Root causes that want attention.", []string{"kind", "severity"}},
		{"issue_jobs_held_up", "Jobs that wait because of an issue.", nil},
		{"release_version", "Version that a channel shows.", []string{"target", "channel"}},
		{"release_timestamp_seconds", "When a channel moved to what it shows.", []string{"target", "channel"}},
		{"board_records", "Records on the board.", nil},
		{"board_refused_total", "What peers sent and this one did not take, by reason.", []string{"reason"}},
		{"gateway_requests_total", "Answers of this peer's binhost by result.", []string{"result"}},
		{"gateway_sent_bytes_total", "Bytes that this peer's binhost sent by kind.", []string{"kind"}},
	} {
		c.desc[m.name] = prometheus.NewDesc("swarm_"+m.name, m.help, m.labels, nil)
	}
	return c
}

// Describe lists what Collect may send.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.desc {
		ch <- d
	}
}

// Collect takes a snapshot and sends what it says.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.desc[name], prometheus.GaugeValue, v, labels...)
	}
	gauge("build_info", 1, c.Version)
	if c.Gateway != nil {
		g := c.Gateway()
		for k, n := range g.Requests {
			ch <- prometheus.MustNewConstMetric(c.desc["gateway_requests_total"], prometheus.CounterValue, float64(n), k)
		}
		for k, n := range g.Bytes {
			ch <- prometheus.MustNewConstMetric(c.desc["gateway_sent_bytes_total"], prometheus.CounterValue, float64(n), k)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
	defer cancel()
	d, err := c.Latest(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.desc["verdict"], err)
		return
	}
	c.snapshot(d, gauge)
	for reason, n := range map[string]uint64{
		"malformed": d.Refused.Malformed, "invalid": d.Refused.Invalid, "future": d.Refused.Future, "banned": d.Refused.Banned,
		"quota": d.Refused.Quota, "full": d.Refused.Full, "stale": d.Refused.Stale, "flood": d.Refused.Flood,
	} {
		ch <- prometheus.MustNewConstMetric(c.desc["board_refused_total"], prometheus.CounterValue, float64(n), reason)
	}
}

func (c *collector) snapshot(d *view.Detail, gauge func(name string, v float64, labels ...string)) {
	for _, v := range []view.Verdict{view.Healthy, view.Degraded, view.Blocked} {
		on := 0.0
		if v == d.Verdict {
			on = 1
		}
		gauge("verdict", on, string(v))
	}
	states := map[string]int{}
	for _, p := range d.Peers {
		states[p.State]++
		gauge("peer_heard_seconds", float64(p.AgeMS)/1000, p.ID, p.Nick)
		gauge("peer_builds", float64(len(p.Doing)), p.ID, p.Nick)
		gauge("peer_store_used_bytes", float64(p.UsedB), p.ID, p.Nick)
		gauge("peer_store_free_bytes", float64(p.FreeB), p.ID, p.Nick)
	}
	for s, n := range states {
		gauge("peers", float64(n), s)
	}
	for _, rd := range d.Rounds {
		if rd.State != "open" {
			continue
		}
		for s, n := range map[string]int{"done": rd.Done, "building": rd.Building, "ready": rd.Ready, "waiting": rd.Waiting, "blocked": rd.Blocked, "unfit": rd.Unfit} {
			gauge("jobs", float64(n), rd.ID, rd.Target, s)
		}
		if rd.LeftHighMS > 0 {
			gauge("round_left_seconds", float64(rd.LeftLowMS)/1000, rd.ID, "0.1")
			gauge("round_left_seconds", float64(rd.LeftMS)/1000, rd.ID, "0.5")
			gauge("round_left_seconds", float64(rd.LeftHighMS)/1000, rd.ID, "0.9")
		}
		gauge("round_builds_per_hour", rd.Impulse, rd.ID)
	}
	gauge("round_busy_ratio", float64(d.Timeline.BusyPermille)/1000)
	for n, blobs := range d.Blobs.Copies {
		gauge("blobs", float64(blobs), strconv.Itoa(n))
	}
	gauge("blob_copies_wanted", float64(d.Blobs.Wanted))
	type cause struct{ kind, severity string }
	issues, held := map[cause]int{}, 0
	for _, i := range d.Issues {
		issues[cause{string(i.Kind), string(i.Severity)}]++
		held += i.HoldsUp
	}
	for k, n := range issues {
		gauge("issues", float64(n), k.kind, k.severity)
	}
	gauge("issue_jobs_held_up", float64(held))
	for _, r := range d.Releases {
		gauge("release_version", float64(r.Version), r.Target, r.Channel)
		gauge("release_timestamp_seconds", float64(r.Timestamp), r.Target, r.Channel)
	}
	gauge("board_records", float64(d.Records))
}
