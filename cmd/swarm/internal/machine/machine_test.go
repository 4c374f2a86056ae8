package machine

import "testing"

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
}
