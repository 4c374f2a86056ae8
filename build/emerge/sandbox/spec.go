package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// ErrSetup is wrapped by every error about a sandbox that could not be put
// together: nothing ran in it.
var ErrSetup = errors.New("no sandbox")

// Spec says what runs, and in what.
type Spec struct {
	// Lower are the directories that the root is made of, the topmost first.
	// They are only read.
	Lower []string
	// Machine, if set, is the lowest of them: the machine's own root.
	Machine *Machine
	// Upper receives every change, Work is overlayfs's own; both are empty
	// directories of one file system (Upper may hold what an earlier run left).
	Upper, Work string
	// Mount is an empty directory, where the root is put together.
	Mount string
	// Binds are directories and files of the machine that are seen inside.
	Binds []Bind
	// Network leaves the machine's network in reach.
	Network bool
	Args    []string // the program, an absolute path inside, and its arguments
	Env     []string // all of its environment
	Dir     string   // its working directory, inside
	// Limits bound the whole run.
	Limits Limits
}

// Machine is the machine's own root as a layer, less what no program in a
// sandbox may see. It takes root.
type Machine struct {
	Hide  []string // directories that are seen empty, and files that are not seen
	Files []File   // what is seen instead
}

// File is a file that is seen in the place of the machine's own.
type File struct {
	Path string
	Data []byte
	Mode uint32
}

// Bind is one directory or file of the machine that is seen inside.
type Bind struct {
	Source string // absolute, outside
	Target string // absolute, inside; made if it is not there
	Write  bool
}

// Limits of a run; zero = none.
type Limits struct {
	MemoryBytes int64 // of all processes together
	Processes   int64
	Weight      int64 // share of the processor, 1 to 10000; 100 is everybody's
	// Own says that the control group of this process is there for the run
	// alone, so that limits may be set on it.
	Own bool
}

// Result is what a run came to.
type Result struct {
	// Exit is the program's exit code, or 128 and the number of the signal that
	// ended it.
	Exit int
	// Left names the processes that the program had left running.
	Left []string
	CPU  time.Duration // of all processes
	// PeakMiB is the most memory that was in use at once, where control groups
	// tell; else the most that one process had.
	PeakMiB int64
	// Crowded reports that the program was ended because for some seconds there
	// were as many processes as there may be.
	Crowded bool
	// OutOfMemory reports that the kernel ended processes for want of memory.
	OutOfMemory bool
}

func (s *Spec) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrSetup, fmt.Sprintf(format, args...))
	}
	if len(s.Lower) == 0 && s.Machine == nil || len(s.Lower) > 400 {
		return bad("%d lower directories, want 1 to 400", len(s.Lower))
	}
	if len(s.Args) == 0 {
		return bad("no program")
	}
	for _, p := range append([]string{s.Upper, s.Work, s.Mount}, s.Lower...) {
		if !filepath.IsAbs(p) {
			return bad("the directory %q is not absolute", p)
		}
	}
	if s.Machine != nil {
		for _, f := range s.Machine.Files {
			if !filepath.IsAbs(f.Path) {
				return bad("the file %q is not absolute", f.Path)
			}
		}
	}
	for _, b := range s.Binds {
		if !filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) || filepath.Clean(b.Target) != b.Target || b.Target == "/" {
			return bad("%q cannot be seen as %q", b.Source, b.Target)
		}
	}
	for _, e := range s.Env {
		if strings.ContainsRune(e, 0) {
			return bad("a zero byte in the environment")
		}
	}
	return nil
}

// order is what the caller tells init, as JSON.
type order struct {
	Spec
	Op      string // "" = run Args; else one of Main's operations, without a root
	Op1     string // its argument
	User    bool   // in a user namespace
	PIDMax  int64  // 0 = leave it
	MaxOpen uint64 // RLIMIT_NOFILE; 0 = leave it
}

// report is what init tells the caller, as JSON, before it ends.
type report struct {
	Error  string // the sandbox could not be put together
	Exit   int
	Left   []string
	CPUms  int64
	PeakMi int64
	// Crowded: there were as many processes as there may be.
	Crowded bool
}

// perUser is how many processes one user may have. It is less than what the
// namespace has, so that what watches over a program that forks without end, and
// is root, can still end it.
func (o *order) perUser() int64 { return o.PIDMax - min(o.PIDMax/4, 256) }
