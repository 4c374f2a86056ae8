package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/worker"
)

// niceness of builds: below what people run, above nothing.
const niceness = 10

// errAlone ends a build whose daemon did not come back.
var errAlone = errors.New("the daemon did not come back")

// Main is the shim's program: it runs the build that is ordered in dir, with the
// builder that maker makes of a name and its tools. The error is for stderr; the
// build's own failures are in the result.
func Main(ctx context.Context, dir string, maker func(context.Context, build.Builder, []byte) (worker.Builder, error)) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep a build's processes together: %w", err)
	}
	// All threads of the process group, which is this process alone.
	if err := syscall.Setpriority(syscall.PRIO_PGRP, 0, niceness); err != nil {
		return fmt.Errorf("be nice: %w", err)
	}
	if err := writeIdentity(dir); err != nil {
		return err
	}
	var o order
	if err := readFile(filepath.Join(dir, orderFile), &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go watch(ctx, o.Lock, time.Duration(o.KeepMS)*time.Millisecond, func() { cancel(errAlone) })
	r := run(ctx, dir, &o, maker)
	if errors.Is(context.Cause(ctx), errAlone) {
		return errors.Join(killBelow(), os.RemoveAll(dir)) // nobody will come for it
	}
	return writeFile(filepath.Join(dir, resultFile), &r)
}

func run(ctx context.Context, dir string, o *order, maker func(context.Context, build.Builder, []byte) (worker.Builder, error)) (r result) {
	b, err := maker(ctx, o.Request.Job.Builder, o.Tools)
	if err != nil {
		r.Class, r.Reason = build.BadMachine, build.OneLine(err.Error(), 400)
		return r
	}
	log, err := worker.AppendLog(o.Request.LogPath)
	if err != nil {
		r.Class, r.Reason = build.BadMachine, build.OneLine(err.Error(), 400)
		return r
	}
	req := o.Request
	req.Log = log
	req.Phase = func(name string) {
		// A phase that is not told is shown late; the build goes on.
		if err := os.WriteFile(filepath.Join(dir, phaseFile+".tmp"), []byte(name), 0o600); err == nil {
			_ = os.Rename(filepath.Join(dir, phaseFile+".tmp"), filepath.Join(dir, phaseFile))
		}
	}
	r.Result, err = b.Build(ctx, req)
	err = errors.Join(err, log.Close())
	if f, ok := errors.AsType[*build.Failure](err); ok {
		r.Class, r.Reason, r.SpaceMiB = f.Class, f.Reason, f.SpaceMiB
	} else if err != nil {
		r.Err = err.Error()
	}
	return r
}

// watch waits until no daemon has held the lock for as long as keep. It sleeps
// in the kernel for as long as one does.
func watch(ctx context.Context, path string, keep time.Duration, alone func()) {
	f, err := os.Open(path)
	if err != nil {
		alone() // the whole directory is gone
		return
	}
	defer f.Close()
	free := func(how int) bool {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|how)
			if err == nil {
				return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) == nil
			}
			if !errors.Is(err, syscall.EINTR) {
				return false
			}
		}
	}
	for ctx.Err() == nil {
		if !free(0) {
			return
		}
		t := time.NewTimer(keep)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if free(syscall.LOCK_NB) {
			alone()
			return
		}
	}
}
