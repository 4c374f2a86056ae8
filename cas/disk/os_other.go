//go:build !linux

package disk

import (
	"errors"
	"os"
	"syscall"
)

func (osFile) Flush(off, n int64) {}

func allocate(string, int64) error { return errors.ErrUnsupported }

func idle() {}

func forgetPages(*os.File) {}

func named(os.FileInfo) bool { return true }

func failing(err error) bool { return errors.Is(err, syscall.EIO) }
