package emerge

import (
	"bytes"
)

// normalEbuild is an ebuild without what no build depends on: comments, blank
// lines, trailing blanks, and the value of KEYWORDS (a stabilisation edits
// nothing else, and Portage goes on using the binary package). Where the text
// is not understood it stays as it is: one comment too many costs a build, a
// line of content too few hands out a wrong package.
func normalEbuild(text []byte) []byte {
	stripped, ok := stripComments(text)
	if !ok {
		return text
	}
	return stripped
}

// keywordsLine reports whether a line is one whole assignment of KEYWORDS.
func keywordsLine(l []byte) bool {
	v, ok := bytes.CutPrefix(bytes.TrimLeft(l, " \t"), []byte("KEYWORDS="))
	if !ok || len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return false
	}
	return !bytes.ContainsAny(v[1:len(v)-1], "\"`$;&|\\")
}

// shellScan walks a bash text and knows which bytes are comments. It follows
// quotes, $( ), ${ } and here-documents, and gives up on anything else that
// could hide a quote.
type shellScan struct {
	in    []byte
	i     int
	out   []byte
	line  int      // where in out this line, or the quote that hides its start, began
	stack []byte   // open constructs: '"' ')' '}'
	here  []hereIs // here-documents that begin at the next line
	bad   bool
}

type hereIs struct {
	word string
	tabs bool // <<-: leading tabs do not count
}

// stripComments removes comments, and of the lines that begin and end outside
// of every quote the blank ones, KEYWORDS and trailing blanks; ok is false if the end is not outside of
// every quote, so that the scan must have misread something.
func stripComments(text []byte) (stripped []byte, ok bool) {
	s := &shellScan{in: text, out: make([]byte, 0, len(text))}
	for s.i < len(s.in) && !s.bad {
		s.step()
	}
	s.endLine()
	if s.bad || len(s.stack) != 0 || len(s.here) != 0 {
		return nil, false
	}
	return s.out, true
}

func (s *shellScan) peek(n int) byte {
	if s.i+n < len(s.in) {
		return s.in[s.i+n]
	}
	return 0
}

func (s *shellScan) take(n int) {
	n = min(n, len(s.in)-s.i)
	s.out = append(s.out, s.in[s.i:s.i+n]...)
	s.i += n
}

func (s *shellScan) top() byte {
	if len(s.stack) == 0 {
		return 0
	}
	return s.stack[len(s.stack)-1]
}

func (s *shellScan) pop()        { s.stack = s.stack[:len(s.stack)-1] }
func (s *shellScan) push(b byte) { s.stack = append(s.stack, b); s.bad = s.bad || len(s.stack) > 64 }

// step takes one token.
func (s *shellScan) step() {
	c := s.in[s.i]
	quoted := s.top() == '"'
	switch {
	case c == '\\':
		s.take(2)
	case c == '"':
		if quoted {
			s.pop()
		} else {
			s.push('"')
		}
		s.take(1)
	case c == '`':
		s.bad = true // nesting by backslashes: not followed
	case c == '$' && s.peek(1) == '(':
		s.push(')')
		s.take(2)
		if s.peek(0) == '(' { // $(( )): one more pair
			s.push(')')
			s.take(1)
		}
	case c == '$' && s.peek(1) == '{':
		s.push('}')
		s.take(2)
		if s.peek(0) == '#' {
			s.take(1)
		}
	case c == '}' && s.top() == '}':
		s.pop()
		s.take(1)
	case s.top() == '}':
		// ${x#'pattern'}: single quotes inside may or may not quote.
		if c == '\'' {
			s.bad = true
		}
		s.take(1)
	case quoted:
		s.take(1)
	case c == '\'':
		s.single()
	case c == ')' && s.top() == ')':
		s.pop()
		s.take(1)
	case c == '(' && s.top() == ')':
		s.push(')')
		s.take(1)
	case c == '#' && s.wordStart():
		for s.i < len(s.in) && s.in[s.i] != '\n' {
			s.i++
		}
	case c == '<' && s.peek(1) == '<':
		s.heredoc()
	case c == '\n' && len(s.stack) == 0:
		s.endLine()
		if s.i++; len(s.out) > 0 && s.out[len(s.out)-1] != '\n' {
			s.out = append(s.out, '\n')
		}
		s.bodies()
		s.line = len(s.out)
	default:
		s.take(1)
	}
}

// endLine tidies the line that ends here, outside of every quote.
func (s *shellScan) endLine() {
	l := s.out[s.line:]
	trimmed := bytes.TrimRight(l, " \t\r")
	if bytes.HasSuffix(trimmed, []byte("\\")) {
		return // an escaped blank
	}
	if keywordsLine(trimmed) {
		trimmed = nil
	}
	s.out = s.out[:s.line+len(trimmed)]
}

func (s *shellScan) wordStart() bool {
	if len(s.out) == 0 {
		return true
	}
	switch s.out[len(s.out)-1] {
	case ' ', '\t', '\n', ';', '&', '|':
		return true
	}
	return false
}

// single takes a '...' or $'...' word.
func (s *shellScan) single() {
	escapes := s.i > 0 && s.in[s.i-1] == '$'
	for j := s.i + 1; j < len(s.in); j++ {
		switch {
		case escapes && s.in[j] == '\\':
			j++
		case s.in[j] == '\'':
			s.take(j + 1 - s.i)
			return
		}
	}
	s.bad = true
}

// heredoc reads "<<[-]WORD"; "<<<" is none, and "<<" inside $(( )) shifts.
func (s *shellScan) heredoc() {
	if s.peek(2) == '<' {
		s.take(3)
		return
	}
	if s.top() != 0 {
		s.bad = true // in $( ) or $(( )): not followed
		return
	}
	start := s.i
	s.take(2)
	h := hereIs{}
	if s.peek(0) == '-' {
		h.tabs = true
		s.take(1)
	}
	for s.peek(0) == ' ' || s.peek(0) == '\t' {
		s.take(1)
	}
	for s.i < len(s.in) {
		c := s.in[s.i]
		if c == '\'' || c == '"' || c == '\\' {
			s.take(1)
			continue
		}
		if !(c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			break
		}
		h.word += string(c)
		s.take(1)
	}
	if h.word == "" || s.i == start {
		s.bad = true
		return
	}
	s.here = append(s.here, h)
}

// bodies takes the here-documents that begin at this line, whole.
func (s *shellScan) bodies() {
	for len(s.here) > 0 {
		if s.i >= len(s.in) {
			return // unfinished: stripComments sees it
		}
		end := bytes.IndexByte(s.in[s.i:], '\n')
		n := len(s.in) - s.i
		if end >= 0 {
			n = end + 1
		}
		line := bytes.TrimSuffix(s.in[s.i:s.i+n], []byte("\n"))
		if s.here[0].tabs {
			line = bytes.TrimLeft(line, "\t")
		}
		if string(line) == s.here[0].word {
			s.here = s.here[1:]
		}
		s.take(n)
	}
}
