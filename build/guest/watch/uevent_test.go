package watch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/build/guest"
)

// What kernels sent (udevadm monitor --kernel --property).
const (
	pluggedIn = "change@/devices/platform/ACPI0003:00/power_supply/AC\x00ACTION=change\x00SUBSYSTEM=power_supply\x00POWER_SUPPLY_NAME=AC\x00POWER_SUPPLY_TYPE=Mains\x00POWER_SUPPLY_ONLINE=1\x00SEQNUM=4242\x00"
	emptier   = "change@/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0\x00ACTION=change\x00SUBSYSTEM=power_supply\x00POWER_SUPPLY_NAME=BAT0\x00POWER_SUPPLY_TYPE=Battery\x00POWER_SUPPLY_STATUS=Discharging\x00"
	charging  = "change@/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0\x00ACTION=change\x00SUBSYSTEM=power_supply\x00POWER_SUPPLY_TYPE=Battery\x00POWER_SUPPLY_STATUS=Charging\x00"
	disk      = "add@/devices/virtual/block/loop0\x00ACTION=add\x00SUBSYSTEM=block\x00"
)

func TestOnlyWhereThePowerComesFromIsNews(t *testing.T) {
	for msg, want := range map[string]bool{pluggedIn: true, charging: true, emptier: false, disk: false, "": false, "\x00\x00": false, "libudev\x00\xfe\xed\xca\xfe": false} {
		if got := ofPower(msg); got != want {
			t.Errorf("%q: %v", strings.ReplaceAll(msg, "\x00", " "), got)
		}
	}
}

// The boot clock of this test runs a thousand times as fast while nobody looks, so
// that minutes pass in no time; the timers of the watch do not.
func TestAQuietMachineComesBackInTheStepThatSeesThePlug(t *testing.T) {
	m, f := newLaptop(t), newFake()
	path := filepath.Join(m.root, "uevents")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	m.write("sys/class/power_supply/AC/online", "0")
	var boot atomic.Int64
	boot.Store(1000)
	quiet := make(chan bool, 64)
	w := m.start(f, func(c *Config) {
		c.Boot = boot.Load
		c.Quiet = func(_ context.Context, on bool) { quiet <- on }
	})
	want := func(on bool) {
		t.Helper()
		late := time.After(30 * time.Second)
		for got := !on; got != on; { // it is said at every step
			select {
			case got = <-quiet:
			case <-late:
				t.Fatalf("quiet is not %v: %+v", on, w.Report(context.Background()))
			}
		}
	}
	boot.Add(guest.QuietAfter)
	m.tell(t, kernel, charging) // a step
	want(true)
	w.Asked()
	want(false)
	boot.Add(guest.AwakeFor)
	m.tell(t, kernel, charging)
	want(true)
	m.write("sys/class/power_supply/AC/online", "1")
	plugged := time.Now()
	m.tell(t, kernel, pluggedIn)
	want(false)
	if d := time.Since(plugged); d >= idleEvery {
		t.Errorf("it came back after %v, by the clock", d)
	}
	// It heeds its keyboard again.
	boot.Add(idleAfter.Milliseconds())
	f.until(t, "idle", f.is(guest.Full, ""))
	m.press()
	f.until(t, "somebody", f.is(guest.Shrunk, "somebody uses it"))
}

func (m *machine) tell(t *testing.T, kernel *os.File, msg string) {
	t.Helper()
	if _, err := kernel.WriteString(msg); err != nil {
		t.Fatal(err)
	}
}

// The kernel's own events: root may cause one without harm.
func TestTheKernelTellsOfItsDevices(t *testing.T) {
	f, err := uevents()
	if err != nil {
		t.Skip("the kernel tells nothing here: ", err)
	}
	defer f.Close()
	if err := os.WriteFile("/sys/class/net/lo/uevent", []byte("change"), 0o200); err != nil {
		t.Skip("no event can be caused here: ", err)
	}
	if err := f.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxUevent)
	for {
		n, err := f.Read(buf)
		if err != nil {
			t.Skip("events do not reach this network namespace: ", err)
		}
		if msg := string(buf[:n]); strings.Contains(msg, "SUBSYSTEM=net\x00") && strings.Contains(msg, "INTERFACE=lo\x00") {
			return
		}
	}
}
