package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/cas"
)

func cidOf(s string) string { return cas.Sum([]byte(s)).String() }

func keyOf(s string) build.Key {
	sum := sha256.Sum256([]byte(s))
	return build.Key(hex.EncodeToString(sum[:]))
}

// entry makes a valid entry. key names it; needs name others.
func entry(t testing.TB, key, cpv, slot, use, rdepend string, needs ...string) Entry {
	t.Helper()
	c, err := build.ParseCPV(cpv)
	if err != nil {
		t.Fatal(err)
	}
	e := Entry{
		Key: keyOf(key), CPV: c, Slot: slot, Keywords: "amd64",
		Artifact: build.Artifact{
			CID: cidOf(key), Size: 1000, MTime: 1700000000,
			MD5: strings.Repeat("0", 32), SHA1: strings.Repeat("1", 40),
			Meta: []build.Pair{
				{Name: "BUILD_TIME", Value: "1700000000"}, {Name: "EAPI", Value: "8"},
				{Name: "RDEPEND", Value: rdepend}, {Name: "SLOT", Value: slot}, {Name: "USE", Value: use},
			},
		},
	}
	for _, n := range needs {
		e.Needs = append(e.Needs, keyOf(n))
	}
	slices.Sort(e.Needs)
	return e
}

func names(m Manifest) []string {
	var out []string
	for _, e := range m.Entries {
		out = append(out, strings.TrimSpace(e.CPV.String()+" "+e.USE()))
	}
	return out
}

func reasons(hs []Held) []string {
	var out []string
	for _, h := range hs {
		out = append(out, h.Entry.CPV.String()+": "+h.Reason)
	}
	return out
}

