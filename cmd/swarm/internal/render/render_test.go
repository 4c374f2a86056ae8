package render

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func tableIn(o Out) {
	t := o.NewTable("PEER", "STATE", "DOING")
	t.Row("alpha *", Cell(Good, "building"), "sci-mathematics/sample-spectrum-3.0 (compile 12s, about 40s left)")
	t.Row("a-peer-with-a-long-name\x1b[31m", Cell(Bad, "away"), "")
	t.Row("nas", Cell(Dim, "idle"), "waits for nothing at all, and says so at a length that no terminal of a hundred and twenty columns would take")
	t.Flush()
}

func TestTablesFitTheTerminalAndArePlainInPipes(t *testing.T) {
	for _, x := range []struct {
		name string
		out  Out
		want string
	}{
		{"80 columns", Out{TTY: true, Width: 80}, `
PEER                         STATE     DOING
alpha *                      building  sci-mathematics/sample-spectrum-3.0 (com~
a-peer-with-a-long-name[31m  away
nas                          idle      waits for nothing at all, and says so at~
`},
		{"120 columns", Out{TTY: true, Width: 120}, `
PEER                         STATE     DOING
alpha *                      building  sci-mathematics/sample-spectrum-3.0 (compile 12s, about 40s left)
a-peer-with-a-long-name[31m  away
nas                          idle      waits for nothing at all, and says so at a length that no terminal of a hundred ~
`},
		{"a pipe", Out{Width: 80}, `
alpha *	building	sci-mathematics/sample-spectrum-3.0 (compile 12s, about 40s left)
a-peer-with-a-long-name[31m	away	
nas	idle	waits for nothing at all, and says so at a length that no terminal of a hundred and twenty columns would take
`},
		{"colour", Out{TTY: true, Width: 80, Color: true}, "\n" +
			"\x1b[2mPEER\x1b[0m                         \x1b[2mSTATE\x1b[0m     \x1b[2mDOING\x1b[0m\n" +
			"alpha *                      \x1b[32mbuilding\x1b[0m  sci-mathematics/sample-spectrum-3.0 (com~\n" +
			"a-peer-with-a-long-name[31m  \x1b[31maway\x1b[0m\n" +
			"nas                          \x1b[2midle\x1b[0m      waits for nothing at all, and says so at~\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var b bytes.Buffer
			x.out.W = &b
			tableIn(x.out)
			if got := "\n" + b.String(); got != x.want {
				t.Errorf("got:%s\nwant:%s", got, x.want)
			}
		})
	}
}

func TestLabeledLinesAreBrokenOnATerminalOnly(t *testing.T) {
	text := "no connection to 12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmXj5UotvcE7kk: refused"
	var tty, pipe bytes.Buffer
	Out{W: &tty, TTY: true, Width: 50}.Labeled(Warn, "warning:", text)
	Out{W: &pipe, Width: 50}.Labeled(Warn, "warning:", text)
	want := "warning: no connection to\n         12D3KooWBWC2wGxpWxkaff56MCnLoFjFeUEPjPvmX\n         j5UotvcE7kk: refused\n"
	if tty.String() != want {
		t.Errorf("on a terminal:\n%s\nwant:\n%s", tty.String(), want)
	}
	if pipe.String() != "warning: "+text+"\n" {
		t.Errorf("in a pipe: %q", pipe.String())
	}
}

func TestWrapKeepsEveryWord(t *testing.T) {
	for _, n := range []int{1, 2, 7, 20, 200} {
		text := "a bb ccc dddd eeeee ffffff  ggggggg\nhhhhhhhh"
		lines := Wrap(text, n)
		for _, l := range lines {
			if utf8.RuneCountInString(l) > n {
				t.Errorf("width %d: %q", n, l)
			}
		}
		if got := strings.ReplaceAll(strings.Join(lines, ""), " ", ""); got != "abbcccdddd"+"eeeeeffffffggggggghhhhhhhh" {
			t.Errorf("width %d lost text: %q", n, lines)
		}
	}
	if got := Wrap("", 10); len(got) != 1 || got[0] != "" {
		t.Errorf("nothing wraps to %q", got)
	}
}

func TestLogsCannotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\nümlaut €\n":             "plain\ttext\nümlaut €\n",
		"\x1b[1;31mred\x1b[0m":                "red",
		"\x1b]0;a title\x07after":             "after",
		"\x1b]0;a title\x1b\\after":           "after",
		"\x1b]0;never ended\nnext line":       "next line",
		"\x1bPdevice\x1b\\after":              "after",
		"\x1b(Bcharset":                       "charset",
		"\u009b31mcsi in UTF-8":               "31mcsi in UTF-8",
		"bell\x07 back\x08 del\x7f cr\rend":   "bell back del crend",
		"\x1b[31\nbroken":                     "broken",
		"no-break\u00a0space and \u00bf mark": "no-break\u00a0space and \u00bf mark",
	} {
		var b bytes.Buffer
		if n, err := NewCleanWriter(&b).Write([]byte(in)); n != len(in) || err != nil || b.String() != want {
			t.Errorf("%q became %q (%d, %v), want %q", in, b.String(), n, err, want)
		}
	}
}

func FuzzCleanWriter(f *testing.F) {
	f.Add([]byte("\x1b[1;31mred\x1b[0m\u009b x\x1b]0;t\x07"), 3)
	f.Add([]byte{0xc2, 0x1b, 0xc2, 0x9b, 0xc2}, 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var whole, parts bytes.Buffer
		if _, err := NewCleanWriter(&whole).Write(text); err != nil {
			t.Fatal(err)
		}
		w := NewCleanWriter(&parts)
		size := 1 + int(uint(cut)%7)
		for i := 0; i < len(text); i += size {
			if _, err := w.Write(text[i:min(i+size, len(text))]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(whole.Bytes(), parts.Bytes()) {
			t.Fatalf("%q in pieces of %d: %q, in one: %q", text, size, parts.Bytes(), whole.Bytes())
		}
		if utf8.Valid(whole.Bytes()) {
			for _, r := range whole.String() {
				if unicode.IsControl(r) && r != '\n' && r != '\t' {
					t.Fatalf("%q let %q through", text, r)
				}
			}
		}
	})
}

func TestFiguresForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1400 * time.Millisecond: "1s", 59 * time.Second: "59s", 130 * time.Second: "2m10s", 3*time.Hour + 5*time.Minute: "3h05m", 75 * time.Hour: "3d03h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 553_000: "540.0 KiB", 5 << 40: "5.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	if got := Fit("a long word", 5); got != "a lo~" {
		t.Errorf("Fit: %q", got)
	}
}

func TestNothingButATerminalGetsColour(t *testing.T) {
	var b bytes.Buffer
	o := To(&b)
	if o.TTY || o.Color || o.Styled(Bad, "x") != "x" {
		t.Errorf("a buffer is taken for a terminal: %+v", o)
	}
}
