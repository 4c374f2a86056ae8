package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// readSecret reads one line from a terminal without showing it. Unlike
// term.ReadPassword it ends with ctx, and leaves the terminal as it was then,
// too: the command catches SIGINT, so that a plain read would go on for ever.
func readSecret(ctx context.Context, tty *os.File) (text string, err error) {
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("ask on the terminal: %w", err)
	}
	hidden := *old
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return "", fmt.Errorf("ask on the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, old)) }()
	var line []byte
	buf := make([]byte, 4096)
	for len(line) < maxCode {
		// Woken twice a second to see whether ctx has ended.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil {
			n, err = unix.Read(fd, buf)
		}
		if err != nil {
			return "", fmt.Errorf("read from the terminal: %w", err)
		}
		line = append(line, buf[:n]...)
		if n == 0 || buf[n-1] == '\n' {
			break
		}
	}
	return string(line), nil
}