func compose(t testing.TB, prev *Manifest, opt Options, cand ...Entry) (Manifest, []Held) {
	t.Helper()
	if opt.Target == "" {
		opt.Target = "desktop"
	}
	m, held, err := Compose(prev, cand, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m, held
}

func equal(t testing.TB, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

func TestEntryWhoseNeedsAreMissingIsHeldBackWithAllThatWaitsForIt(t *testing.T) {
	m, held := compose(t, nil, Options{},
		entry(t, "lib", "dev-libs/lib-1", "0", "", ""),
		entry(t, "app", "app-misc/app-1", "0", "", "", "lib", "gone"),
		entry(t, "meta", "app-misc/meta-1", "0", "", "", "app"),
	)
	equal(t, names(m), []string{"dev-libs/lib-1"})
	equal(t, reasons(held), []string{
		"app-misc/app-1: needs key " + keyOf("gone").Short() + ", which is not in the release",
		"app-misc/meta-1: needs app-misc/app-1, which is not in the release",
	})
}

func TestWhatMayNotEnterStaysOutWithAllThatNeedsIt(t *testing.T) {
	shown, _ := compose(t, nil, Options{}, entry(t, "old", "a/rebuilt-1", "0", "", ""))
	lib, rebuilt := entry(t, "lib", "a/lib-1", "0", "", ""), entry(t, "new", "a/rebuilt-1", "0", "", "")
	m, held := compose(t, &shown, Options{Out: map[string]string{lib.Artifact.CID: "it fails", rebuilt.Artifact.CID: "so does it"}},
		lib, rebuilt, entry(t, "app", "a/app-1", "0", "", "", "lib"), entry(t, "user", "a/user-1", "0", "", "", "new"), entry(t, "more", "a/more-1", "0", "", ""))
	// The one that is shown stands in for its replacement.
	equal(t, names(m), []string{"a/more-1", "a/rebuilt-1", "a/user-1"})
	equal(t, m.Entries[1].Key, keyOf("old"))
	equal(t, reasons(held), []string{"a/app-1: needs a/lib-1, which is not in the release", "a/lib-1: it fails", "a/rebuilt-1: so does it"})
	// What is shown is not asked for.
	m, held = compose(t, &shown, Options{Out: map[string]string{cidOf("old"): "no"}}, entry(t, "old", "a/rebuilt-1", "0", "", ""))
	equal(t, names(m), []string{"a/rebuilt-1"})
	equal(t, len(held), 0)
}

func TestWhatWasHeldBackFitsARecord(t *testing.T) {
	var list []HeldPackage
	for i := range 2 * MaxHeldBack {
		e := entry(t, fmt.Sprint(i), fmt.Sprintf("cat/%s-%d", strings.Repeat("n", 100), i), "0", "", "")
		list = append(list, HeldPackage{CID: e.Artifact.CID, CPV: e.CPV, Reason: strings.Repeat("because\n", 100), Installing: true})
	}
	h := NewHeldBack("desktop", 1700000000, list)
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := build.Marshal(h)
	if err != nil || len(b) > 30<<10 || len(h.Packages) != MaxHeldBack || h.More != MaxHeldBack {
		t.Errorf("%d packages and %d more in %d bytes, %v", len(h.Packages), h.More, len(b), err)
	}
	if _, ok := h.Of(h.Packages[3].CID); !ok {
		t.Error("what is in it is not found")
	}
	later := NewHeldBack("desktop", 1800000000, list)
	if !h.Same(&later) {
		t.Error("it says the same, and is not")
	}
	for name, breaks := range map[string]func(*HeldBack){
		"target": func(h *HeldBack) { h.Target = "../x" }, "order": func(h *HeldBack) { h.Packages[0], h.Packages[1] = h.Packages[1], h.Packages[0] },
		"reason": func(h *HeldBack) { h.Packages[0].Reason = "two\nlines" }, "CID": func(h *HeldBack) { h.Packages[0].CID = "/etc/passwd" },
		"time": func(h *HeldBack) { h.At = 0 }, "too many": func(h *HeldBack) { h.Packages = append(h.Packages, h.Packages...) },
		"name": func(h *HeldBack) { h.Packages[0].CPV.Name = "a/../b" },
	} {
		bad := h
		bad.Packages = slices.Clone(h.Packages)
		if breaks(&bad); !errors.Is(bad.Validate(), ErrInvalid) {
			t.Errorf("%s: %v", name, bad.Validate())
		}
	}
}

func TestNeedsOnTheBaseAreMetAndNotListed(t *testing.T) {
	m, held := compose(t, nil, Options{Base: []build.Key{keyOf("glibc")}},
		entry(t, "app", "app-misc/app-1", "0", "", "", "glibc"))
	if len(held) != 0 || len(m.Entries) != 1 || len(m.Entries[0].Needs) != 0 {
		t.Fatalf("got %v, held %v", m.Entries, reasons(held))
	}
}

func TestRuntimeCycleGoesInTogether(t *testing.T) {
	m, _ := compose(t, nil, Options{},
		entry(t, "a", "x/a-1", "0", "", "", "b"), entry(t, "b", "x/b-1", "0", "", "", "a"))
	equal(t, names(m), []string{"x/a-1", "x/b-1"})
}

func TestInstanceShownChangesOnlyWithItsKey(t *testing.T) {
	first, _ := compose(t, nil, Options{}, entry(t, "k", "x/a-1", "0", "foo", ""))
	again := entry(t, "k", "x/a-1", "0", "foo", "")
	again.Artifact.CID = cidOf("another build of the same key")
	m, _ := compose(t, &first, Options{}, again)
	equal(t, m.Entries[0].Artifact.CID, cidOf("k"))

	lost, _ := compose(t, &first, Options{Without: []build.Key{keyOf("k")}}, again)
	equal(t, lost.Entries[0].Artifact.CID, again.Artifact.CID)

	rekeyed, _ := compose(t, &first, Options{}, entry(t, "k2", "x/a-1", "0", "foo", ""), entry(t, "k3", "x/a-1", "0", "bar", ""))
	equal(t, names(rekeyed), []string{"x/a-1 bar", "x/a-1 foo"})
	equal(t, rekeyed.Entries[1].Key, keyOf("k2"))
}

func TestNeedFollowsAReplacementOfTheSameSlot(t *testing.T) {
	first, _ := compose(t, nil, Options{},
		entry(t, "lib", "dev-libs/lib-1", "0/1", "", ""),
		entry(t, "app", "app-misc/app-1", "0", "", "dev-libs/lib:0/1=", "lib"))
	m, held := compose(t, &first, Options{}, entry(t, "lib2", "dev-libs/lib-1", "0/1", "", ""))
	equal(t, len(held), 0)
	equal(t, m.Entries[0].Needs, []build.Key{keyOf("lib2")})
}

func TestLibraryWithChangedSubslotWaitsForItsDependants(t *testing.T) {
	first, _ := compose(t, nil, Options{},
		entry(t, "lib1", "dev-libs/lib-1.9", "0/1", "", ""),
		entry(t, "app1", "app-misc/app-1", "0", "", ">=dev-libs/lib-1:0/1=[foo] || ( dev-libs/other:0/9= x/y )", "lib1"))
	lib2 := entry(t, "lib2", "dev-libs/lib-1.10", "0/2", "", "")
	m, held := compose(t, &first, Options{}, lib2)
	equal(t, names(m), []string{"app-misc/app-1", "dev-libs/lib-1.9"})
	equal(t, reasons(held), []string{"dev-libs/lib-1.10: app-misc/app-1 was built against dev-libs/lib:0/1 and has to be built again first"})

	m, held = compose(t, &first, Options{}, lib2, entry(t, "app2", "app-misc/app-1", "0", "", "dev-libs/lib:0/2=", "lib2"))
	equal(t, len(held), 0)
	equal(t, names(m), []string{"app-misc/app-1", "dev-libs/lib-1.10", "dev-libs/lib-1.9"})
	equal(t, m.Entries[0].Key, keyOf("app2"))
}

func TestDependantBuiltAgainstTheOldLibraryIsHeldBack(t *testing.T) {
	first, _ := compose(t, nil, Options{}, entry(t, "lib2", "dev-libs/lib-2", "0/2", "", ""), entry(t, "lib1", "dev-libs/lib-1", "0/1", "", ""))
	m, held := compose(t, &first, Options{}, entry(t, "app1", "app-misc/app-1", "0", "", "dev-libs/lib:0/1=", "lib1"))
	equal(t, len(m.Entries), 2)
	equal(t, reasons(held), []string{"app-misc/app-1: was built against dev-libs/lib:0/1, but the release has dev-libs/lib-2:0/2"})
}

func TestInvalidCandidateIsHeldBackAndTheRestGoesOn(t *testing.T) {
	bad := entry(t, "bad", "x/bad-1", "0", "", "")
	bad.Artifact.Meta[2].Value = "x/y\nPATH: ../../etc/passwd"
	m, held := compose(t, nil, Options{}, bad, entry(t, "ok", "x/ok-1", "0", "", ""))
	equal(t, names(m), []string{"x/ok-1"})
	if len(held) != 1 || !strings.Contains(held[0].Reason, "RDEPEND") {
		t.Fatal(reasons(held))
	}
}

// A release made of anything is valid, closed, the same for any order of
// candidates, and held back is only what cannot stand on the result alone.
func TestComposeProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) []Entry {
			n := rapid.IntRange(0, 12).Draw(rt, label)
			var out []Entry
			for range n {
				lib := rapid.IntRange(0, 4).Draw(rt, "p")
				ver := rapid.IntRange(1, 3).Draw(rt, "v")
				sub := rapid.IntRange(1, 2).Draw(rt, "sub")
				use := rapid.SampledFrom([]string{"", "foo"}).Draw(rt, "use")
				dep := ""
				var needs []string
				for range rapid.IntRange(0, 2).Draw(rt, "deps") {
					d := rapid.IntRange(0, 4).Draw(rt, "dep")
					dep += fmt.Sprintf(" x/p%d:0/%d=", d, rapid.IntRange(1, 2).Draw(rt, "dsub"))
					needs = append(needs, fmt.Sprint("k", rapid.IntRange(0, 25).Draw(rt, "dk")))
				}
				key := fmt.Sprint("k", rapid.IntRange(0, 25).Draw(rt, "k"))
				e := entry(t, key, fmt.Sprintf("x/p%d-%d", lib, ver), fmt.Sprintf("0/%d", sub), use, strings.TrimSpace(dep), needs...)
				e.Artifact.CID = cidOf(fmt.Sprint(key, rapid.IntRange(0, 1).Draw(rt, "cid")))
				out = append(out, e)
			}
			return out
		}
		first, _ := compose(t, nil, Options{}, draw("first")...)
		cand := draw("cand")
		m, held := compose(t, &first, Options{}, cand...)
		if err := m.Validate(); err != nil {
			rt.Fatal(err)
		}
		for i := range m.Entries {
			for _, b := range bindingsOf(m.Entries[i].Meta) {
				if sub, ok := highest(m, b); ok && sub != b.slot.Sub {
					rt.Fatalf("%s bound to %s:%s, highest has %s", m.Entries[i].CPV, b.cp, b.slot, sub)
				}
			}
		}
		enc, err := m.Encode()
		if err != nil {
			rt.Fatal(err)
		}
		back, err := Decode(enc)
		if err != nil {
			rt.Fatal(err)
		}
		enc2, _ := back.Encode()
		if !bytes.Equal(enc, enc2) {
			rt.Fatal("encoding is not a fixed point")
		}
		slices.Reverse(cand)
		again, held2 := compose(t, &first, Options{}, cand...)
		if d := cmp.Diff(m, again); d != "" {
			rt.Fatal("order of candidates shows", d)
		}
		if len(held) != len(held2) {
			rt.Fatal("order shows in what is held")
		}
		same, _ := compose(t, &m, Options{})
		if len(Diff(&m, &same)) != 0 {
			rt.Fatal("a release composed with nothing changed")
		}
		for _, c := range Diff(&first, &m) {
			if c.Kind == Replaced && c.Old.Key == c.New.Key {
				rt.Fatalf("%s changed without a new key", c.New.CPV)
			}
		}
	})
}

