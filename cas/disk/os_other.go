//go:build !linux

package disk

import (
	"errors"
	"os"
)

func (osFile) Flush(off, n int64) {}

func allocate(string, int64) error { return errors.ErrUnsupported }

func idle() {}

func forgetPages(*os.File) {}
