// Package machine reads what this machine is and how busy it is: the figures
// that a Beat carries.
package machine

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Static is what does not change while the process runs.
type Static struct {
	Cores    int
	Arch     string
	Features []string // CPU flags as the kernel names them, sorted
	Speed    int64    // core-milliseconds of the reference machine per second, all cores
}

// Read looks at the machine; it takes about 60 ms of one core to measure it.
func Read() Static {
	s := Static{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Features: cpuFlags("/proc/cpuinfo")}
	s.Speed = measure(40*time.Millisecond) * int64(s.Cores)
	return s
}

// reference is how many rounds of the measured work the reference core does in
// a millisecond: one core of it has speed 1000.
const reference = 300

// measure runs a fixed mix of hashing and branching for a while and returns
// the speed of one core. It is coarse on purpose: it tells a laptop
// from a server, and learned build times tell the rest.
func measure(d time.Duration) int64 {
	var buf [4096]byte
	sum := sha256.Sum256(buf[:])
	table := map[byte]int{}
	rounds := int64(0)
	start := time.Now()
	for time.Since(start) < d {
		for range 8 {
			sum = sha256.Sum256(append(buf[:4000], sum[:]...))
			for _, b := range sum {
				table[b]++
			}
			rounds++
		}
	}
	us := max(1, time.Since(start).Microseconds())
	return max(100, rounds*1000*1000/us/reference)
}

func cpuFlags(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		name, value, ok := strings.Cut(sc.Text(), ":")
		if n := strings.TrimSpace(name); ok && (n == "flags" || n == "Features") {
			out := strings.Fields(value)
			slices.Sort(out)
			return out
		}
	}
	return nil
}

// FreeMemory is MemAvailable in MiB, 0 where the kernel does not say.
func FreeMemory() int64 { return memAvailable("/proc/meminfo") }

func memAvailable(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if n, err := strconv.ParseInt(kib, 10, 64); err == nil {
				return n / 1024
			}
		}
	}
	return 0
}

// FreeDisk is what an ordinary user may still write below dir, in bytes.
func FreeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // Bsize has 32 bits on some machines
}

// Hostname is the machine's short name, for a nickname.
func Hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "peer"
	}
	name, _, _ := strings.Cut(h, ".")
	return name
}