func highest(m Manifest, b binding) (string, bool) {
	var best *Entry
	for i := range m.Entries {
		e := &m.Entries[i]
		s, _ := build.ParseSlot(e.Slot)
		if e.CPV.CP() == b.cp && s.Slot == b.slot.Slot && (best == nil || CompareVersions(e.CPV.Version, best.CPV.Version) > 0) {
			best = e
		}
	}
	if best == nil {
		return "", false
	}
	s, _ := build.ParseSlot(best.Slot)
	return s.Sub, true
}

func TestDiffNamesNewChangedAndGone(t *testing.T) {
	a, _ := compose(t, nil, Options{}, entry(t, "1", "x/a-1", "0", "", ""), entry(t, "2", "x/b-1", "0", "", ""), entry(t, "3", "x/c-1", "0", "", ""))
	b, _ := compose(t, nil, Options{}, entry(t, "1", "x/a-1", "0", "", ""), entry(t, "2b", "x/b-1", "0", "", ""), entry(t, "4", "x/d-1", "0", "", ""))
	var got []string
	for _, c := range Diff(&a, &b) {
		e := c.New
		if e == nil {
			e = c.Old
		}
		got = append(got, string(c.Kind)+" "+e.CPV.String())
	}
	equal(t, got, []string{"changed x/b-1", "gone x/c-1", "new x/d-1"})
	equal(t, len(Diff(nil, &a)), 3)
}

