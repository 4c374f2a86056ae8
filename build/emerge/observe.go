package emerge

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build/release"
)

// Portage tells what it is at since 3.0.82: with FEATURES=observability emerge
// listens on a socket, and whoever connects gets a snapshot of its tasks as a line
// of JSON, made at that moment, then one whenever a task enters a phase (once a
// second at the most) and every two seconds. The first line is all that is read,
// once a second: it is the newest, and an emerge that ends while somebody hears it
// writes an error into the log of the build. Short phases fall through, so the log
// is heard too.
//
// The directory of the socket is the build's: a package that is root for a moment
// can put there what it likes. Nothing is sent, links are not followed, and what is
// read only ever names a phase.
const (
	observability = "observability"
	observeSince  = "3.0.82"
	inStatus      = "/run/portage" // const.PORTAGE_RUN_PATH, below EPREFIX
	statusPause   = time.Second
	statusAnswer  = 2 * time.Second // a busy emerge takes that long
	maxSnapshot   = 256 << 10
)

var (
	statusSocket  = regexp.MustCompile(`^emerge-[0-9]{1,10}\.sock$`)
	versionNumber = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*`)
)

// observes reports whether this Portage has the stream.
func (p *Portage) observes() bool {
	v := versionNumber.FindString(p.Version)
	return v != "" && release.CompareVersions(v, observeSince) >= 0
}

// observing adds the feature to an environment.
func observing(env []string) []string {
	out := slices.Clone(env)
	for i, kv := range out {
		if strings.HasPrefix(kv, "FEATURES=") {
			out[i] = kv + " " + observability
		}
	}
	return out
}

// course is the phase that a build is in, by the log and by the stream: the later
// word counts. The log, in which a package may print what it likes, is not heard to
// go back once the stream has said something.
type course struct {
	tell func(string)

	mu      sync.Mutex
	now     string
	since   time.Time
	streams bool
}

// ebuildPhases are the phases of a build, in their order (PMS 9).
var ebuildPhases = []string{"setup", "unpack", "prepare", "configure", "compile", "test", "install", "package"}

func (c *course) logged(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams && slices.Index(ebuildPhases, phase) <= slices.Index(ebuildPhases, c.now) {
		return
	}
	c.enter(phase)
}

func (c *course) streamed(phase string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = true
	if phase != c.now && at.After(c.since) {
		c.enter(phase)
	}
}

func (c *course) enter(phase string) {
	c.now, c.since = phase, time.Now()
	c.tell(phase)
}

// observe has the phases of a package's build told by the log and, where Portage
// has the stream, by the sockets in dir too, until stop is called.
func (t *attempt) observe(ctx context.Context, p *Portage, dir string) (stop func()) {
	if t.req.Phase == nil {
		return func() {}
	}
	c := &course{tell: t.req.Phase}
	t.out.phase = c.logged
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	if p.observes() && dir != "" {
		done.Go(func() { follow(ctx, dir, t.req.Job.CPV.String(), c.streamed) })
	}
	return func() {
		cancel()
		done.Wait()
		t.out.phase = t.req.Phase
	}
}

// follow asks emerge until ctx ends.
func follow(ctx context.Context, dir, cpv string, tell func(phase string, at time.Time)) {
	tick := time.NewTicker(statusPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		conn := dialStatus(ctx, dir)
		if conn == nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // nothing was written
		if phase, at := phaseIn(firstLine(conn), cpv); phase != "" {
			tell(phase, at)
		}
		stop()
		_ = conn.Close() // the same
	}
}

// firstLine is the first line that somebody says, or nothing.
func firstLine(conn net.Conn) []byte {
	if err := conn.SetReadDeadline(time.Now().Add(statusAnswer)); err != nil {
		return nil
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxSnapshot)).ReadBytes('\n')
	if err != nil {
		return nil
	}
	return line
}

// dialStatus connects to the socket of an emerge; nil while there is none.
func dialStatus(ctx context.Context, dir string) net.Conn {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(100) // there is one, or whose directory it is has himself to blame
	slices.Sort(names)
	for _, name := range names {
		if !statusSocket.MatchString(name) {
			continue
		}
		if conn := dialSocket(ctx, filepath.Join(dir, name)); conn != nil {
			return conn
		}
	}
	return nil
}

// dialSocket connects to a socket that is one, and no link to another. It is named
// by a descriptor, since addresses of sockets are short.
func dialSocket(ctx context.Context, path string) net.Conn {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		return nil // it is gone, or not ready
	}
	return conn
}

// snapshot is what is read of a line of the stream.
type snapshot struct {
	Type   string  `json:"type"`
	Schema int     `json:"schema"`
	Time   float64 `json:"timestamp"` // seconds since 1970
	Tasks  []struct {
		CPV   string `json:"cpv"`
		Kind  string `json:"kind"` // build, merge
		Phase string `json:"phase"`
	} `json:"tasks"`
}

// phaseIn is the phase of a package's build in a line of the stream; "" where the
// line says nothing of it.
func phaseIn(line []byte, cpv string) (phase string, at time.Time) {
	var s snapshot
	// Other kinds may come, and other schemas: they are passed over.
	if err := json.Unmarshal(line, &s); err != nil || s.Type != "snapshot" || s.Schema != 1 || s.Time < 0 || s.Time > 1<<40 {
		return "", time.Time{}
	}
	for _, t := range s.Tasks {
		if t.CPV != cpv || t.Kind != "build" {
			continue
		}
		if t.Phase == "pretend" {
			t.Phase = "setup"
		}
		if slices.Contains(ebuildPhases, t.Phase) {
			return t.Phase, time.UnixMilli(int64(s.Time * 1000))
		}
	}
	return "", time.Time{}
}
