package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/ipfs/go-cid"
)

// A disk that cannot read a blob is no reason to ask it again and again: the
// blob is lost here, somebody is told, and a new copy heals it.
func TestADiskThatCannotReadABlobLosesItAndANewCopyHeals(t *testing.T) {
	unreadable := func(string) (*os.File, error) { return os.Open("/proc/self/mem") } // opens, and gives EIO
	for name, c := range map[string]struct {
		read  func(string) (*os.File, error)
		touch func(s *Store, c cid.Cid) error
	}{
		"when it opens the blob": {
			func(path string) (*os.File, error) {
				return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EIO}
			},
			func(s *Store, c cid.Cid) error { _, err := s.Open(c); return err },
		},
		"when the blob is verified":              {unreadable, func(s *Store, c cid.Cid) error { return s.Check(t.Context(), c) }},
		"when the blob is opened after a change": {unreadable, func(s *Store, c cid.Cid) error { _, err := s.Open(c); return err }},
		"when an open blob is read": {nil, func(s *Store, c cid.Cid) error {
			b, err := s.Open(c)
			if err != nil {
				return err
			}
			bad, err := unreadable("")
			if err != nil {
				return err
			}
			b.(*blob).file = &hotFile{f: bad, refs: 1}
			_, err = b.ReadAt(make([]byte, 10), 0)
			return errors.Join(err, b.Close())
		}},
		"when its file is sent": {nil, func(s *Store, c cid.Cid) error {
			b, err := s.Open(c)
			if err != nil {
				return err
			}
			err = &os.SyscallError{Syscall: "sendfile", Err: syscall.EIO}
			b.(interface{ Failed(error) }).Failed(err)
			return errors.Join(err, b.Close())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat("/proc/self/mem"); err != nil {
				t.Skip("needs a file that gives EIO:", err)
			}
			var told []cas.Info
			disk := &faulty{osFiles: newOSFiles(), before: func(string, string) error { return nil }}
			s, err := openWith(t.TempDir(), quiet(Options{OnCorrupt: func(i cas.Info) { told = append(told, i) }}), disk)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			data := castest.Blob(500_000, 1)
			id := put(t, s, data)
			disk.read = c.read
			if err := c.touch(s, id); !errors.Is(err, syscall.EIO) {
				t.Fatalf("error is %v, want EIO", err)
			}
			disk.read = nil
			if _, err := s.Open(id); !errors.Is(err, cas.ErrNotFound) {
				t.Errorf("Open afterwards = %v, want ErrNotFound", err)
			}
			if len(told) != 1 || told[0] != (cas.Info{CID: id, Size: 500_000}) {
				t.Errorf("told of %v", told)
			}
			put(t, s, data)
			b, err := s.Open(id)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the new copy reads %d bytes, %v", len(got), err)
			}
		})
	}
}

// Any other error says nothing of the blob.
func TestAnErrorThatIsNotTheDisksLosesNothing(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, []byte("blob"))
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, err := range []error{syscall.EPIPE, os.ErrDeadlineExceeded, syscall.EMFILE} {
		b.(*blob).Failed(err)
	}
	if _, err := s.Stat(c); err != nil {
		t.Error(err)
	}
}

func fileOf(t *testing.T, s *Store, c cid.Cid) (*os.File, func()) {
	t.Helper()
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*blob).File(), func() { _ = b.Close() }
}

// later moves the store's clock past lookAgain, until what it returns is called.
func later(s *Store) func() {
	now := s.opts.Now
	s.opts.Now = func() time.Time { return now().Add(lookAgain) }
	return func() { s.opts.Now = now }
}

func closed(f *os.File) bool {
	_, err := f.Stat()
	return errors.Is(err, os.ErrClosed)
}

func TestABlobThatIsReadAgainIsNotOpenedAgain(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, castest.Blob(100_000, 1))
	one, done1 := fileOf(t, s, c)
	two, done2 := fileOf(t, s, c)
	done1()
	done2()
	three, done3 := fileOf(t, s, c)
	if one != two || two != three || closed(three) {
		t.Error("the file was opened again")
	}
	done3()
}

// Two readers of one file do not move each other.
func TestReadersOfOneFileHaveTheirOwnPlace(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, []byte("0123456789"))
	a, err1 := s.Open(c)
	b, err2 := s.Open(c)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(a, buf); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); string(got) != "0123456789" || err != nil {
		t.Errorf("the second reader got %q, %v", got, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Read(buf); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed blob reads %v", err)
	}
	if err := a.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

func TestABlobThatLeavesTheStoreIsClosed(t *testing.T) {
	for name, leave := range map[string]func(s *Store, c cid.Cid) error{
		"deleted": func(s *Store, c cid.Cid) error { return s.Delete(c) },
		"quarantined": func(s *Store, c cid.Cid) error {
			flip(t, blobPath(t, s, c), 5)
			if err := s.Check(t.Context(), c); !errors.Is(err, cas.ErrCorrupt) {
				return errors.New("the flipped bit was not found")
			}
			return nil
		},
		"removed by somebody": func(s *Store, c cid.Cid) error {
			defer later(s)()
			if err := os.Remove(blobPath(t, s, c)); err != nil {
				return err
			}
			if _, err := s.Open(c); !errors.Is(err, cas.ErrNotFound) {
				return errors.New("a file without a name is still served")
			}
			return nil
		},
		"the store is closed": func(s *Store, c cid.Cid) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.TempDir(), quiet(Options{}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := put(t, s, castest.Blob(100_000, 1))
			f, done := fileOf(t, s, c)
			if err := leave(s, c); err != nil {
				t.Fatal(err)
			}
			if closed(f) {
				t.Error("closed under its reader")
			}
			done()
			if !closed(f) {
				t.Error("still open: its room on the disk is not given back")
			}
		})
	}
}

func TestAChangedFileIsVerifiedThoughItIsOpen(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	c := put(t, s, castest.Blob(100_000, 1))
	_, done := fileOf(t, s, c)
	done()
	path := blobPath(t, s, c)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[7]++
	if err := os.WriteFile(path, data, 0o600); err != nil { // with a new mtime, unlike flip
		t.Fatal(err)
	}
	defer later(s)()
	if _, err := s.Open(c); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("Open = %v, want ErrCorrupt", err)
	}
}

func TestOpenFilesAreBounded(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	var first *os.File
	for i := range maxHot + 10 {
		c := put(t, s, []byte{byte(i), byte(i >> 8)})
		f, done := fileOf(t, s, c)
		done()
		if i == 0 {
			first = f
		}
	}
	if len(s.hot) != maxHot || !closed(first) {
		t.Errorf("%d files are open, want %d and not the oldest", len(s.hot), maxHot)
	}
}
