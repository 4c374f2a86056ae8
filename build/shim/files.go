package shim

import (
	"errors"
	"fmt"
	"os"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/worker"
)

const (
	orderFile  = "order"
	pidFile    = "pid"
	phaseFile  = "phase"
	resultFile = "result"
	stderrFile = "stderr"
	// maxFile bounds what is read of these, in bytes.
	maxFile = 64 << 20
)

// order is what a shim is to do.
type order struct {
	Request   worker.Request
	Tools     []byte
	KeepMS    int64  // how long it goes on without a daemon
	Lock      string // that a daemon holds
	StartedMS int64  // unix
}

// result is what came of it. Class and Reason are a build.Failure, Err any
// other error.
type result struct {
	Result   worker.Result
	Class    build.Class
	Reason   string
	SpaceMiB int64
	Err      string
}

// identity names one process for ever: numbers come back, and so do boots.
type identity struct {
	PID   int
	Start uint64 // clock ticks after boot
	Boot  string
}

// writeFile puts a value into a file in one step.
func writeFile(path string, v any) error {
	b, err := build.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func readFile(path string, v any) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Size() > maxFile {
		return fmt.Errorf("read %s: %d bytes are too much", path, st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := build.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
