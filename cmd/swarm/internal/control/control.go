// Package control is the daemon's API over its unix socket: HTTP with JSON
// bodies, for the CLI of the same machine. Who may open the socket may control
// the peer, so the file's permission is the whole access rule; nothing here is
// ever served over TCP.
//
// Types are what travels; Server answers from a Daemon; Client asks. A failure
// travels as Error: one line, an optional hint that names a command or a file,
// and a kind that becomes the exit code.
package control

import (
	"context"
	"io"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan/replay"
	"github.com/build-swarm/swarm/build/view"
)

// Kind classifies an error for the exit code.
type Kind string

const (
	KindInternal    Kind = "error"
	KindUsage       Kind = "usage"
	KindNotFound    Kind = "not_found"
	KindUnreachable Kind = "daemon_unreachable"
)

// Error is a failure with what to do about it.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

// Error is the message alone.
func (e *Error) Error() string { return e.Message }

// BuildRequest asks for packages. Builder "" is the daemon's own default.
type BuildRequest struct {
	Atoms   []string      `json:"atoms"`
	Builder build.Builder `json:"builder,omitempty"`
	Command string        `json:"command"`
}

// BuildReply names the round that was made.
type BuildReply struct {
	Schema  int          `json:"schema"`
	Round   string       `json:"round"`
	Jobs    int          `json:"jobs"`
	Wanted  []string     `json:"wanted"`
	Dropped []build.Note `json:"dropped"`
	Missing []build.Note `json:"missing"`
}

// Peer is a peer with how it is reached. One that is configured and was never
// reached has the state "unreached" and little else, one that is connected and
// not on the board "silent".
type Peer struct {
	view.Peer
	Connected bool     `json:"connected"`
	Via       string   `json:"via"` // LAN, VPN, direct, relay; "" when not connected
	RTTMicros int64    `json:"rtt_us"`
	Rate      int64    `json:"rate_bytes_s"` // of packages from there, lately; 0 = not measured
	Addrs     []string `json:"addrs"`
	Problem   string   `json:"problem"` // why it cannot be reached; "" when it can
}

// Info is what a peer says of itself.
type Info struct {
	ID      string   `json:"id"`
	Nick    string   `json:"nick"`
	Version string   `json:"version"`
	Addrs   []string `json:"addrs"`
	Gateway []string `json:"gateway"` // host:port
	State   string   `json:"state_dir"`
	PID     int      `json:"pid"`
}

// Daemon is what a Server answers from.
type Daemon interface {
	Storage
	Exporter
	Guest
	Bases
	Info(ctx context.Context) (Info, error)
	Status(ctx context.Context) (view.Snapshot, error)
	Jobs(ctx context.Context, round string) ([]view.Job, error)
	Peers(ctx context.Context) ([]Peer, error)
	Invite(ctx context.Context) (string, error)
	Build(ctx context.Context, req BuildRequest) (BuildReply, error)
	// Log copies a job's log to w; with follow it waits for more until the
	// build has ended.
	Log(ctx context.Context, w io.Writer, job string, follow bool) error
	// Why explains a job, WhyDrone a drone; each named as people name it.
	Why(ctx context.Context, job string) (view.Why, error)
	WhyDrone(ctx context.Context, peer string) (view.DroneWhy, error)
	Order(ctx context.Context, o Order) (OrderReply, error)
	// Events lists what happened; see Client.Events.
	Events(ctx context.Context, since int64, limit int) (Events, error)
	// Moment is what the schedule and the forecast are computed from.
	Moment(ctx context.Context) (replay.Moment, error)
	// Rekey replaces the swarm key on disk; the running daemon keeps the old one.
	Rekey(ctx context.Context) (Rekeyed, error)
	// Web hands out a token for the page.
	Web(ctx context.Context) (Web, error)
	// Board returns every record's encoded bytes, sorted by key.
	Board(ctx context.Context) ([][]byte, error)
	Releases
	Targets
	Trees
	Doctor
}
