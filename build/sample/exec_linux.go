package sample

import "syscall"

// groupAttr: a process group of its own, that dies with its parent thread.
func groupAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
