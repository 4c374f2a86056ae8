package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
)

// The help texts are made here and handed to urfave/cli as templates without
// actions: its own do not fit 80 columns, and its way to wrap them is a global
// variable.

const (
	helpWidth  = 79
	helpIndent = 22 // where the second column begins
)

// literal makes a template that prints text as it is.
func literal(text string) string {
	return strings.ReplaceAll(text, "{{", `{{"{{"}}`)
}

// helpCmd is `swarm help [COMMAND]`.
func helpCmd(e *env, app *cli.App) *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "show this, or the help of a command", ArgsUsage: "[COMMAND]", HideHelpCommand: true,
		OnUsageError: usageError(nil, "swarm help", nil),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "man", Usage: "print a manual page, by `NAME`: swarm or swarm.toml"},
			&cli.StringFlag{Name: "completion", Usage: "print the completion for a `SHELL`: bash, zsh or fish"},
		},
		Action: func(c *cli.Context) error {
			for _, x := range []struct {
				flag  string
				texts map[string]func(*cli.App) string
			}{{"man", manPages}, {"completion", completions}} {
				if !c.IsSet(x.flag) {
					continue
				}
				text := x.texts[c.String(x.flag)]
				if text == nil {
					return usage("swarm help --help", "--%s %q: want one of %s", x.flag, c.String(x.flag), strings.Join(slices.Sorted(maps.Keys(x.texts)), ", "))
				}
				e.out.Printf("%s", text(app))
				return nil
			}
			full, cmds := "swarm", app.Commands
			var found *cli.Command
			for _, word := range c.Args().Slice() {
				found = nil
				for _, cmd := range cmds {
					if cmd.Name == word {
						found = cmd
					}
				}
				if found == nil {
					return unknown(cmds, full, word)
				}
				full, cmds = full+" "+word, found.Subcommands
			}
			if found == nil {
				e.out.Printf("%s", appHelp(app))
				return nil
			}
			e.out.Printf("%s", commandHelp(found, full))
			return nil
		},
	}
}

func appHelp(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "swarm - %s\n\nusage: swarm COMMAND [flags] [arguments]\n\ncommands:\n", app.Usage)
	for _, cmd := range app.Commands {
		if !cmd.Hidden {
			columns(&b, cmd.Name, cmd.Usage)
		}
	}
	b.WriteString("\nswarm help COMMAND shows a command's flags. First time: swarm demo shows a whole\n" +
		"swarm on this machine; swarm init and swarm run make a real one.\n")
	return b.String()
}

func commandHelp(cmd *cli.Command, full string) string {
	var b strings.Builder
	for _, l := range render.Wrap(full+" - "+cmd.Usage, helpWidth) {
		b.WriteString(l + "\n")
	}
	fmt.Fprintf(&b, "\nusage: %s", full)
	switch {
	case len(cmd.Subcommands) > 0 && cmd.Action != nil:
		b.WriteString(" [COMMAND]")
	case len(cmd.Subcommands) > 0:
		b.WriteString(" COMMAND")
	}
	b.WriteString(" [flags]")
	if args := strings.TrimSpace(cmd.ArgsUsage); args != "" {
		b.WriteString(" " + args)
	}
	b.WriteString("\n")
	for _, p := range paragraphs(cmd.Description) {
		b.WriteString("\n")
		if isExample(p) {
			b.WriteString(p + "\n")
			continue
		}
		for _, l := range render.Wrap(p, helpWidth) {
			b.WriteString(l + "\n")
		}
	}
	if len(cmd.Subcommands) > 0 {
		b.WriteString("\ncommands:\n")
		for _, sub := range cmd.Subcommands {
			columns(&b, sub.Name, sub.Usage)
		}
	}
	if len(cmd.Flags) > 0 {
		b.WriteString("\nflags:\n")
		settings := false
		for _, f := range cmd.Flags {
			if d, ok := f.(cli.DocGenerationFlag); ok {
				name, text := describe(d)
				columns(&b, name, text)
				settings = settings || len(d.GetEnvVars()) > 0
			}
		}
		if settings {
			b.WriteString("\nA flag marked * is also SWARM_NAME, or a line of the settings file.\n")
		}
	}
	return b.String()
}

// describe gives the two columns of a flag.
func describe(f cli.DocGenerationFlag) (name, text string) {
	text = f.GetUsage()
	value := "VALUE"
	if before, rest, ok := strings.Cut(text, "`"); ok { // the value's name stands in backquotes
		if word, after, ok := strings.Cut(rest, "`"); ok {
			value, text = word, before+word+after
		}
	}
	names := f.(cli.Flag).Names()
	name = "--" + names[0]
	if len(names) > 1 {
		name = "-" + names[1] + ", " + name
	}
	def := strings.ReplaceAll(f.GetDefaultText(), `"`, "")
	switch {
	case f.TakesValue():
		name += " " + value
		if def == "" || def == "[]" {
			def = f.GetValue()
		}
		def = strings.ReplaceAll(strings.Trim(def, "[]"), `"`, "")
	case def == "true":
		name += "=false"
	default:
		def = ""
	}
	if len(f.GetEnvVars()) > 0 {
		name += " *"
	}
	if def != "" {
		text += " (default: " + def + ")"
	}
	return name, text
}

// columns writes a name and its text, wrapped, beside it or below it.
func columns(b *strings.Builder, name, text string) {
	lines := render.Wrap(text, helpWidth-helpIndent)
	head := "  " + name
	if utf8.RuneCountInString(head)+2 > helpIndent {
		b.WriteString(head + "\n")
		head = ""
	}
	for _, l := range lines {
		fmt.Fprintf(b, "%-*s%s\n", helpIndent, head, l)
		head = ""
	}
}

// paragraphs splits a description at its empty lines.
func paragraphs(description string) []string {
	if description == "" {
		return nil
	}
	return strings.Split(description, "\n\n")
}

// isExample reports whether a paragraph is lines to type: they stay as they are.
func isExample(paragraph string) bool { return strings.HasPrefix(paragraph, "   ") }
