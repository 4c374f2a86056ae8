package replay

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/plan"
	"github.com/build-swarm/swarm/claims"
)

const t0 = 1_800_000_000_000

// two is a round of two builds, one after the other, on one drone, of which the
// first was expected to take 100 s.
func two() Recording {
	target := &build.Target{Name: "t", Arch: "amd64", CPU: []string{"avx2"}}
	job := func(name string) *build.Job {
		return &build.Job{Key: build.Key(strings.Repeat(name, 64)), Builder: build.BuilderSample, CPV: build.CPV{Category: "a", Name: name, Version: "1"}, CoreMillis: 100_000}
	}
	a, b := job("a"), job("b")
	at := func(s int64, stateA, stateB claims.JobState) Moment {
		info := func(j *build.Job, state claims.JobState) claims.JobInfo {
			i := claims.JobInfo{Job: j, Target: "t", For: target, Rounds: []string{"r"}, State: state, Work: 100_000, Estimate: claims.Estimate{Low: 80_000, Median: 100_000, High: 125_000, Measured: true}}
			if state.Done() {
				i.Good = &claims.Result{Peer: "p", Outcome: build.Outcome{Key: j.Key, CPV: j.CPV, Class: build.Good, Millis: 100_000, CoreMillis: 100_000}}
			}
			return i
		}
		beat := claims.Beat{Nick: "nas", Slots: 1, Speed: 1000, Accepting: true, Steady: true, Arch: "amd64", Features: []string{"avx2", "sse"}, Builders: []build.Builder{build.BuilderSample}}
		infos := []claims.JobInfo{info(a, stateA), info(b, stateB)}
		for i := range infos {
			if infos[i].State == claims.JobBuilding {
				began := int64(i) * 100
				j := claims.BeatJob{Key: infos[i].Job.Key, Phase: "compile", Compiling: true, InvestedMS: (s - began) * 1000, LeftMS: (100 - s + began) * 1000, Done: (s - began) * 10}
				infos[i].Holder, infos[i].Beat = "p", j
				beat.Jobs = append(beat.Jobs, j)
			}
		}
		if !stateA.Done() {
			infos[1].WaitsFor = []build.Key{a.Key}
		}
		m := Note(infos, []claims.Peer{{ID: "p", Beat: beat, Live: true}, {ID: "q", AgeMS: s * 1000}}, t0+s*1000)
		m.Rounds = []Round{{ID: "r", CreatedMS: t0}}
		return m
	}
	var rec Recording
	for s := int64(0); s < 100; s += 5 {
		rec = append(rec, at(s, claims.JobBuilding, claims.JobWaiting))
	}
	for s := int64(100); s < 200; s += 5 {
		rec = append(rec, at(s, claims.JobAvailable, claims.JobBuilding))
	}
	return append(rec, at(200, claims.JobAvailable, claims.JobSafe))
}

func write(t *testing.T, rec Recording) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, m := range rec {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestARecordingIsReadAsItWasWritten(t *testing.T) {
	rec := two()
	text := write(t, rec)
	got, err := Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rec, got); d != "" {
		t.Error(d)
	}
	if n := len(text) / len(rec); n > 300 {
		t.Errorf("%d bytes a moment", n)
	}
}

func TestARecordingGivesTheForecastThatWasShown(t *testing.T) {
	rec := two()
	got, err := Read(bytes.NewReader(write(t, rec)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		a, b := plan.Ends(rec[i].Board()), plan.Ends(got[i].Board())
		if d := cmp.Diff(a, b); d != "" {
			t.Errorf("moment %d: %s", i, d)
		}
	}
}

func TestAReplayHoldsTheForecastAgainstWhatCame(t *testing.T) {
	rec := two()
	looks := rec.Looks("r", 10)
	if len(looks) != 9 {
		t.Fatalf("%d looks at tenths", len(looks))
	}
	for i, l := range looks {
		if want := int64(200_000 - 20_000*(i+1)); l.Truth != want || !l.Holds() || l.Share < 0.1*float64(i+1)-1e-9 || l.Share > 0.1*float64(i+1)+1e-9 {
			t.Errorf("at %d tenths %+v, want %d ms left", i+1, l, want)
		}
	}
	if holds, width := Figures(looks); holds != 1 || width > 0.7 {
		t.Errorf("%v hold, %v wide", holds, width)
	}
	late := rec[len(rec)/2:]
	if l := late.Looks("r", 10); l != nil {
		t.Errorf("a recording of half a round has %d looks", len(l))
	}
	if l := rec[:len(rec)-1].Looks("r", 10); l != nil {
		t.Errorf("a recording of a round that does not end has %d looks", len(l))
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	for _, s := range []string{"", "{}", "hello", `{"swarm_recording":9}`, "{\"swarm_recording\":1}\n{", "{\"swarm_recording\":1}\n{\"at_unix_ms\":1}",
		"{\"swarm_recording\":1}\n{\"whole\":true}\n{\"peers\":[{\"id\":\"x\"}]}", "{\"swarm_recording\":1}\n{\"whole\":true}\n{\"jobs\":[{\"key\":\"x\"}]}"} {
		if rec, err := Read(strings.NewReader(s)); err == nil {
			t.Errorf("%q is read as %v", s, rec)
		}
	}
}

// Whoever was sent a recording does not know what is in it.
func FuzzRead(f *testing.F) {
	f.Add("{\"swarm_recording\":1}\n{\"whole\":true,\"rounds\":[{\"id\":\"r\",\"created_unix_ms\":1}],\"peers\":[{\"id\":\"p\",\"live\":true,\"slots\":1,\"accepting\":true}],\"jobs\":[{\"key\":\"k\",\"rounds\":[\"r\"],\"state\":\"ready\",\"core_ms\":-5}]}\n{\"at_unix_ms\":100,\"peers\":[],\"jobs\":[{\"key\":\"k\",\"state\":\"safe\",\"rounds\":[\"r\"]}]}")
	f.Fuzz(func(t *testing.T, s string) {
		rec, err := Read(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, round := range rec.Rounds() {
			Figures(rec.Looks(round, 4))
		}
	})
}
