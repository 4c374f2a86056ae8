package p2p

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/gologshim"
)

// RedirectLibp2pLog sends what libp2p itself logs to handler instead of standard
// error, where it would stand between the lines of a command. libp2p keeps one log
// per process, so that main calls this, once, before the first NewHost.
func RedirectLibp2pLog(handler slog.Handler) { gologshim.SetDefaultHandler(handler) }
