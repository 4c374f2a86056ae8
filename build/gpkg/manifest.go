package gpkg

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// sums is one line of the Manifest.
type sums struct {
	size            int64
	blake2b, sha512 [64]byte
}

const (
	signedBegin = "-----BEGIN PGP SIGNED MESSAGE-----"
	sigBegin    = "-----BEGIN PGP SIGNATURE-----"
	sigEnd      = "-----END PGP SIGNATURE-----"
)

// parseManifest reads "DATA name size HASH hex HASH hex" lines, the hashes in
// either order (Portage writes them in random order), clear-signed or not.
// Hashes of other names are ignored; BLAKE2B and SHA512 must both be there.
func parseManifest(b []byte) (entries map[string]*sums, signed bool, err error) {
	text := string(b)
	if strings.HasPrefix(text, signedBegin) {
		if text, err = clearText(text); err != nil {
			return nil, false, err
		}
		signed = true
	}
	entries = make(map[string]*sums)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if f[0] != "DATA" || len(f) < 3 || len(f)%2 == 0 || len(f) > 15 {
			return nil, false, damaged("Manifest line %s", quote(line))
		}
		name := f[1]
		if !plainName(name) {
			return nil, false, damaged("Manifest names %s", quote(name))
		}
		if entries[name] != nil {
			return nil, false, damaged("Manifest lists %s twice", quote(name))
		}
		if len(entries) == maxContainerMembers {
			return nil, false, damaged("Manifest lists more than %d members", maxContainerMembers)
		}
		if !isNumber(f[2]) {
			return nil, false, damaged("Manifest: size %s of %s", quote(f[2]), name)
		}
		s := new(sums)
		if s.size, err = strconv.ParseInt(f[2], 10, 64); err != nil {
			return nil, false, damaged("Manifest: size %s of %s", quote(f[2]), name)
		}
		if err := s.readHashes(name, f[3:]); err != nil {
			return nil, false, err
		}
		entries[name] = s
	}
	return entries, signed, nil
}

// readHashes reads pairs of a hash's name and its hex digits.
func (s *sums) readHashes(name string, pairs []string) error {
	var seen [2]bool
	for i := 0; i+1 < len(pairs); i += 2 {
		var into *[64]byte
		var which int
		switch pairs[i] {
		case "BLAKE2B":
			into, which = &s.blake2b, 0
		case "SHA512":
			into, which = &s.sha512, 1
		default:
			continue
		}
		if seen[which] {
			return damaged("Manifest: %s of %s twice", pairs[i], name)
		}
		seen[which] = true
		if len(pairs[i+1]) != 128 {
			return damaged("Manifest: %s of %s has %d digits", pairs[i], name, len(pairs[i+1]))
		}
		if _, err := hex.Decode(into[:], []byte(pairs[i+1])); err != nil {
			return damaged("Manifest: %s of %s is not hex", pairs[i], name)
		}
	}
	if !seen[0] || !seen[1] {
		return damaged("Manifest: %s lacks BLAKE2B or SHA512", name)
	}
	return nil
}

// clearText takes the signed text out of an OpenPGP clear-signed message (RFC
// 9580, 7). It must be the whole of the file: text before or after would look
// signed without being it.
func clearText(text string) (string, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	body, after, ok := strings.Cut(text, "\n"+sigBegin+"\n")
	if !ok {
		return "", damaged("signed Manifest without a signature")
	}
	if _, rest, ok := strings.Cut(after, sigEnd); !ok || strings.TrimSpace(rest) != "" {
		return "", damaged("signed Manifest: text after its signature")
	}
	// The armor header ends at the first empty line.
	_, body, ok = strings.Cut(body+"\n", "\n\n")
	if !ok {
		return "", damaged("signed Manifest without text")
	}
	return strings.ReplaceAll("\n"+body, "\n- ", "\n"), nil
}

// hasher computes both hashes at once.
type hasher struct {
	blake2b, sha512 hash.Hash
	n               int64
}

func newHasher() (*hasher, error) {
	b, err := blake2b.New512(nil)
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &hasher{blake2b: b, sha512: sha512.New()}, nil
}

// Write never fails.
func (h *hasher) Write(p []byte) (int, error) {
	h.blake2b.Write(p)
	h.sha512.Write(p)
	h.n += int64(len(p))
	return len(p), nil
}

// check compares what was written with the Manifest's line.
func (h *hasher) check(name string, want *sums) error {
	switch {
	case h.n != want.size:
		return damaged("member %s has %d bytes, the Manifest says %d", quote(name), h.n, want.size)
	case !bytes.Equal(h.sha512.Sum(nil), want.sha512[:]):
		return damaged("member %s does not have the SHA512 of the Manifest", quote(name))
	case !bytes.Equal(h.blake2b.Sum(nil), want.blake2b[:]):
		return damaged("member %s does not have the BLAKE2B of the Manifest", quote(name))
	}
	return nil
}

// line is the Manifest's line for what was written.
func (h *hasher) line(name string) string {
	return fmt.Sprintf("DATA %s %d BLAKE2B %x SHA512 %x\n", name, h.n, h.blake2b.Sum(nil), h.sha512.Sum(nil))
}

// verify hashes the whole member and compares.
func (m *member) verify(ctx context.Context) error {
	h, err := newHasher()
	if err != nil {
		return err
	}
	if _, err := m.data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read %s: %w", m.name, err)
	}
	if _, err := io.Copy(h, &ctxReader{ctx: ctx, r: m.data}); err != nil {
		return fmt.Errorf("read %s: %w", m.name, err)
	}
	return h.check(m.name, m.sums)
}
