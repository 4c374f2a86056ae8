package watch

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/build-swarm/swarm/build/guest"
)

// files are a machine's own, below a root that tests choose.
type files struct{ root string }

func (f files) text(path string) string {
	b, err := os.ReadFile(filepath.Join(f.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (f files) number(path string) (int64, bool) {
	n, err := strconv.ParseInt(f.text(path), 10, 64)
	return n, err == nil
}

func (f files) glob(pattern string) []string {
	list, err := filepath.Glob(filepath.Join(f.root, pattern))
	if err != nil {
		return nil // the patterns are constants
	}
	for i := range list {
		list[i] = strings.TrimPrefix(list[i], filepath.Clean(f.root))
	}
	return list
}

// power reads batteries and mains. A mouse has a battery, too, and is no laptop.
func (f files) power(r *guest.Reading) {
	r.ChargePercent = guest.Unknown
	mains, online, discharging := false, false, false
	for _, dir := range f.glob("sys/class/power_supply/*") {
		switch f.text(filepath.Join(dir, "type")) {
		case "Battery":
			if f.text(filepath.Join(dir, "scope")) == "Device" || f.text(filepath.Join(dir, "present")) == "0" {
				continue
			}
			r.HasBattery = true
			discharging = discharging || f.text(filepath.Join(dir, "status")) == "Discharging"
			if n, ok := f.number(filepath.Join(dir, "capacity")); ok && (r.ChargePercent < 0 || int(n) < r.ChargePercent) {
				r.ChargePercent = int(n)
			}
		case "Mains", "USB":
			mains = true
			online = online || f.text(filepath.Join(dir, "online")) == "1"
		}
	}
	r.OnBattery = r.HasBattery && (mains && !online || !mains && discharging)
}

// lid looks whether there is one, and what it says itself.
func (f files) lid(r *guest.Reading) {
	for _, path := range f.glob("proc/acpi/button/lid/*/state") {
		r.HasLid = true
		r.LidClosed = r.LidClosed || strings.HasSuffix(f.text(path), "closed")
	}
	if !r.HasLid {
		r.HasLid = strings.Contains(f.text("proc/bus/input/devices"), `Name="Lid Switch"`)
	}
}

// defaultLimit is where a zone that names no limit of its own is too hot.
const defaultLimit = 95_000

// heat finds the zone that is nearest to its limit.
func (f files) heat(r *guest.Reading) {
	for _, dir := range f.glob("sys/class/thermal/thermal_zone*") {
		temp, ok := f.number(filepath.Join(dir, "temp"))
		if !ok || temp <= 0 || temp > 200_000 {
			continue
		}
		limit := int64(defaultLimit)
		for _, kind := range f.glob(filepath.Join(dir, "trip_point_*_type")) {
			name := f.text(kind)
			at, ok := f.number(strings.TrimSuffix(kind, "_type") + "_temp")
			if ok && at > 40_000 && at < 150_000 && (name == "critical" || name == "hot") {
				limit = min(limit, at)
			}
		}
		if r.LimitHeat == 0 || limit-temp < r.LimitHeat-r.HeatMilli {
			r.HeatMilli, r.LimitHeat, r.Zone = temp, limit, f.text(filepath.Join(dir, "type"))
		}
	}
}

// memory reads what is free, and whether work stalls for want of it.
func (f files) memory(r *guest.Reading) {
	for line := range strings.Lines(f.text("proc/meminfo")) {
		name, rest, _ := strings.Cut(line, ":")
		kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.ParseInt(kib, 10, 64)
		switch {
		case err != nil:
		case name == "MemTotal":
			r.MemMiB = n >> 10
		case name == "MemAvailable":
			r.FreeMemMiB = n >> 10
		}
	}
	// full avg10=0.00 avg60=0.00 avg300=0.00 total=0
	for line := range strings.Lines(f.text("proc/pressure/memory")) {
		if rest, ok := strings.CutPrefix(line, "full avg10="); ok {
			percent, _, _ := strings.Cut(rest, " ")
			if p, err := strconv.ParseFloat(percent, 64); err == nil {
				r.StallPerMille = int64(p * 10)
			}
		}
	}
}

// busy reads how long the processors worked since boot, in clock ticks, and how
// many there are.
func (f files) busy() (ticks int64, cores int) {
	for line := range strings.Lines(f.text("proc/stat")) {
		w := strings.Fields(line)
		switch {
		case len(w) < 8 || !strings.HasPrefix(w[0], "cpu"):
		case w[0] == "cpu":
			for _, i := range []int{1, 2, 3, 6, 7} { // user nice system irq softirq
				n, _ := strconv.ParseInt(w[i], 10, 64) // the kernel writes numbers
				ticks += n
			}
		default:
			cores++
		}
	}
	return ticks, cores
}
