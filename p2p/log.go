package p2p

import (
	"context"
	"log/slog"

	"github.com/libp2p/go-libp2p/gologshim"
)

// RedirectLibp2pLog sends what libp2p itself logs to handler instead of standard
// error, where it would stand between the lines of a command. All of it becomes
// debug: libp2p calls it an error when a listener is closed, and what matters comes
// back as an error to the host. libp2p keeps one log per process, so that main
// calls this, once, before the first NewHost.
func RedirectLibp2pLog(handler slog.Handler) { gologshim.SetDefaultHandler(demoted{handler}) }

// demoted makes every record a debug one.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }
