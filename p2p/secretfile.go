package p2p

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxSecretFile bounds key files, in bytes: all of them are below 400.
const maxSecretFile = 16 << 10

// ErrExposed: a secret file may be read by others than its owner.
var ErrExposed = errors.New("readable by others")

// readSecret reads a key file that only its owner may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is %w (mode %04o): run chmod 600 on it", path, ErrExposed, st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSecretFile {
		return nil, fmt.Errorf("%s: %w of %d bytes", path, ErrTooLarge, maxSecretFile)
	}
	return b, nil
}

// writeSecret creates path with mode 0600, durable on return, and whole or not
// at all. An existing file is fs.ErrExist and stays as it is.
func writeSecret(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // 0600 by CreateTemp's contract
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Link, not rename: rename would replace what is there.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
