package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheInitSystemHearsWhatHappensAndABadConfigurationStopsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	asked := make(chan os.Signal, 1)
	bad := errors.New("no such setting")
	handed := false
	s := Service{Asked: asked, Check: func() error { defer func() { bad = nil }(); return bad }, HandOver: func() { handed = true }, Log: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 200)
		n, err := ln.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Fatalf("heard %q, %v; want %q", buf[:n], err, want)
		}
	}
	hear("READY=1")
	asked <- syscall.SIGHUP
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1") // it goes on as it was
	asked <- syscall.SIGHUP
	hear("RELOADING=1")
	if err := <-ended; err != nil || !handed {
		t.Errorf("handed over %v, %v", handed, err)
	}
}
