package cli

import (
	"strings"
	"testing"
)

func TestARecordingSaysWhatWasForecastAndWhatCame(t *testing.T) {
	var out, errs strings.Builder
	if code := Main([]string{"swarm", "record", "--show", "../../../../build/plan/replay/testdata/lab-23.jsonl"}, strings.NewReader(""), &out, &errs); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 9 || !strings.Contains(out.String(), "\theld") {
		t.Errorf("of a whole round:\n%s", out.String())
	}
	for _, l := range lines {
		if cells := strings.Split(l, "\t"); len(cells) != 6 || !strings.HasSuffix(cells[1], " %") {
			t.Errorf("line %q", l)
		}
	}
	if !strings.Contains(errs.String(), "the range held ") {
		t.Errorf("on stderr: %s", errs.String())
	}
}
