package agent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/claims"
)

// Clock tells both times of a step and how long the machine was awake.
type Clock interface {
	// Now is wall time and the time since boot, suspend included.
	Now() claims.Now
	// Awake is milliseconds of a clock that stops in suspend.
	Awake() int64
}

// SystemClock reads the machine's clocks. Go's own monotonic time stops in
// suspend (golang/go#24595), so leases need CLOCK_BOOTTIME by name.
func SystemClock() (Clock, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return nil, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return systemClock{time.Now()}, nil
}

type systemClock struct{ start time.Time }

func (systemClock) Now() claims.Now {
	var ts unix.Timespec
	// It answered once, and takes no argument that could become wrong.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return claims.Now{Wall: time.Now().UnixMilli(), Boot: ts.Nano() / int64(time.Millisecond)}
}

func (c systemClock) Awake() int64 { return time.Since(c.start).Milliseconds() }

// StepClock follows package time alone: the clock of tests in a synctest
// bubble, where both times advance together.
func StepClock() Clock { return stepClock{time.Now()} }

type stepClock struct{ start time.Time }

func (c stepClock) Now() claims.Now {
	return claims.Now{Wall: time.Now().UnixMilli(), Boot: time.Since(c.start).Milliseconds()}
}

func (c stepClock) Awake() int64 { return time.Since(c.start).Milliseconds() }
