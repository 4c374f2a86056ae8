package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/agent/agenttest"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

func TestAJobIsFoundByWhatPeopleTypeOrTheHintNamesWhatTheyMeant(t *testing.T) {
	p := agenttest.Start(t, t.TempDir())
	lib, plain := agenttest.Job(t, "libfoo"), agenttest.Job(t, "hello")
	// The same package with another flag has another key.
	color := plain
	color.USE, color.IUSE = []string{"color"}, []string{"color"}
	color.Preimage = append([]build.Facet{{Name: "USE", Value: "color"}}, plain.Preimage...)
	var err error
	if color.Key, err = build.KeyOf(color.Preimage); err != nil {
		t.Fatal(err)
	}
	p.Ask(lib, plain, color)
	short := func(k build.Key) string { return k.Short() }
	for name, want := range map[string]build.Key{
		"libfoo": lib.Key, "app-misc/libfoo": lib.Key, "app-misc/libfoo-1": lib.Key, "=app-misc/libfoo-1": lib.Key, " libfoo ": lib.Key,
		string(color.Key): color.Key, short(color.Key): color.Key, short(color.Key)[2:]: color.Key,
	} {
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			if j, err := findJob(r, name, now); err != nil || j.Key != want {
				t.Errorf("%q: %v, %v", name, j, err)
			}
			return nil
		})
	}
	both := []string{short(plain.Key), short(color.Key)}
	for name, want := range map[string]struct {
		kind          control.Kind
		message, hint string
	}{
		"":                       {control.KindUsage, "empty", "swarm jobs"},
		"  ":                     {control.KindUsage, "empty", "swarm jobs"},
		"nosuch-thing":           {control.KindNotFound, "no job nosuch-thing", "swarm jobs lists them"},
		"app-misc/libfo":         {control.KindNotFound, "no job app-misc/libfo", "did you mean: app-misc/libfoo "},
		"LibFoo":                 {control.KindNotFound, "no job LibFoo", "did you mean: libfoo "},
		short(lib.Key)[4:]:       {control.KindNotFound, "no job ", "swarm jobs"}, // too short an end of a key
		"../../etc/passwd":       {control.KindNotFound, "no job ../../etc/passwd", "swarm jobs"},
		"x\x1b[2J\ny":            {control.KindNotFound, "no job x", "swarm jobs"},
		strings.Repeat("a", 1e6): {control.KindNotFound, "no job aaa", "swarm jobs"},
		"hello":                  {control.KindUsage, "hello names several jobs: ", "such as "},
		"app-misc/hello-1":       {control.KindUsage, `(USE="color")`, "such as "},
	} {
		p.Do(func(r *claims.Replica, now claims.Now) []claims.Event {
			j, err := findJob(r, name, now)
			e, ok := errors.AsType[*control.Error](err)
			if !ok || j != nil || e.Kind != want.kind || !strings.Contains(e.Message, want.message) || !strings.Contains(e.Hint, want.hint) {
				t.Errorf("%.40q: %v, %+v", name, j, err)
				return nil
			}
			if strings.ContainsAny(e.Message+e.Hint, "\x1b\n") || len(e.Message) > 500 {
				t.Errorf("%.40q: the message is %q", name, e.Message)
			}
			if want.hint == "such as " {
				for _, k := range both {
					if !strings.Contains(e.Message, k) {
						t.Errorf("%q: %q does not name %s", name, e.Message, k)
					}
				}
				// What the hint says can be typed.
				end := e.Hint[strings.LastIndex(e.Hint, " ")+1:]
				if _, err := findJob(r, end, now); err != nil {
					t.Errorf("%q: %q does not help: %v", name, e.Hint, err)
				}
			}
			return nil
		})
	}
}
