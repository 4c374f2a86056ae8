package binhost

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/build-swarm/swarm/build/release"
)

// ErrMalformed is wrapped by the errors of Parse.
var ErrMalformed = errors.New("malformed Packages index")

// Bounds of Parse.
const (
	maxIndex = 512 << 20
	maxLine  = 1 << 20
	maxLines = 512 // of a block
)

// Block is the header or one entry: values by name, as written.
type Block map[string]string

// Packages is an index as a client reads it.
type Packages struct {
	Header  Block
	Entries []Block
}

// Parse reads an index as Portage does: lines without a colon and entries
// without a CPV are passed over, an empty block ends it. It applies no
// defaults, and fails on what is not a whole index: no VERSION 0, no newline
// at the end, or beyond its bounds.
func Parse(r io.Reader) (*Packages, error) {
	br := bufio.NewReaderSize(io.LimitReader(r, maxIndex+1), 64<<10)
	p := &Packages{}
	var read int
	block := func() (Block, error) {
		b := Block{}
		for {
			line, err := readLine(br)
			read += len(line) + 1
			if err != nil {
				return b, err
			}
			if read > maxIndex || len(b) >= maxLines {
				return nil, fmt.Errorf("read index: %w: too large", ErrMalformed)
			}
			if line == "" {
				return b, nil
			}
			if name, value, ok := strings.Cut(line, ":"); ok {
				b[name] = strings.TrimPrefix(value, " ")
			}
		}
	}
	header, err := block()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if v := header["VERSION"]; v != "0" {
		return nil, fmt.Errorf("read index: %w: VERSION %.20q", ErrMalformed, v)
	}
	p.Header = header
	for err == nil {
		var b Block
		b, err = block()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if len(b) == 0 {
			break
		}
		if b["CPV"] == "" {
			continue
		}
		if len(p.Entries) >= release.MaxEntries {
			return nil, fmt.Errorf("read index: %w: more than %d entries", ErrMalformed, release.MaxEntries)
		}
		p.Entries = append(p.Entries, b)
	}
	return p, nil
}

// readLine reads one line without its newline. A last line without one is
// the mark of an index that was cut off.
func readLine(br *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := br.ReadSlice('\n')
		if len(long)+len(part) > maxLine {
			return "", fmt.Errorf("read index: %w: line longer than %d bytes", ErrMalformed, maxLine)
		}
		switch {
		case err == nil && long == nil:
			return string(part[:len(part)-1]), nil
		case err == nil:
			return string(append(long, part[:len(part)-1]...)), nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		case errors.Is(err, io.EOF) && len(part)+len(long) == 0:
			return "", io.EOF
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("read index: %w: cut off within a line", ErrMalformed)
		default:
			return "", fmt.Errorf("read index: %w", err)
		}
	}
}
