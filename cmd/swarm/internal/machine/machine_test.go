package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestThisMachineHasCoresSpeedAndDisk(t *testing.T) {
	s := Read()
	if s.Cores < 1 || s.Speed < int64(s.Cores)*100 || s.Arch == "" {
		t.Errorf("read %+v", s)
	}
	t.Logf("%d cores, speed %d", s.Cores, s.Speed)
	if free, err := FreeDisk(t.TempDir()); err != nil || free <= 0 {
		t.Errorf("free disk %d, %v", free, err)
	}
	if _, err := FreeDisk("/does/not/exist"); err == nil {
		t.Error("a directory that is not there has free space")
	}
	if Hostname() == "" {
		t.Error("no name")
	}
}

func TestKernelFilesAreReadWithoutTrustInThem(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]int64{
		"MemTotal:       32000000 kB\nMemAvailable:   20480000 kB\n": 20000,
		"MemTotal: 1 kB\n":   0, // a kernel before 3.14
		"MemAvailable:\n":    0,
		"MemAvailable: x kB": 0,
		"":                   0,
	} {
		if got := memAvailable(file(text)); got != want {
			t.Errorf("%q: %d MiB, want %d", text, got, want)
		}
	}
	x86 := "processor\t: 0\nmodel name\t: x\nflags\t\t: sse2 avx fpu\n\nprocessor\t: 1\nflags\t\t: other\n"
	if got := cpuFlags(file(x86)); !slices.Equal(got, []string{"avx", "fpu", "sse2"}) {
		t.Errorf("x86: %q", got)
	}
	if got := cpuFlags(file("processor : 0\nFeatures : fp asimd\n")); !slices.Equal(got, []string{"asimd", "fp"}) {
		t.Errorf("arm: %q", got)
	}
	if got := cpuFlags(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("no file: %q", got)
	}
}
