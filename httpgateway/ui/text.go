package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// plainText passes HTML on with every character that is not to be seen, or that
// moves others about, shown by name: control characters but tab and newline,
// escapes, bidirectional marks and overrides, line separators, what is no UTF-8.
// It keeps markup as it is, so it can stand behind any template.
type plainText struct {
	w    io.Writer
	rest []byte // the beginning of a character whose end has not come yet
}

// Write filters. What is left at the end of a page is no character and is lost.
func (p *plainText) Write(b []byte) (int, error) {
	n := len(b)
	if len(p.rest) > 0 {
		b = append(p.rest, b...)
		p.rest = nil
	}
	start := 0
	for i := 0; i < len(b); {
		if c := b[i]; c >= 0x20 && c < 0x7f || c == '\n' || c == '\t' {
			i++
			continue
		}
		if !utf8.FullRune(b[i:]) {
			p.rest = append(p.rest, b[i:]...)
			b = b[:i]
			break
		}
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 || unseen(r) {
			if _, err := p.w.Write(b[start:i]); err != nil {
				return 0, err
			}
			if _, err := io.WriteString(p.w, named(r, size)); err != nil {
				return 0, err
			}
			start = i + size
		}
		i += size
	}
	if start < len(b) {
		if _, err := p.w.Write(b[start:]); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// unseen reports characters that a reader cannot see or that change how others
// are shown.
func unseen(r rune) bool {
	switch {
	case r < 0x20, r == 0x7f, r >= 0x80 && r < 0xa0, r == '\u061c', r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e,
		r >= 0x2060 && r <= 0x206f, r == '\ufeff', r >= 0xfff9 && r <= 0xfffb, r >= 0xe0000 && r <= 0xe007f:
		return true
	}
	return false
}

func named(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size == 1:
		return "\ufffd"
	case r < 0x20:
		return string('\u2400' + r) // a picture of it
	case r == 0x7f:
		return "\u2421"
	}
	return fmt.Sprintf("[U+%04X]", r)
}

// stripEscapes takes the terminal sequences out of a line: colours of a
// compiler, titles, cursor movements. What is left of a broken one is shown by
// plainText.
func stripEscapes(s string) string {
	if strings.IndexByte(s, 0x1b) < 0 {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, 0x1b)
		if i < 0 || i+1 >= len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		n := escape(s[i:])
		if n == 0 {
			b.WriteByte(0x1b)
			n = 1
		}
		s = s[i+n:]
	}
}

// escape is the length of the sequence that s begins with, 0 if it is none.
func escape(s string) int {
	switch s[1] {
	case '[': // CSI: parameters, intermediates, one final byte
		for i := 2; i < len(s); i++ {
			if c := s[i]; c >= 0x40 && c <= 0x7e {
				return i + 1
			} else if c < 0x20 || c > 0x3f {
				return 0
			}
		}
	case ']', 'P', '_', '^': // OSC, DCS and so on: up to BEL or ST
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
	case '(', ')':
		if len(s) > 2 {
			return 3
		}
	case 'c', '7', '8', 'M', '=', '>':
		return 2
	}
	return 0
}

// clip shortens a string to about max bytes and says what is left out.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	cut := max
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s … (%s more on this line)", s[:cut], size(int64(len(s)-cut)))
}