func TestHeadsOfAChannelGoForwardInTimeAlsoOnRollback(t *testing.T) {
	r1, r2 := cidOf("r1"), cidOf("r2")
	now := time.Unix(1_700_000_000, 0)
	h1 := Next(&Channel{Target: "desktop", Name: Stable}, r1, now)
	h2 := Next(&h1, r2, now.Add(time.Second))
	back := Next(&h2, r1, now.Add(-time.Hour)) // the clock was set back
	equal(t, []int64{h1.Timestamp, h2.Timestamp, back.Timestamp}, []int64{1_700_000_000, 1_700_000_006, 1_700_000_012})
	later := Next(&back, r2, now.Add(time.Hour))
	equal(t, later.Timestamp, now.Add(time.Hour).Unix())
	if !h2.Follows(h1) || !back.Follows(h2) || back.Follows(h1) || h2.Compare(h1) <= 0 {
		t.Fatal("the chain does not hold")
	}
	b, err := back.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeChannel(b)
	if err != nil || got != back {
		t.Fatalf("%v %v", got, err)
	}
}

func TestHeadThatBreaksTheRulesIsRefused(t *testing.T) {
	good := Channel{Target: "desktop", Name: Stable, Version: 1, Release: cidOf("r"), Timestamp: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Channel){
		"target": func(c *Channel) { c.Target = "../x" }, "name": func(c *Channel) { c.Name = "" },
		"version": func(c *Channel) { c.Version = 0 }, "time": func(c *Channel) { c.Timestamp = 1 << 50 },
		"release": func(c *Channel) { c.Release = "Qm" }, "previous": func(c *Channel) { c.Previous = cidOf("p") },
		"chain": func(c *Channel) { c.Version = 2 },
	} {
		c := good
		edit(&c)
		if err := c.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestManifestThatBreaksTheRulesIsRefused(t *testing.T) {
	fresh := func() Manifest {
		m, _ := compose(t, nil, Options{Header: []build.Pair{{Name: "CHOST", Value: "x86_64-pc-linux-gnu"}}},
			entry(t, "1", "x/a-1", "0", "", ""), entry(t, "2", "x/b-1", "0", "", "", "1"))
		return m
	}
	for name, edit := range map[string]func(*Manifest){
		"target":       func(m *Manifest) { m.Target = "a/b" },
		"header name":  func(m *Manifest) { m.Header[0].Name = "CHOST: x\nURI" },
		"header value": func(m *Manifest) { m.Header[0].Value = "x\nURI: http://evil" },
		"header twice": func(m *Manifest) { m.Header = append(m.Header, m.Header[0]) },
		"order":        func(m *Manifest) { slices.Reverse(m.Entries) },
		"open need":    func(m *Manifest) { m.Entries = m.Entries[1:] },
		"cid":          func(m *Manifest) { m.Entries[0].Artifact.CID = "bafy" },
		"size":         func(m *Manifest) { m.Entries[0].Artifact.Size = -1 },
		"md5":          func(m *Manifest) { m.Entries[0].Artifact.MD5 = "" },
		"sha1":         func(m *Manifest) { m.Entries[0].Artifact.SHA1 = strings.Repeat("G", 40) },
		"cpv":          func(m *Manifest) { m.Entries[0].CPV.Category = ".." },
		"slot":         func(m *Manifest) { m.Entries[0].Slot = "1" },
		"keywords":     func(m *Manifest) { m.Entries[0].Keywords = "a\rb" },
		"key":          func(m *Manifest) { m.Entries[0].Key = "../" },
		"key twice":    func(m *Manifest) { m.Entries[0].Key = m.Entries[1].Key },
		"value":        func(m *Manifest) { m.Entries[0].Artifact.Meta[2].Value = strings.Repeat("x", MaxValue+1) },
		"utf8":         func(m *Manifest) { m.Entries[0].Artifact.Meta[2].Value = "\xff" },
	} {
		m := fresh()
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		m.Entries[0].Artifact.Meta = slices.Clone(m.Entries[0].Artifact.Meta)
		edit(&m)
		if _, err := m.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersionsCompareAsInPMS(t *testing.T) {
	ordered := []string{"0.9", "1_alpha", "1_alpha2", "1_beta", "1_pre1", "1_rc", "1_rc2", "1", "1-r1", "1-r10", "1_p", "1_p1", "1a", "1b",
		"1.0", "1.001", "1.01", "1.1", "1.2", "1.10", "1.10.0", "2", "10", "20240101123456789012345"}
	for i := range ordered {
		for j := range ordered {
			got := CompareVersions(ordered[i], ordered[j])
			if (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", ordered[i], ordered[j], got)
			}
		}
	}
	for _, p := range [][2]string{{"1.0", "1.0-r0"}, {"1.00", "1.0"}, {"01", "1"}} {
		if CompareVersions(p[0], p[1]) != 0 {
			t.Errorf("%s and %s differ", p[0], p[1])
		}
	}
}

func FuzzDecode(f *testing.F) {
	m, _ := compose(f, nil, Options{}, entry(f, "1", "x/a-1", "0", "a b", "x/y:0/1="), entry(f, "2", "x/b-1", "0", "", "", "1"))
	b, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xbf})
	head := Channel{Target: "desktop", Name: Stable, Version: 1, Release: cidOf("r"), Timestamp: 1}
	h, _ := head.Encode()
	f.Add(h)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeChannel(b); err == nil {
			if _, err := c.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		enc, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(enc)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Compose(m, again.Entries, Options{Target: "x"}); err != nil {
			t.Fatal(err)
		}
	})
}
