package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// assignment is one line of make.conf, as Portage reads it.
type assignment struct{ name, value string }

// assignments reads make.conf as Portage does (portage.util.getconfig): words as a
// shell has them, NAME=VALUE each; a value may go over lines while it is quoted.
// Variables in values are not replaced. A quote that nobody closes is an error, and
// to Portage, too: then it reads nothing of the file.
func assignments(text string) ([]assignment, error) {
	var out []assignment
	var word strings.Builder
	inWord, comment := false, false
	quote, opened, line := rune(0), 0, 1
	end := func() {
		if name, value, ok := strings.Cut(word.String(), "="); ok && inWord {
			out = append(out, assignment{strings.TrimPrefix(name, "export "), value})
		}
		word.Reset()
		inWord = false
	}
	escaped := false
	for _, c := range text {
		if c == '\n' {
			line++
		}
		switch {
		case comment:
			comment = c != '\n'
		case escaped:
			word.WriteRune(c)
			escaped = false
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, opened, inWord = c, line, true
		case c == '#' && !inWord:
			comment = true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			end()
		default:
			inWord = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote that line %d opens is never closed", opened)
	}
	end()
	return out, nil
}

// featuresIn adds what the FEATURES of a make.conf say to what was said before.
// The last assignment of a file counts, unless it takes up the ones before.
func featuresIn(list []assignment, before []string) []string {
	own := ""
	for _, a := range list {
		if a.name == "FEATURES" {
			own = strings.NewReplacer("${FEATURES}", own, "$FEATURES", own).Replace(a.value)
		}
	}
	out := slices.Clone(before)
	for _, f := range strings.Fields(own) {
		switch off, is := strings.CutPrefix(f, "-"); {
		case f == "-*":
			out = nil
		case is:
			out = slices.DeleteFunc(out, func(x string) bool { return x == off })
		default:
			out = append(out, f)
		}
	}
	return out
}

// getbinpkg reports whether the make.conf of a machine lets emerge ask binary hosts;
// Portage itself does not.
func (s *portageSetup) getbinpkg() (bool, error) {
	var on []string
	err := confFiles(s.makeConfBase(), func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		list, err := assignments(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		on = featuresIn(list, on)
		return nil
	})
	return slices.Contains(on, "getbinpkg"), err
}
