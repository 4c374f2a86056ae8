package release

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/build-swarm/swarm/build"
)

func TestAReleaseSharesWhatItHasInCommonAndStaysAsItWas(t *testing.T) {
	meta := func(v string) []build.Pair { return []build.Pair{{Name: "USE", Value: v}} }
	entry := func(key, version, kw, use string) Entry {
		return Entry{Key: build.Key(key), CPV: build.CPV{Category: "c", Name: "p", Version: version}, Slot: "0", Keywords: kw, Artifact: build.Artifact{CID: key, Meta: meta(use)}}
	}
	old := &Manifest{Entries: []Entry{entry("a", "1", "amd64", "x"), entry("b", "2", "amd64", "x"), entry("c", "3", "amd64", "x")}}
	next := func() *Manifest {
		return &Manifest{Entries: []Entry{entry("a", "1", "amd64", "x"), entry("b", "2", "~amd64", "x"), entry("c", "3", "amd64", "y"), entry("d", "4", "amd64", "x")}}
	}
	m := next()
	m.Share(nil)
	m.Share(old)
	if diff := cmp.Diff(next(), m); diff != "" {
		t.Error(diff)
	}
	for i, shared := range []bool{true, false, false} {
		if got := &m.Entries[i].Artifact.Meta[0] == &old.Entries[i].Artifact.Meta[0]; got != shared {
			t.Errorf("entry %d: shared is %v, want %v", i, got, shared)
		}
	}
}
