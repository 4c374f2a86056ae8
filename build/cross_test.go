package build_test

import (
	"slices"
	"testing"

	"github.com/build-swarm/swarm/build"
)

// crossPlan is a library, its user and the user's user, planned for a target.
func crossPlan(t *testing.T, target string) *build.Plan {
	t.Helper()
	p := &build.Plan{Target: target}
	var before []build.RootEntry
	for i, name := range []string{"lib", "user", "top"} {
		pre := []build.Facet{{Name: "cpv", Value: "x/" + name + "-1"}}
		k, err := build.KeyOf(pre)
		if err != nil {
			t.Fatal(err)
		}
		j := build.Job{Key: k, CPV: build.CPV{Category: "x", Name: name, Version: "1"}, Slot: "0/0", Preimage: pre, Builder: build.BuilderPortage, Against: "plain", Root: build.NewRoot(before...)}
		if i > 0 {
			j.Needs = []build.Edge{{Key: before[i-1].Key, Kind: build.Buildtime | build.Runtime}}
		}
		before = append(before, build.RootEntry{CPV: j.CPV, Slot: j.Slot, Key: k})
		p.Jobs = append(p.Jobs, j)
	}
	p.Want = []build.Key{before[2].Key}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	return p
}

func cpvs(list []build.CPV) (out []string) {
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

func TestAnArtifactCrossesWhereWhatItWasBuiltAgainstAgrees(t *testing.T) {
	const a, b = "plain", "another library"
	for _, c := range []struct {
		name       string
		made       map[string][]build.Made // by package; "user, own" is the target's own
		taken, own []string
	}{
		{"nothing is there", nil, nil, nil},
		{"another target's, against the same", map[string][]build.Made{"lib": {{"far", a}}, "user": {{"far", a}}}, []string{"lib", "user"}, nil},
		{"another target's, against other dependencies", map[string][]build.Made{"lib": {{"far", a}}, "user": {{"far", b}}}, []string{"lib"}, []string{"user"}},
		{"one of several fits", map[string][]build.Made{"user": {{"far", b}, {"third", a}}}, []string{"user"}, nil},
		{"this target's, whatever it was built against", map[string][]build.Made{"user": {{"far", b}, {"near", b}}}, nil, nil},
		{"nobody knows against what", map[string][]build.Made{"user": {{"far", ""}}}, []string{"user"}, nil},
		{"what is its own stays so", map[string][]build.Made{"user": {{"far", a}}, "user, own": {{"near", a}}}, nil, []string{"user"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, was := crossPlan(t, "near"), crossPlan(t, "near")
			made := map[build.Key][]build.Made{}
			for _, j := range was.Jobs {
				made[j.Key] = c.made[j.CPV.Name]
				own, err := build.KeyOf(append(slices.Clone(j.Preimage), build.Facet{Name: build.OwnFacet, Value: "near"}))
				if err != nil {
					t.Fatal(err)
				}
				made[own] = c.made[j.CPV.Name+", own"]
			}
			got, err := p.Cross(func(k build.Key) []build.Made { return made[k] })
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(cpvs(got.Taken), c.taken) || !slices.Equal(cpvs(got.Own), c.own) {
				t.Errorf("taken %v, own %v; want %v and %v", cpvs(got.Taken), cpvs(got.Own), c.taken, c.own)
			}
			if err := p.Validate(); err != nil { // keys are hashes, edges and roots name jobs
				t.Fatal(err)
			}
			for i := range p.Jobs {
				if changed := p.Jobs[i].Key != was.Jobs[i].Key; changed != slices.Contains(c.own, p.Jobs[i].CPV.Name) {
					t.Errorf("%s: its key changed: %t", p.Jobs[i].CPV, changed)
				}
			}
			if got, want := p.Jobs[2].Root.At(1).Key, p.Jobs[1].Key; got != want || p.Jobs[2].Needs[0].Key != want {
				t.Errorf("the user's user has %s in its root, the user is %s", got.Short(), want.Short())
			}
			if was.Jobs[2].Root.At(1).Key != was.Jobs[1].Key {
				t.Error("another plan's root changed")
			}
		})
	}
}
