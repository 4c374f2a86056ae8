package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUevent is more than the kernel puts into one message, in bytes.
const maxUevent = 8 << 10

// plugs tells when the kernel says that this machine was plugged in or out
// (kobject uevents, netlink(7)): a quiet machine is looked at once a minute only.
type plugs struct {
	f *os.File // nil where the kernel tells nothing
	c chan struct{}
}

// newPlugs begins to listen; an emulated machine has a pipe instead.
func newPlugs(f files) (*plugs, error) {
	p := &plugs{c: make(chan struct{}, 1)}
	var err error
	if f.root != "/" {
		p.f, err = os.OpenFile(filepath.Join(f.root, "uevents"), os.O_RDWR, 0)
	} else {
		p.f, err = uevents()
	}
	if err != nil {
		return p, fmt.Errorf("listen to the kernel's events: %w", err)
	}
	return p, nil
}

// uevents opens the kernel's own multicast group, which needs no privilege.
func uevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd) // the first error counts
		return nil, err
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// heard reports whether there is somebody to tell.
func (p *plugs) heard() bool { return p.f != nil }

// run reads messages until ctx ends.
func (p *plugs) run(ctx context.Context) {
	if p.f == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = p.f.Close() }) // which ends the read
	defer func() {
		if stop() {
			_ = p.f.Close() // it was read only
		}
	}()
	buf := make([]byte, maxUevent)
	for {
		n, err := p.f.Read(buf)
		if err != nil || ctx.Err() != nil {
			return
		}
		if !ofPower(string(buf[:n])) {
			continue
		}
		select {
		case p.c <- struct{}{}:
		default:
		}
	}
}

// ofPower reports whether a message is about where the power comes from. What a
// battery says while it only gets emptier is no news. A message is words that end
// in zero bytes: ACTION@PATH, then NAME=VALUE.
func ofPower(msg string) bool {
	power, emptier := false, false
	for word := range strings.SplitSeq(msg, "\x00") {
		power = power || word == "SUBSYSTEM=power_supply"
		emptier = emptier || word == "POWER_SUPPLY_STATUS=Discharging"
	}
	return power && !emptier
}
