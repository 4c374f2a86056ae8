package build

import (
	"errors"
	"strings"
	"testing"
)

// abcBLAKE2B is BLAKE2b-512 of "abc" (RFC 7693, appendix A).
const abcBLAKE2B = "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"

func TestASourceIsWhatItsManifestSays(t *testing.T) {
	src := SourceOf("abc-1.tar.xz", 3, "SHA512:00 BLAKE2B:"+strings.ToUpper(abcBLAKE2B))
	if !src.Valid() || src.Hash != "BLAKE2B:"+abcBLAKE2B {
		t.Fatalf("got %+v", src)
	}
	if err := src.Check(strings.NewReader("abc")); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"abd", "ab", "abcd", ""} {
		if err := src.Check(strings.NewReader(text)); !errors.Is(err, ErrSource) {
			t.Errorf("%q: %v", text, err)
		}
	}
	sha := SourceOf("x", 3, "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
	if err := sha.Check(strings.NewReader("abc")); !sha.Valid() || err != nil {
		t.Errorf("%+v: %v", sha, err)
	}
}

func TestASourceWithANameOrHashThatIsNoneIsNotValid(t *testing.T) {
	good := Source{Name: "a", Size: 3, Hash: "BLAKE2B:" + abcBLAKE2B}
	for what, change := range map[string]func(*Source){
		"a path":              func(s *Source) { s.Name = "../a" },
		"a way up":            func(s *Source) { s.Name = ".." },
		"hidden":              func(s *Source) { s.Name = ".a" },
		"an option":           func(s *Source) { s.Name = "-a" },
		"two lines":           func(s *Source) { s.Name = "a\nb" },
		"none":                func(s *Source) { s.Name = "" },
		"no hash":             func(s *Source) { s.Hash = "" },
		"a weak hash":         func(s *Source) { s.Hash = "MD5:d41d8cd98f00b204e9800998ecf8427e" },
		"half a hash":         func(s *Source) { s.Hash = s.Hash[:20] },
		"a hash with a break": func(s *Source) { s.Hash += "\n" },
		"no size":             func(s *Source) { s.Size = -1 },
	} {
		s := good
		if change(&s); s.Valid() {
			t.Errorf("%s is valid: %+v", what, s)
		}
	}
	if !good.Valid() {
		t.Error("a good one is not")
	}
}
