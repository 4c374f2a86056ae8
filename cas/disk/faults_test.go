package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/cas/castest"
	"github.com/ipfs/go-cid"
)

// work is what faults are put into: each way into and out of a store. It tells
// ack each blob that was acknowledged, and gone each one before its deletion,
// and goes on after errors.
func work(s *Store, ack, gone func(cid.Cid)) (errs []error) {
	note := func(c cid.Cid, err error) {
		if err != nil {
			errs = append(errs, err)
		} else {
			ack(c)
		}
	}
	for i, size := range []int{300_000, 100, 70_000} {
		info, err := s.Put(context.Background(), bytes.NewReader(castest.Blob(size, byte(i))), cid.Undef)
		note(info.CID, err)
	}
	data := castest.Blob(200_000, 7)
	note(cas.Sum(data), assemble(s, data))
	first := cas.Sum(castest.Blob(100, 1))
	gone(first)
	if err := s.Delete(first); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// assemble stores data by its groups.
func assemble(s *Store, data []byte) error {
	size := int64(len(data))
	p, err := s.Assemble(cas.Sum(data), size)
	if err != nil {
		return err
	}
	n := cas.Groups(size)
	for i := range n {
		d := data[i*cas.GroupSize : min((i+1)*cas.GroupSize, size)]
		if err := p.WriteGroup(cas.Group{Index: i, Data: d, Hash: cas.HashGroup(d, i, n == 1)}); err != nil {
			return errors.Join(err, p.Abort())
		}
	}
	_, err = p.Commit()
	return err
}

// audit checks that a store holds the acknowledged blobs, that each one it
// holds is whole, and that nothing else lies about.
func audit(t *testing.T, s *Store, acked map[cid.Cid]bool) {
	t.Helper()
	for c := range acked {
		if _, err := s.Stat(c); err != nil {
			t.Errorf("an acknowledged blob is lost: %v", err)
		}
	}
	for info := range s.All() {
		b, err := s.Open(info.CID)
		if err != nil {
			t.Errorf("a blob that is held cannot be opened: %v", err)
			continue
		}
		got, err := io.ReadAll(b)
		if err != nil || cas.Sum(got) != info.CID {
			t.Errorf("wrong bytes were served: %v", err)
		}
		if err := castest.Slice(io.Discard, s, info.CID, cas.Suffix, 1); err != nil {
			t.Errorf("slice: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if l := litter(t, s); len(l) > 0 {
		t.Errorf("litter: %v", l)
	}
}

func TestAFullDiskLeavesNoLitterAndRecovers(t *testing.T) {
	const size, step = 1_000_000, cas.GroupSize
	data := castest.Blob(size, 1)
	for room := int64(0); room <= size+step; room += step {
		left := room
		fs := &faulty{osFiles: newOSFiles(), before: func(string, string) error { return nil }, room: &left}
		s, err := openWith(t.TempDir(), Options{}, fs)
		if err != nil {
			t.Fatal(err)
		}
		for how, f := range map[string]func() error{
			"put":      func() error { _, err := s.Put(t.Context(), bytes.NewReader(data), cid.Undef); return err },
			"assemble": func() error { return assemble(s, data) },
		} {
			left = room
			err := f()
			if err != nil && !errors.Is(err, cas.ErrFull) {
				t.Fatalf("%s with room for %d: %v, want ErrFull", how, room, err)
			}
			if err == nil && room < size {
				t.Fatalf("%s of %d bytes into %d succeeds", how, size, room)
			}
			if err != nil {
				audit(t, s, nil)
				if u, err := s.Usage(); err != nil || u.Bytes != 0 {
					t.Fatalf("%s with room for %d: Usage = %+v, %v", how, room, u, err)
				}
			}
			left = 10 * size
			if err := f(); err != nil {
				t.Fatalf("%s when there is room again: %v", how, err)
			}
			audit(t, s, map[cid.Cid]bool{cas.Sum(data): true})
			if err := s.Delete(cas.Sum(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Any single call fails, once: the store says so, stays whole and goes on.
func TestAnIOErrorAtAnyCallHarmsNothingElse(t *testing.T) {
	boom := errors.New("boom")
	for k, last := 0, false; !last; k += stride(2) {
		n, armed, hit := 0, true, ""
		fs := &faulty{osFiles: newOSFiles(), before: func(call, path string) error {
			n++
			if armed && n == k+1 {
				hit = call + " " + filepath.Base(path)
				return boom
			}
			return nil
		}}
		dir := t.TempDir()
		s, err := openWith(dir, Options{}, fs)
		if err != nil {
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
			continue
		}
		acked := map[cid.Cid]bool{}
		errs := work(s, func(c cid.Cid) { acked[c] = true }, func(c cid.Cid) { delete(acked, c) })
		last = hit == ""
		for _, err := range errs {
			if !errors.Is(err, boom) {
				t.Errorf("fault %d (%s): %v", k, hit, err)
			}
		}
		armed = false
		for c := range acked {
			if _, err := s.Stat(c); err != nil {
				t.Errorf("fault %d (%s): an acknowledged blob is lost: %v", k, hit, err)
			}
		}
		if l := litter(t, s); len(l) > 0 && !strings.HasPrefix(hit, "remove") {
			t.Errorf("fault %d (%s): litter: %v", k, hit, l)
		}
		if s.reserved != 0 {
			t.Errorf("fault %d (%s): %d bytes are reserved", k, hit, s.reserved)
		}
		if errs := work(s, func(c cid.Cid) { acked[c] = true }, func(c cid.Cid) { delete(acked, c) }); len(errs) > 0 {
			t.Errorf("after fault %d (%s): %v", k, hit, errs)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		// A failed remove may leave a file; the next start takes it away.
		if s, err = Open(dir, quiet(Options{})); err != nil {
			t.Fatal(err)
		}
		audit(t, s, acked)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

// killAt is the environment variable that makes this test binary the victim of
// TestAKillAtAnyCallLosesNothing: the number of the call that it dies in.
const killAt = "CAS_DISK_TEST_KILL_AT"

// roundsEnv is how often all kills are gone through; set, every
// call gets its fault in the other tests too. 25 are a thousand kills.
const roundsEnv = "CAS_DISK_TEST_ROUNDS"

func TestMain(m *testing.M) {
	if at := os.Getenv(killAt); at != "" {
		k, err := strconv.Atoi(at)
		if err == nil {
			err = victim(os.Args[1], k)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// stride is how many calls lie between two that get a fault: n, or 1 where there
// is time. The work repeats itself, so that each step of the protocol gets one.
func stride(n int) int {
	if os.Getenv(roundsEnv) != "" {
		return 1
	}
	return n
}

// victim works in a store and kills itself before its k-th change to the file
// system; changes by write are half done then.
func victim(dir string, k int) error {
	fs := &faulty{osFiles: newOSFiles(), before: func(string, string) error {
		if k--; k < 0 {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}}
	s, err := openWith(dir, Options{}, fs)
	if err != nil {
		return err
	}
	errs := work(s, func(c cid.Cid) { fmt.Println("ack", c) }, func(c cid.Cid) { fmt.Println("gone", c) })
	return errors.Join(append(errs, s.Close())...)
}

// Each call is killed once; roundsEnv repeats it. Every second kill
// finds the directory that the last one left.
func TestAKillAtAnyCallLosesNothing(t *testing.T) {
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv(roundsEnv)); err == nil {
		rounds = n
	}
	kills := 0
	for range rounds {
		dir, acked := t.TempDir(), map[cid.Cid]bool{}
		for k, done := 0, false; !done; k++ {
			if k%2 == 0 {
				dir, acked = t.TempDir(), map[cid.Cid]bool{}
			}
			cmd := exec.Command(os.Args[0], dir)
			cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(k))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			done = err == nil
			if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !done && (!ok || st.Signal() != syscall.SIGKILL) {
				t.Fatalf("kill %d: %v: %s", k, err, stderr.String())
			}
			kills++
			for line := range strings.Lines(string(out)) {
				word, text, _ := strings.Cut(strings.TrimSpace(line), " ")
				c, err := cas.Parse(text)
				if err != nil {
					t.Fatalf("kill %d: the victim says %q", k, line)
				}
				if word == "ack" {
					acked[c] = true
				} else {
					delete(acked, c)
				}
			}
			s, err := Open(dir, quiet(Options{}))
			if err != nil {
				t.Fatalf("kill %d: %v", k, err)
			}
			abandonPartials(t, s)
			audit(t, s, acked)
			// Closed in disorder, as the victim was, to be found by the next.
			if err := s.lock.Close(); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				t.Fatalf("kill %d", k)
			}
		}
	}
	t.Logf("%d kills", kills)
}

// abandonPartials aborts what was kept to be resumed, which is no litter.
func abandonPartials(t *testing.T, s *Store) {
	t.Helper()
	for c, size := range s.partials {
		p, err := s.Assemble(c, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Abort(); err != nil {
			t.Fatal(err)
		}
	}
}
