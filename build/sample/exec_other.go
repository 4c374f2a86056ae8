//go:build !linux

package sample

import "syscall"

// groupAttr: a process group of its own.
func groupAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
