package sample

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed src
var sources embed.FS

// sourceFile is one file of a package's sources.
type sourceFile struct {
	name string // below the work directory
	data []byte
}

// sourcesOf reads a package's files and common.sh, sorted by name.
func sourcesOf(name string) ([]sourceFile, error) {
	var out []sourceFile
	add := func(p, as string) error {
		b, err := sources.ReadFile(p)
		if err != nil {
			return fmt.Errorf("read embedded source of %s: %w", name, err)
		}
		out = append(out, sourceFile{as, b})
		return nil
	}
	if err := add("src/common.sh", "common.sh"); err != nil {
		return nil, err
	}
	dir := path.Join("src", name)
	entries, err := fs.ReadDir(sources, dir)
	if err != nil {
		return nil, fmt.Errorf("read embedded sources of %s: %w", name, err)
	}
	for _, e := range entries {
		if err := add(path.Join(dir, e.Name()), e.Name()); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b sourceFile) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// sourceDigest names what a package is made from.
func sourceDigest(name string) (string, error) {
	files, err := sourcesOf(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		sum := sha256.Sum256(f.data)
		fmt.Fprintf(h, "%s %x\n", f.name, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
