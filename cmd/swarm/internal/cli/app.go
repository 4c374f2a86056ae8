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

	"github.com/build-swarm/swarm/build/emerge/base"
	"github.com/build-swarm/swarm/build/emerge/sandbox"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/node"
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
	// Before anything else: this process may be init of a build's sandbox.
	if code, hidden := sandbox.Main(args, base.Ops()); hidden {
		return code
	}
	e := &env{in: stdin, out: render.To(stdout), err: stderr}
	return e.run(args, stdin, stdout, stderr)
}

func (e *env) run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e.args = args
	app := newApp(e, stdin, stdout, stderr)
	err := app.RunContext(ctx, args)
	return report(ctx, err, wantsJSON(args), stderr)
}

// wantsJSON looks for --json itself: the command line may be too wrong to be
// parsed, and its error has to be JSON then, too.
func wantsJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--json", "-json", "--json=true", "-json=true":
			return true
		}
	}
	return false
}

// report writes an error for people, or for programs, and finds the code.
func report(ctx context.Context, err error, asJSON bool, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errUnwell) {
		return exitError // the list has said what
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
	args []string // as typed
	in   io.Reader
	out  render.Out
	err  io.Writer
	// adjust changes a daemon before it is made; nil but in tests.
	adjust func(*node.Config)
	wait   *render.Waiting // what is shown of a command's progress, or nil
}

func (e *env) note(format string, args ...any) {
	if e.wait != nil {
		e.wait.Pause()
	}
	// stderr is all there is to tell it on.
	_, _ = fmt.Fprintf(e.err, format+"\n", args...)
}

func newApp(e *env, stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name: "swarm", Usage: "share Gentoo package builds between your own machines",
		Version: version(), HideVersion: true, Reader: stdin, Writer: stdout, ErrWriter: stderr,
		HideHelpCommand: true, // ours below: urfave's answers for commands that do not exist
		Flags:           []cli.Flag{cli.HelpFlag, &cli.BoolFlag{Name: "version", Usage: "print the version"}},
		Commands: slices.Concat([]*cli.Command{
			initCmd(e), inviteCmd(e), joinCmd(e), runCmd(e), statusCmd(e), monitorCmd(e), peersCmd(e), buildCmd(e), jobsCmd(e), whyCmd(e), logsCmd(e), eventsCmd(e), recordCmd(e),
		}, orderCmds(e), releaseCmds(e), storageCmds(e), targetCmds(e), treeCmds(e), []*cli.Command{rekeyCmd(e), baseCmd(e), portageCmd(e), demoCmd(e), versionCmd(e)}, lifeCmds(e)),
		// Errors are written by report, once.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	for _, cmd := range app.Commands {
		guard(e, cmd, "swarm")
	}
	app.Commands = append(app.Commands, helpCmd(e, app))
	app.OnUsageError = usageError(app.Flags, "swarm", app.Commands)
	app.CustomAppHelpTemplate = literal(appHelp(app))
	app.Action = func(c *cli.Context) error {
		switch {
		case c.Args().Present():
			return unknown(app.Commands, "swarm", c.Args().First())
		case c.Bool("version"):
			e.out.Printf("swarm %s\n", version())
			return nil
		}
		return cli.ShowAppHelp(c)
	}
	return app
}

// usageError says what is wrong with a command's flags, and what is right.
func usageError(flags []cli.Flag, full string, subs []*cli.Command) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		text := err.Error()
		if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
			return noFlag(flags, full, subs, strings.TrimLeft(name, "-"))
		}
		if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
			return usage(full+" --help", "--%s wants a value", strings.TrimLeft(name, "-"))
		}
		// invalid value "x" for flag -slots: parse error
		if value, rest, ok := strings.Cut(strings.TrimPrefix(text, "invalid value "), " for flag -"); ok {
			name, _, _ := strings.Cut(rest, ":")
			return usage(full+" --help", "--%s %s: not a value that it takes", name, value)
		}
		return usage(full+" --help", "%s", text)
	}
}

func noFlag(flags []cli.Flag, full string, subs []*cli.Command, name string) error {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	dash := "--"
	if len(name) == 1 {
		dash = "-"
	}
	if best := control.Nearest(name, names); best != "" {
		return usage("did you mean: "+full+" --"+best, "%s has no flag %s%s", full, dash, name)
	}
	for _, cmd := range subs {
		for _, f := range cmd.Flags {
			if slices.Contains(f.Names(), name) {
				return usage("flags stand after the command, as in: "+full+" "+cmd.Name+" --"+name, "%s has no flag %s%s of its own", full, dash, name)
			}
		}
	}
	return usage(full+" --help", "%s has no flag %s%s", full, dash, name)
}

// unknown names the command that was perhaps meant.
func unknown(cmds []*cli.Command, parent, word string) error {
	var names []string
	for _, c := range cmds {
		names = append(names, c.Name)
	}
	if best := control.Nearest(word, names); best != "" {
		return usage("did you mean: "+parent+" "+best, "no command %q", word)
	}
	return usage(parent+" --help lists the commands", "no command %q", word)
}

// guard closes the traps of urfave/cli v2 on a command and those below it: a
// flag after a positional argument would be swallowed, and usage errors would
// print help on stdout.
func guard(e *env, cmd *cli.Command, parent string) {
	full := parent + " " + cmd.Name
	cmd.OnUsageError = usageError(cmd.Flags, full, cmd.Subcommands)
	cmd.HideHelpCommand = true
	for _, sub := range cmd.Subcommands {
		guard(e, sub, full)
	}
	cmd.CustomHelpTemplate = literal(commandHelp(cmd, full))
	if cmd.Action == nil {
		subs := cmd.Subcommands
		cmd.Action = func(c *cli.Context) error {
			if c.Args().Present() {
				return unknown(subs, full, c.Args().First())
			}
			return usage(full+" --help", "%s wants a command", full)
		}
		return
	}
	run := cmd.Action
	cmd.Action = func(c *cli.Context) error {
		args := c.Args().Slice()
		for i, a := range args {
			// urfave drops a first "--", so the words as typed are asked.
			if len(a) > 1 && a != "--" && strings.HasPrefix(a, "-") && slices.Contains(beforeDashes(e.args), a) {
				return usage(full+" "+shellWords(reordered(args, i)), "the flag %s stands after an argument and would be ignored", a)
			}
		}
		return run(c)
	}
}

func beforeDashes(args []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i]
	}
	return args
}

// reordered puts everything from the first misplaced flag on before the
// arguments, which is right whether or not the flag takes a value.
func reordered(args []string, i int) []string {
	return append(slices.Clone(args[i:]), args[:i]...)
}

// shellWords are arguments as a shell takes them.
func shellWords(args []string) string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// positional returns a command's arguments: at least low, at most high of them
// (high < 0: any number).
func positional(c *cli.Context, low, high int, names string) ([]string, error) {
	args := c.Args().Slice()
	// urfave keeps a "--" that follows an argument.
	if i := slices.Index(args, "--"); i >= 0 {
		args = slices.Delete(args, i, i+1)
	}
	if len(args) < low || high >= 0 && len(args) > high {
		want := names
		if want == "" {
			want = "no arguments"
		}
		return nil, usage(c.Command.HelpName+" --help", "%s wants %s", c.Command.HelpName, want)
	}
	return args, nil
}
