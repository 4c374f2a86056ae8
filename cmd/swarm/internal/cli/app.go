// Package cli is the command line of swarm: it reads words, asks the daemon or
// is the daemon, and writes what comes back.
//
// Exit codes: 0 ok, 1 error, 2 usage, 3 partly done, 10 no daemon, 11 not
// found, 130 interrupted. Data goes to stdout, everything else to stderr. With
// --json the data is one document, and so is an error, on stderr.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// Exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitPartial     = 3
	exitUnreachable = 10
	exitNotFound    = 11
	exitInterrupted = 130
)

// usage makes an error of wrong words, with the command line that would be
// right where that is known.
func usage(hint, format string, args ...any) error {
	return &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// failure makes an error with a hint.
func failure(hint, format string, args ...any) error {
	return &control.Error{Kind: control.KindInternal, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// errPartial is returned when some of what was asked for was done.
var errPartial = errors.New("partly done")

// Main runs one command and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := newApp(stdin, stdout, stderr)
	err := app.RunContext(ctx, args)
	return report(ctx, err, slices.Contains(args, "--json"), stderr)
}

// report writes an error for people, or for programs, and finds the code.
func report(ctx context.Context, err error, asJSON bool, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errPartial) {
		return exitPartial
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return exitInterrupted
	}
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		e = &control.Error{Kind: control.KindInternal, Message: err.Error()}
	} else if err.Error() != e.Message {
		e = &control.Error{Kind: e.Kind, Message: err.Error(), Hint: e.Hint}
	}
	if asJSON {
		// stderr is all there is to tell it on.
		_ = json.NewEncoder(stderr).Encode(e)
	} else {
		fmt.Fprintf(stderr, "swarm: error: %s\n", render.Clean(strings.ReplaceAll(e.Message, "\n", "; ")))
		if e.Hint != "" {
			fmt.Fprintf(stderr, "swarm: hint: %s\n", render.Clean(e.Hint))
		}
	}
	switch e.Kind {
	case control.KindUsage:
		return exitUsage
	case control.KindNotFound:
		return exitNotFound
	case control.KindUnreachable:
		return exitUnreachable
	}
	return exitError
}

// env is what every command gets.
type env struct {
	in  io.Reader
	out render.Out
	err io.Writer
}

func (e *env) note(format string, args ...any) {
	// stderr is all there is to tell it on.
	_, _ = fmt.Fprintf(e.err, format+"\n", args...)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	e := &env{in: stdin, out: render.To(stdout), err: stderr}
	app := &cli.App{
		Name: "swarm", Usage: "share Gentoo package builds between your own machines",
		Version: version(), HideVersion: true, Reader: stdin, Writer: stdout, ErrWriter: stderr,
		Commands: []*cli.Command{
			initCmd(e), inviteCmd(e), joinCmd(e), runCmd(e), statusCmd(e), peersCmd(e), buildCmd(e), jobsCmd(e), logsCmd(e),
			portageCmd(e), demoCmd(e), versionCmd(e),
		},
		// Errors are written by report, once.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	app.OnUsageError = usageError
	app.Action = func(c *cli.Context) error {
		if c.Args().Present() {
			return unknown(app.Commands, c.Args().First())
		}
		return cli.ShowAppHelp(c)
	}
	for _, cmd := range app.Commands {
		guard(cmd, "swarm")
	}
	return app
}

func usageError(c *cli.Context, err error, _ bool) error {
	name := "swarm"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "swarm" {
		name = c.Command.HelpName
	}
	return usage(name+" --help", "%v", err)
}

// unknown names the command that was perhaps meant.
func unknown(cmds []*cli.Command, word string) error {
	best, dist := "", 3
	for _, c := range cmds {
		if d := distance(word, c.Name); d < dist {
			best, dist = c.Name, d
		}
	}
	if best != "" {
		return usage("did you mean: swarm "+best, "no command %q", word)
	}
	return usage("swarm --help lists the commands", "no command %q", word)
}

// guard closes the traps of urfave/cli v2 on a command and those below it: a
// flag after a positional argument would be swallowed, and usage errors would
// print help on stdout.
func guard(cmd *cli.Command, parent string) {
	full := parent + " " + cmd.Name
	cmd.OnUsageError = usageError
	cmd.HelpName = full
	for _, sub := range cmd.Subcommands {
		guard(sub, full)
	}
	if cmd.Action == nil {
		subs := cmd.Subcommands
		cmd.Action = func(c *cli.Context) error {
			if c.Args().Present() {
				return unknown(subs, c.Args().First())
			}
			return usage(full+" --help", "%s wants a command", full)
		}
		return
	}
	run := cmd.Action
	cmd.Action = func(c *cli.Context) error {
		args := c.Args().Slice()
		for i, a := range args {
			if a == "--" {
				break
			}
			if len(a) > 1 && strings.HasPrefix(a, "-") {
				return usage(strings.Join(append([]string{full}, reordered(args, i)...), " "), "the flag %s stands after an argument and would be ignored", a)
			}
		}
		return run(c)
	}
}

// reordered puts everything from the first misplaced flag on before the
// arguments, which is right whether or not the flag takes a value.
func reordered(args []string, i int) []string {
	return append(slices.Clone(args[i:]), args[:i]...)
}

// positional returns a command's arguments: at least low, at most high of them
// (high < 0: any number).
func positional(c *cli.Context, low, high int, names string) ([]string, error) {
	args := slices.DeleteFunc(c.Args().Slice(), func(a string) bool { return a == "--" })
	if len(args) < low || high >= 0 && len(args) > high {
		want := names
		if want == "" {
			want = "no arguments"
		}
		return nil, usage(c.Command.HelpName+" --help", "%s wants %s", c.Command.HelpName, want)
	}
	return args, nil
}

// distance is the edit distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
