//go:build !linux

package disk

func (osFile) Flush(off, n int64) {}
