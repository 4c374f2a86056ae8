package progress

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestALineSaysWhatHowFarAndHowLongStill(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	size := func(n int64) string { return fmt.Sprintf("%d KiB", n>>10) }
	for name, x := range map[string]struct {
		steps []Step // the first at 0 s, the last now
		now   int
		want  string
	}{
		"nothing is known":       {[]Step{{What: "plan"}}, 0, "plan"},
		"it goes on":             {[]Step{{What: "plan"}}, 12, "plan, for 12s"},
		"the last time":          {[]Step{{What: "plan", LowMS: 5000, HighMS: 5000}}, 3, "plan, about 2s left"},
		"longer than the last":   {[]Step{{What: "plan", LowMS: 5000, HighMS: 5000}}, 9, "plan, for 9s"},
		"a range":                {[]Step{{What: "round", Done: 3, All: 14, LowMS: 60_000, HighMS: 90_000, Note: "2 building"}}, 3, "round: 3 of 14, 2 building, 57s to 1m27s left"},
		"by its pace":            {[]Step{{What: "check", All: 40}, {What: "check", Done: 10, All: 40}}, 10, "check: 10 of 40, about 30s left"},
		"by its pace from where": {[]Step{{What: "check", Done: 20, All: 40}, {What: "check", Done: 30, All: 40}}, 10, "check: 30 of 40, about 10s left"},
		"a pace of a moment":     {[]Step{{What: "check", All: 40}, {What: "check", Done: 10, All: 40}}, 0, "check: 10 of 40"},
		"all is done":            {[]Step{{What: "check", All: 40}, {What: "check", Done: 40, All: 40}}, 10, "check: 40 of 40, for 10s"},
		"bytes":                  {[]Step{{What: "copy", Bytes: true, Done: 1024, All: 4096}}, 0, "copy: 1 KiB of 4 KiB"},
		"something else":         {[]Step{{What: "check", Done: 40, All: 40}, {What: "release"}}, 90, "release"},
	} {
		t.Run(name, func(t *testing.T) {
			var p Pace
			for i, s := range x.steps {
				now := at(0)
				if i == len(x.steps)-1 && i > 0 {
					now = at(x.now)
				}
				if fresh := p.See(s, now); fresh != (i == 0 || s.What != x.steps[i-1].What) {
					t.Errorf("step %d is new: %v", i, fresh)
				}
			}
			if got := p.Line(at(x.now), size, time.Duration.String); got != x.want {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
}

func TestWhoDoesTheWorkNeedsNobodyWhoListens(t *testing.T) {
	Tell(t.Context(), Step{What: "a"}) // to nobody
	var got []Step
	ctx := With(t.Context(), func(s Step) { got = append(got, s) })
	sub, cancel := context.WithCancel(ctx)
	defer cancel()
	Tell(sub, Step{What: "b", Done: 1})
	if len(got) != 1 || got[0].Done != 1 || !Listened(sub) || Listened(t.Context()) {
		t.Errorf("%v", got)
	}
}
