// Package render writes for people and for pipes: tables that fit the
// terminal, plain tab-separated lines without one, and JSON.
//
// Everything from a package, a peer or a log has its control characters taken
// out before it reaches a terminal. Colour only on a terminal, never with
// NO_COLOR or TERM=dumb.
package render

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Out is where a command's data goes.
type Out struct {
	W     io.Writer
	TTY   bool
	Width int // columns; 80 where unknown
	Color bool
}

// To looks at a writer: a terminal gets tables and colour, anything else lines.
func To(w io.Writer) Out {
	o := Out{W: w, Width: 80}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return o
	}
	o.TTY = true
	if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 20 {
		o.Width = n
	}
	_, no := os.LookupEnv("NO_COLOR")
	o.Color = !no && os.Getenv("TERM") != "dumb"
	return o
}

// JSON writes one document.
func (o Out) JSON(v any) error {
	e := json.NewEncoder(o.W)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Printf writes data.
func (o Out) Printf(format string, args ...any) {
	// A closed pipe ends the program by itself; there is nothing else to do.
	_, _ = fmt.Fprintf(o.W, format, args...)
}

// Style is a meaning, not a colour.
type Style int

const (
	Plain Style = iota
	Good
	Warn
	Bad
	Dim
	Strong
)

// Styled marks text on a terminal with colour.
func (o Out) Styled(s Style, text string) string {
	if !o.Color || s == Plain {
		return text
	}
	code := map[Style]string{Good: "32", Warn: "33", Bad: "31", Dim: "2", Strong: "1"}[s]
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Table collects rows. The last column takes what width is left.
type Table struct {
	out    Out
	header []string
	rows   [][]cell
}

type cell struct {
	text  string
	style Style
}

// NewTable has a header, shown on a terminal only.
func (o Out) NewTable(header ...string) *Table { return &Table{out: o, header: header} }

// Row adds a row; a cell is a string, or made by Cell.
func (t *Table) Row(cells ...any) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case cell:
			row[i] = c
		default:
			row[i] = cell{text: Clean(fmt.Sprint(c))}
		}
	}
	t.rows = append(t.rows, row)
}

// Cell is text with a style.
func Cell(s Style, text string) any { return cell{Clean(text), s} }

// Flush writes the table.
func (t *Table) Flush() {
	if !t.out.TTY {
		for _, r := range t.rows {
			texts := make([]string, len(r))
			for i, c := range r {
				texts[i] = c.text
			}
			t.out.Printf("%s\n", strings.Join(texts, "\t"))
		}
		return
	}
	width := make([]int, len(t.header))
	for i, h := range t.header {
		width[i] = utf8.RuneCountInString(h)
	}
	for _, r := range t.rows {
		for i, c := range r {
			if i < len(width) {
				width[i] = max(width[i], utf8.RuneCountInString(c.text))
			}
		}
	}
	t.line(headerCells(t.header), width, Dim)
	for _, r := range t.rows {
		t.line(r, width, Plain)
	}
}

func headerCells(h []string) []cell {
	out := make([]cell, len(h))
	for i, s := range h {
		out[i] = cell{text: s}
	}
	return out
}

func (t *Table) line(r []cell, width []int, all Style) {
	var b strings.Builder
	left := t.out.Width
	for i, c := range r {
		if i > 0 {
			b.WriteString("  ")
			left -= 2
		}
		w := 0
		if i < len(width) && i < len(r)-1 {
			w = width[i]
		}
		text := c.text
		if t.out.Width > 0 {
			text = Fit(text, max(left, 1))
		}
		pad := max(0, w-utf8.RuneCountInString(text))
		style := c.style
		if all != Plain {
			style = all
		}
		b.WriteString(t.out.Styled(style, text))
		b.WriteString(strings.Repeat(" ", pad))
		left -= utf8.RuneCountInString(text) + pad
	}
	t.out.Printf("%s\n", strings.TrimRight(b.String(), " "))
}

// Fit cuts text to n columns, with a mark where it was cut.
func Fit(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	rs := []rune(s)
	return string(rs[:n-1]) + "~"
}

// Wrap breaks text into lines of at most n columns, between words where that is
// possible.
func Wrap(s string, n int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(s) {
		for n > 0 && utf8.RuneCountInString(w) > n { // longer than a line by itself
			if line != "" {
				out, line = append(out, line), ""
			}
			rs := []rune(w)
			out, w = append(out, string(rs[:n])), string(rs[n:])
		}
		switch {
		case line == "":
			line = w
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) <= n:
			line += " " + w
		default:
			out, line = append(out, line), w
		}
	}
	return append(out, line)
}

// Labeled writes a line that begins with a styled word. On a terminal a long
// one is broken, and stands behind the word.
func (o Out) Labeled(s Style, label, text string) {
	text = Clean(text)
	if !o.TTY {
		o.Printf("%s %s\n", label, text)
		return
	}
	indent := utf8.RuneCountInString(label) + 1
	for i, l := range Wrap(text, max(20, o.Width-indent)) {
		if i == 0 {
			o.Printf("%s %s\n", o.Styled(s, label), l)
		} else {
			o.Printf("%*s%s\n", indent, "", l)
		}
	}
}

// Clean takes control characters and escapes out of text for a terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
}

// CleanWriter passes text on without what could steer a terminal: escape
// sequences go as a whole, other control characters by themselves, also those
// that UTF-8 writes in two bytes. Newlines, tabs and all other text stay. A
// sequence may be cut anywhere between two writes.
type CleanWriter struct {
	W io.Writer

	state cleanState
}

// NewCleanWriter writes to w.
func NewCleanWriter(w io.Writer) *CleanWriter { return &CleanWriter{W: w} }

// cleanState is where in a sequence the last byte stood.
type cleanState int

const (
	inText   cleanState = iota
	inEscape            // after ESC
	inCSI               // after ESC [
	inString            // after ESC ] P X ^ _: up to BEL or ST
	inStringEscape
	inC2 // after the first byte of U+0080 to U+00BF
)

// Write always takes all of p.
func (c *CleanWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+1)
	for _, b := range p {
		out = c.step(out, b)
	}
	if _, err := c.W.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *CleanWriter) step(out []byte, b byte) []byte {
	switch c.state {
	case inEscape:
		switch {
		case b == '[':
			c.state = inCSI
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			c.state = inString
		case b >= 0x20 && b <= 0x2f: // an intermediate byte: one more follows
		default:
			c.state = inText
		}
		return out
	case inCSI:
		if b >= 0x40 && b <= 0x7e || b == '\n' {
			c.state = inText
		}
		return out
	case inString, inStringEscape:
		switch {
		case b == 0x07 || b == '\n' || c.state == inStringEscape && b == '\\':
			c.state = inText
		case b == 0x1b:
			c.state = inStringEscape
		default:
			c.state = inString
		}
		return out
	case inC2:
		c.state = inText
		if b >= 0x80 && b < 0xa0 {
			return out
		}
		if b >= 0xa0 && b < 0xc0 {
			return append(out, 0xc2, b)
		}
		// A first byte alone goes: with what comes later it could make a whole.
	}
	switch {
	case b == 0x1b:
		c.state = inEscape
	case b == 0xc2:
		c.state = inC2
	case b < 0x20 && b != '\n' && b != '\t', b == 0x7f:
	default:
		out = append(out, b)
	}
	return out
}

// Duration is short and for people: 4s, 2m10s, 3h05m.
func Duration(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Bytes is a size for people, in binary units.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for n/div >= unit && exp < 5 {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
