package build

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// chain makes a plan in which every job's root holds all jobs before it.
func chain(t testing.TB, n int) Plan {
	t.Helper()
	p := Plan{Target: "t"}
	table := make([]RootEntry, n)
	for i := range n {
		cpv := CPV{"cat", fmt.Sprintf("p%d", i), "1"}
		pre := []Facet{{"cpv", cpv.String()}}
		k, err := KeyOf(pre)
		if err != nil {
			t.Fatal(err)
		}
		table[i] = RootEntry{CPV: cpv, Slot: "0", Key: k}
		at := make([]uint32, i)
		for k := range at {
			at[k] = uint32(k)
		}
		p.Jobs = append(p.Jobs, Job{Key: k, CPV: cpv, Slot: "0", Preimage: pre, Root: RootOf(table, at)})
	}
	return p
}

func list(r Root) (out []RootEntry) {
	for _, e := range r.All() {
		out = append(out, e)
	}
	return out
}

func TestRootListsOfAPlanShareOneTable(t *testing.T) {
	p := chain(t, 300)
	b, err := Marshal(&p)
	if err != nil {
		t.Fatal(err)
	}
	// Written out, 44,850 entries of about 120 bytes.
	if got, most := len(b), 300*400+44_850*2; got > most {
		t.Errorf("300 jobs are %d bytes, want at most %d", got, most)
	}
	var back Plan
	if err := Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Validate(); err != nil {
		t.Fatal(err)
	}
	for i := range p.Jobs {
		if !slices.Equal(list(p.Jobs[i].Root), list(back.Jobs[i].Root)) {
			t.Fatalf("the root of job %d came back otherwise", i)
		}
	}
	again, err := Marshal(back)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("encoded again it differs, %v", err)
	}
}

func TestARootThatStandsAloneIsWhole(t *testing.T) {
	r := NewRoot(RootEntry{CPV: CPV{"a", "b", "1"}, Slot: "0", Seed: "cid"})
	b, err := Marshal(Job{CPV: CPV{"a", "c", "1"}, Root: r})
	if err != nil {
		t.Fatal(err)
	}
	var j Job
	if err := Unmarshal(b, &j); err != nil || !slices.Equal(list(j.Root), list(r)) {
		t.Errorf("came back as %v, %v", list(j.Root), err)
	}
}

func TestIndicesOfAnyOrderComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.SliceOf(rapid.Uint32Range(0, 999)).Draw(t, "at")
		got, err := readIndices(indices(at), 1000)
		if err != nil || !slices.Equal(got, at) {
			t.Fatalf("%v came back as %v, %v", at, got, err)
		}
	})
	for _, bad := range [][]byte{{0x80}, binary.AppendVarint(nil, 10), binary.AppendVarint(nil, -1), bytes.Repeat([]byte{0xff}, 20)} {
		if _, err := readIndices(bad, 10); !errors.Is(err, ErrPlan) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func FuzzUnmarshalPlan(f *testing.F) {
	p := chain(f, 3)
	b, err := Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Plan
		if Unmarshal(b, &p) != nil || p.Validate() != nil {
			return
		}
		for i := range p.Jobs {
			p.Jobs[i].Before()
		}
		if _, err := Marshal(p); err != nil {
			t.Error(err)
		}
	})
}
