package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// group may use the socket beside the daemon's own user, where it exists.
const group = "swarm"

// maxPath is what fits into a unix socket's address, in bytes.
const maxPath = 107

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// Server serves the API on a unix socket.
type Server struct {
	path string
	ln   net.Listener
	http *http.Server
}

// CheckPath says why a control socket cannot be opened at a path: another
// daemon answers there, or something lies there that is no socket, and stays.
func CheckPath(path string) error {
	if len(path) > maxPath {
		return &Error{Kind: KindUsage, Message: fmt.Sprintf("the control socket's path is %d bytes long, the system takes %d: %s", len(path), maxPath, path),
			Hint: "choose a shorter one with --socket"}
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return &Error{Kind: KindUsage, Message: path + " is there and is no socket", Hint: "choose another path with --socket"}
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(&Error{Kind: KindInternal, Message: "another swarm daemon answers on " + path,
			Hint: "stop it, or give this one its own --socket and --state"}, conn.Close())
	}
	return nil
}

// NewServer opens the socket at once, so that a path that cannot be had is an
// error before anything else starts; see CheckPath. A socket file that nobody
// answers on is a remainder of a crash and is replaced. Nobody but this user
// can connect before the permissions are set.
func NewServer(path string, d Daemon, log *slog.Logger) (*Server, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the control socket: %w", err)
	}
	// The file is born with the umask's permissions. Other files made in this
	// moment, if any, come out more private than they had to be.
	mask := unix.Umask(0o177)
	ln, err := net.Listen("unix", path)
	unix.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := protect(path); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s := &Server{path: path, ln: ln}
	s.http = &http.Server{Handler: handler(d), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s, nil
}

// protect lets the daemon's user in, and the group swarm where there is one.
func protect(path string) error {
	mode := os.FileMode(0o600)
	if g, err := user.LookupGroup(group); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil && (os.Geteuid() == 0 || gid == os.Getegid()) {
			if err := os.Chown(path, -1, gid); err != nil {
				return fmt.Errorf("give the control socket to group %s: %w", group, err)
			}
			mode = 0o660
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("protect the control socket: %w", err)
	}
	return nil
}

// Run serves until ctx ends; requests that wait are cut.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		// The error would be that of closing what is closed.
		_ = s.http.Close()
	})
	defer stop()
	err := s.http.Serve(s.ln)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the control socket: %w", err)
}

func handler(d Daemon) http.Handler {
	mux := http.NewServeMux()
	handleGuest(mux, d)
	storageRoutes(mux, d)
	exportRoutes(mux, d)
	targetRoutes(mux, d)
	baseRoutes(mux, d)
	treeRoutes(mux, d)
	doctorRoutes(mux, d)
	get(mux, "GET /v1/info", func(r *http.Request) (any, error) { return d.Info(r.Context()) })
	get(mux, "GET /v1/status", func(r *http.Request) (any, error) { return d.Status(r.Context()) })
	get(mux, "GET /v1/jobs", func(r *http.Request) (any, error) { return d.Jobs(r.Context(), r.URL.Query().Get("round")) })
	get(mux, "GET /v1/peers", func(r *http.Request) (any, error) { return d.Peers(r.Context()) })
	get(mux, "GET /v1/board", func(r *http.Request) (any, error) { return d.Board(r.Context()) })
	get(mux, "GET /v1/invite", func(r *http.Request) (any, error) { return d.Invite(r.Context()) })
	get(mux, "POST /v1/web", func(r *http.Request) (any, error) { return d.Web(r.Context()) })
	get(mux, "GET /v1/events", serveEvents(d))
	get(mux, "GET /v1/moment", func(r *http.Request) (any, error) { return d.Moment(r.Context()) })
	get(mux, "GET /v1/why", func(r *http.Request) (any, error) {
		if drone := r.URL.Query().Get("drone"); drone != "" {
			return d.WhyDrone(r.Context(), drone)
		}
		return d.Why(r.Context(), r.URL.Query().Get("job"))
	})
	get(mux, "POST /v1/order", func(r *http.Request) (any, error) {
		var o Order
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&o); err != nil {
			return nil, &Error{Kind: KindUsage, Message: "the order is not JSON: " + err.Error()}
		}
		return d.Order(r.Context(), o)
	})
	get(mux, "POST /v1/rekey", func(r *http.Request) (any, error) { return d.Rekey(r.Context()) })
	get(mux, "POST /v1/build", func(r *http.Request) (any, error) {
		var req BuildRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&req); err != nil {
			return nil, &Error{Kind: KindUsage, Message: "the request is not JSON: " + err.Error()}
		}
		return d.Build(r.Context(), req)
	})
	releaseRoutes(mux, d)
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fw := &flushWriter{w: w}
		if err := d.Log(r.Context(), fw, r.URL.Query().Get("job"), r.URL.Query().Has("follow")); err != nil {
			if !fw.wrote {
				fail(w, err)
				return
			}
			panic(http.ErrAbortHandler) // cut the connection: half a log is no log
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.Asked()
		mux.ServeHTTP(w, r)
	})
}

// flushWriter sends what is written at once: somebody watches.
type flushWriter struct {
	w     http.ResponseWriter
	wrote bool
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}

func get(mux *http.ServeMux, pattern string, f func(*http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == withProgress {
			stream(w, r, f)
			return
		}
		v, err := f(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The client is gone when this fails; there is nobody to tell.
		_ = json.NewEncoder(w).Encode(v)
	})
}

func fail(w http.ResponseWriter, err error) {
	e := asError(err)
	code := http.StatusInternalServerError
	switch e.Kind {
	case KindUsage:
		code = http.StatusBadRequest
	case KindNotFound:
		code = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(e) // as above
}
