package p2p

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestWhatLibp2pCallsAnErrorIsOursToJudge(t *testing.T) {
	for level, want := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var out bytes.Buffer
		log := slog.New(demoted{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})}).With("logger", "swarm2")
		log.Error("listener closed")
		if got := strings.Contains(out.String(), "level=DEBUG") && strings.Contains(out.String(), "logger=swarm2"); got != want {
			t.Errorf("at %s it prints %q", level, out.String())
		}
	}
}
