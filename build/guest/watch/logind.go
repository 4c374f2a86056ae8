package watch

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/build-swarm/swarm/build/guest"
)

const (
	login     = "org.freedesktop.login1"
	loginPath = dbus.ObjectPath("/org/freedesktop/login1")
	manager   = login + ".Manager"
	network   = "org.freedesktop.NetworkManager"
	netPath   = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	props     = "org.freedesktop.DBus.Properties"
	// busTimeout bounds one question; logind answers in a millisecond.
	busTimeout = 2 * time.Second
)

// bus is the system bus with what is asked there. Its zero value is none.
type bus struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
	lock    *os.File // delays a suspend until it is closed; nil = none
	asleep  bool
}

// dialBus connects, and asks to be told of what changes.
func dialBus(address string) (*bus, error) {
	var conn *dbus.Conn
	var err error
	if address == "" {
		conn, err = dbus.ConnectSystemBus()
	} else {
		conn, err = dbus.Connect(address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	b := &bus{conn: conn, signals: make(chan *dbus.Signal, 64)}
	conn.Signal(b.signals)
	for _, m := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(login), dbus.WithMatchInterface(props), dbus.WithMatchMember("PropertiesChanged")},
		{dbus.WithMatchSender(login), dbus.WithMatchInterface(manager)},
		{dbus.WithMatchSender(network), dbus.WithMatchInterface(props), dbus.WithMatchObjectPath(netPath)},
	} {
		if err := conn.AddMatchSignal(m...); err != nil {
			return nil, fmt.Errorf("listen on the system bus: %w", closing(conn, err))
		}
	}
	b.delaySleep()
	return b, nil
}

func closing(conn *dbus.Conn, err error) error {
	_ = conn.Close() // the first error counts
	return err
}

// delaySleep has logind wait for this process before it suspends the machine.
func (b *bus) delaySleep() {
	if b.lock != nil {
		return
	}
	var fd dbus.UnixFD
	err := b.call(login, loginPath, manager+".Inhibit", "sleep", "Build Swarm", "builds are frozen first", "delay").Store(&fd)
	if err == nil {
		b.lock = os.NewFile(uintptr(fd), "sleep delay")
	}
}

// allowSleep lets a suspend go on that waits for this process.
func (b *bus) allowSleep() {
	if b.lock != nil {
		_ = b.lock.Close() // logind looks at the other end
		b.lock = nil
	}
}

func (b *bus) close() {
	b.allowSleep()
	_ = b.conn.Close() // the process ends, or dials anew
}

func (b *bus) call(dest string, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	return b.conn.Object(dest, path).CallWithContext(ctx, method, 0, args...)
}

// all reads the properties of an object.
func (b *bus) all(dest string, path dbus.ObjectPath, iface string) (map[string]dbus.Variant, error) {
	var m map[string]dbus.Variant
	err := b.call(dest, path, props+".GetAll", iface).Store(&m)
	return m, err
}

func value[T any](m map[string]dbus.Variant, name string) (v T) {
	v, _ = m[name].Value().(T) // what is not there, or of another type, is zero
	return v
}

// session is one line of ListSessions.
type session struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}

// read asks logind. Without its answer nobody can tell whether somebody is there.
func (b *bus) read(r *guest.Reading, now time.Time) error {
	m, err := b.all(login, loginPath, manager)
	if err != nil {
		return fmt.Errorf("ask logind: %w", err)
	}
	if r.HasLid {
		r.LidClosed = value[bool](m, "LidClosed") && !value[bool](m, "Docked")
	}
	r.Sleeping = b.asleep || value[bool](m, "PreparingForSleep")
	var list []session
	if err := b.call(login, loginPath, manager+".ListSessions").Store(&list); err != nil {
		return fmt.Errorf("ask logind for sessions: %w", err)
	}
	r.Nobody, r.IdleMS = true, 1<<40
	for _, s := range list {
		p, err := b.all(login, s.Path, login+".Session")
		class := value[string](p, "Class")
		if err != nil || s.Seat == "" || class != "user" || value[string](p, "State") == "closing" {
			continue // gone, remote, or the login screen
		}
		r.Nobody = false
		idle := int64(0)
		if value[bool](p, "IdleHint") {
			idle = max(0, now.UnixMilli()-int64(value[uint64](p, "IdleSinceHint")/1000))
		}
		r.IdleMS = min(r.IdleMS, idle)
	}
	r.Inhibitor, err = b.inhibitor()
	return err
}

// inhibitor names who asks that the machine does not idle.
func (b *bus) inhibitor() (string, error) {
	var list []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := b.call(login, loginPath, manager+".ListInhibitors").Store(&list); err != nil {
		return "", fmt.Errorf("ask logind who inhibits: %w", err)
	}
	for _, i := range list {
		for what := range strings.SplitSeq(i.What, ":") {
			if what == "idle" && i.Mode == "block" {
				return i.Who + " (" + i.Why + ")", nil
			}
		}
	}
	return "", nil
}

// metered asks NetworkManager; where there is none, nothing is metered.
func (b *bus) metered(r *guest.Reading) {
	m, err := b.all(network, netPath, network)
	if err != nil {
		return
	}
	const yes, guessYes = 1, 3
	v := value[uint32](m, "Metered")
	r.Metered = v == yes || v == guessYes
}

// heard takes in a signal; it reports whether it is about going to sleep or
// waking, which is acted on at once.
func (b *bus) heard(s *dbus.Signal) (sleep bool) {
	if s.Name != manager+".PrepareForSleep" || len(s.Body) != 1 {
		return false
	}
	b.asleep, _ = s.Body[0].(bool)
	return true
}
