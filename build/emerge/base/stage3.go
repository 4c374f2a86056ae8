package base

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Keyring is where Gentoo keeps the keys that sign its stages.
const Keyring = "/usr/share/openpgp-keys/gentoo-release.asc"

var (
	// ErrUnsigned is wrapped where a stage has no signature, or nobody said by
	// whose key.
	ErrUnsigned = errors.New("not signed")
	// ErrSignature is wrapped where a signature does not hold.
	ErrSignature = errors.New("bad signature")
)

// Stage is a stage archive as a person names it.
type Stage struct {
	File      string // .tar, .tar.xz, .tar.zst or .tar.gz
	Signature string // detached; "" = File with .asc or .sig
	Keyring   string // "" = Keyring
	Unsigned  bool   // takes an archive without looking for a signature
}

// maxStage bounds what a stage may unpack to: 64 GiB.
const maxStage = 64 << 30

// unpack checks the signature of a stage and unpacks it into dir. The bytes
// that are unpacked are those whose signature held.
func (s Stage) unpack(ctx context.Context, dir string) (source string, err error) {
	f, err := os.Open(s.File)
	if err != nil {
		return "", fmt.Errorf("open stage: %w", err)
	}
	defer f.Close()
	source = filepath.Base(s.File) + ", not signed"
	checked := sha256.New()
	if !s.Unsigned {
		signer, err := s.verify(io.TeeReader(f, checked))
		if err != nil {
			return "", fmt.Errorf("check signature of %s: %w", s.File, err)
		}
		source = filepath.Base(s.File) + ", signed by " + signer
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("read stage: %w", err)
		}
	}
	read := sha256.New()
	r := io.TeeReader(f, read)
	err = decompress(ctx, r, func(plain io.Reader) error { return UnpackTar(ctx, plain, dir, maxStage) })
	if err != nil {
		return "", fmt.Errorf("read stage %s: %w", s.File, err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return "", fmt.Errorf("read stage: %w", err)
	}
	if !s.Unsigned && !bytes.Equal(checked.Sum(nil), read.Sum(nil)) {
		return "", fmt.Errorf("read stage %s: it changed while it was read: %w", s.File, ErrSignature)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/emerge")); err != nil {
		return "", fmt.Errorf("read stage %s: it has no usr/bin/emerge: is it a stage3 of Gentoo?", s.File)
	}
	return source, nil
}

// verify checks the detached signature and says whose it is.
func (s Stage) verify(stage io.Reader) (signer string, err error) {
	sig := s.Signature
	if sig == "" {
		for _, suffix := range []string{".asc", ".sig"} {
			if _, err := os.Stat(s.File + suffix); err == nil {
				sig = s.File + suffix
			}
		}
	}
	if sig == "" {
		return "", fmt.Errorf("%w: no %s.asc beside it", ErrUnsigned, filepath.Base(s.File))
	}
	keyring := s.Keyring
	if keyring == "" {
		keyring = Keyring
	}
	keys, err := readKeys(keyring)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(sig)
	if err != nil {
		return "", fmt.Errorf("read signature: %w", err)
	}
	check := openpgp.CheckDetachedSignature
	if bytes.Contains(text, []byte("-----BEGIN PGP SIGNATURE-----")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	who, err := check(keys, stage, bytes.NewReader(text), nil)
	if err != nil {
		return "", fmt.Errorf("%w by %s: %w", ErrSignature, filepath.Base(sig), err)
	}
	return fmt.Sprintf("%X", who.PrimaryKey.Fingerprint), nil
}

func readKeys(file string) (openpgp.EntityList, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: no keys to check it with: %w", ErrUnsigned, err)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	if err != nil {
		if keys, err = openpgp.ReadKeyRing(bytes.NewReader(b)); err != nil {
			return nil, fmt.Errorf("read keys %s: %w", file, err)
		}
	}
	return keys, nil
}

// decompress hands the plain content of r to use, by what its first bytes say
// it is. xz is left to the program, which every machine with stages has.
func decompress(ctx context.Context, r io.Reader, use func(io.Reader) error) error {
	head := make([]byte, 6)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	whole := io.MultiReader(bytes.NewReader(head[:n]), r)
	switch {
	case bytes.Equal(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return unxz(ctx, whole, use)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(whole, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		return use(z)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(whole)
		if err != nil {
			return err
		}
		return use(z)
	}
	return use(whole)
}

func unxz(ctx context.Context, r io.Reader, use func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "xz", "-dc", "-T0")
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = r, &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: install xz-utils, or recompress the archive by zstd", err)
	}
	err = use(out)
	if err != nil {
		cancel()
	} else if _, err = io.Copy(io.Discard, out); err != nil {
		cancel()
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("xz: %w: %s", werr, bytes.TrimSpace(said.Bytes()))
	}
	return err
}
