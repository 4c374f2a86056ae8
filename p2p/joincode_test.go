package p2p_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/p2p"
	"github.com/build-swarm/swarm/p2p/p2ptest"
)

func sampleCode(t *testing.T) p2p.JoinCode {
	t.Helper()
	code, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "home", []string{
		"/ip4/192.168.1.10/tcp/4747/p2p/" + p2ptest.ID(1),
		"/ip6/fd00::10/tcp/4747/p2p/" + p2ptest.ID(1),
		"/dns4/nas.lan/tcp/4747/p2p/" + p2ptest.ID(2),
	})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func same(a, b p2p.JoinCode) bool {
	return a.Key == b.Key && a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs)
}

func TestAJoinCodeSurvivesPasting(t *testing.T) {
	code := sampleCode(t)
	text := code.String()
	for name, pasted := range map[string]string{
		"as printed":       text,
		"with a newline":   text + "\n",
		"wrapped":          text[:40] + "\r\n  " + text[40:80] + "\n" + text[80:],
		"in capitals":      strings.ToUpper(text),
		"with blanks ends": "  " + text + "\t",
	} {
		got, err := p2p.ParseJoinCode(pasted)
		if err != nil || !same(got, code) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	t.Logf("%d characters for two peers with three addresses", len(text))
}

func TestAJoinCodeOfASwarmOfOneWithoutAddresses(t *testing.T) {
	code, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p2p.ParseJoinCode(code.String()); err != nil || !same(got, code) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestEveryCutOfAJoinCodeIsCalledCut(t *testing.T) {
	text := sampleCode(t).String()
	for n := 1; n < len(text); n++ {
		if _, err := p2p.ParseJoinCode(text[:n]); !errors.Is(err, p2p.ErrJoinTruncated) {
			t.Fatalf("the first %d of %d characters: %v, want ErrJoinTruncated", n, len(text), err)
		}
	}
}

func TestEveryMistypedCharacterIsNoticed(t *testing.T) {
	text := sampleCode(t).String()
	for i := len("swarm1-"); i < len(text); i++ {
		for _, c := range []byte("a7q08") {
			if text[i] == c {
				continue
			}
			wrong := text[:i] + string(c) + text[i+1:]
			_, err := p2p.ParseJoinCode(wrong)
			if !errors.Is(err, p2p.ErrJoinMistyped) {
				t.Fatalf("%c for %c at %d: %v, want ErrJoinMistyped", c, text[i], i, err)
			}
		}
	}
	if _, err := p2p.ParseJoinCode(text + "abcd"); !errors.Is(err, p2p.ErrJoinMistyped) {
		t.Errorf("something behind it: %v", err)
	}
}

func TestOtherThingsThanJoinCodesAreNamed(t *testing.T) {
	for text, want := range map[string]error{
		"":                              p2p.ErrJoinKind,
		"hello":                         p2p.ErrJoinKind,
		"/key/swarm/psk/1.0.0/\nab":     p2p.ErrJoinKind,
		p2ptest.ID(1):                   p2p.ErrJoinKind,
		"/ip4/1.2.3.4/tcp/4747":         p2p.ErrJoinKind,
		"swarm2-abcdef":                 p2p.ErrJoinVersion,
		"swarm1-":                       p2p.ErrJoinTruncated,
		strings.Repeat("swarm1-a", 1e4): p2p.ErrJoinKind,
	} {
		_, err := p2p.ParseJoinCode(text)
		if !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: the error has several lines", text)
		}
	}
}

func TestAJoinCodeRefusesWhatItCannotCarry(t *testing.T) {
	for _, addr := range []string{"", "/ip4/1.2.3.4/tcp/1", "1.2.3.4:4747", "/p2p/" + p2ptest.ID(1)} {
		if _, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "", []string{addr}); err == nil {
			t.Errorf("address %q was accepted", addr)
		}
	}
	if _, err := p2p.NewJoinCode(p2p.SwarmKey{}, "", nil); err == nil {
		t.Error("a code without a key was made")
	}
	if _, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "a\nb", nil); err == nil {
		t.Error("a name of two lines was accepted")
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("/ip4/10.0.0.1/tcp/%d/p2p/%s", 4000+i, p2ptest.ID(i/20)))
	}
	code, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "", many)
	if err != nil || len(code.Addrs) != 16 {
		t.Errorf("of 40 addresses %d are kept (%v), want 8 for each of the two peers", len(code.Addrs), err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	dir := t.TempDir()
	key := p2p.NewSwarmKey()
	path := filepath.Join(dir, p2p.SwarmKeyFile)
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Fields(string(file))[2]
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, key); strings.Contains(got, secret[:8]) || !strings.Contains(got, key.Fingerprint()) {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if strings.Contains(fmt.Sprintf("%v %s", p2ptest.Identity(1), p2ptest.Identity(1)), "[") {
		t.Error("an identity prints its key")
	}
}

func FuzzParseJoinCode(f *testing.F) {
	code, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "n", []string{"/ip4/127.0.0.1/tcp/1/p2p/" + p2ptest.ID(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(code.String())
	f.Add(code.String()[:60])
	f.Add("swarm1-")
	f.Add("swarm2-aaaa")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := p2p.ParseJoinCode(text)
		if err != nil {
			known := false
			for _, e := range []error{p2p.ErrJoinKind, p2p.ErrJoinTruncated, p2p.ErrJoinMistyped, p2p.ErrJoinVersion} {
				known = known || errors.Is(err, e)
			}
			if !known || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error %q", err)
			}
			return
		}
		if again, err := p2p.ParseJoinCode(got.String()); err != nil || !same(got, again) {
			t.Errorf("%v reads back as %v, %v", got, again, err)
		}
	})
}

// The checksum keeps a fuzzer out of the body: here it is repaired.
func FuzzParseJoinBody(f *testing.F) {
	f.Add(p2p.JoinBody(sampleBody(f)))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := p2p.ParseJoinCode(p2p.JoinText(body))
		if err != nil {
			return
		}
		if again, err := p2p.ParseJoinCode(got.String()); err != nil || !same(got, again) {
			t.Errorf("%v reads back as %v, %v", got, again, err)
		}
	})
}

func sampleBody(f *testing.F) p2p.JoinCode {
	code, err := p2p.NewJoinCode(p2p.NewSwarmKey(), "n", []string{
		"/ip4/127.0.0.1/tcp/1/p2p/" + p2ptest.ID(1), "/dns4/a.b/tcp/1/p2p/" + p2ptest.ID(2),
	})
	if err != nil {
		f.Fatal(err)
	}
	return code
}
