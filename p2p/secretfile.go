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
	tmp, err := writeTemp(filepath.Dir(path), b)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// Link, not rename: rename would replace what is there.
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp makes a durable file of mode 0600 with a name of its own in dir.
func writeTemp(dir string, b []byte) (string, error) {
	f, err := os.CreateTemp(dir, ".new-*") // 0600 by CreateTemp's contract
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
