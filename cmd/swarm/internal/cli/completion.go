package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completions are the shells whose completion can be printed, made of the
// commands themselves.
var completions = map[string]func(*cli.App) string{"bash": completeBash, "zsh": completeZsh, "fish": completeFish}

// words are what may follow a command: the commands below it and its flags.
func words(flags []cli.Flag, subs []*cli.Command) []string {
	var out []string
	for _, s := range subs {
		if !s.Hidden {
			out = append(out, s.Name)
		}
	}
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				out = append(out, "--"+n)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// eachCommand calls fn for every command, with the words that lead to it.
func eachCommand(cmds []*cli.Command, path string, fn func(path string, cmd *cli.Command)) {
	for _, cmd := range cmds {
		if cmd.Hidden {
			continue
		}
		full := strings.TrimSpace(path + " " + cmd.Name)
		fn(full, cmd)
		eachCommand(cmd.Subcommands, full, fn)
	}
}

func completeBash(app *cli.App) string {
	var b strings.Builder
	b.WriteString("# bash completion for swarm\n_swarm() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} path= w n list\n")
	b.WriteString("\tfor ((n = 1; n < COMP_CWORD; n++)); do\n\t\tw=${COMP_WORDS[n]}\n\t\tcase \"$path $w\" in\n")
	var paths []string
	eachCommand(app.Commands, "", func(path string, _ *cli.Command) { paths = append(paths, fmt.Sprintf("' %s'", path)) })
	fmt.Fprintf(&b, "\t\t%s) path+=\" $w\" ;;\n\t\tesac\n\tdone\n\tcase \"$path\" in\n", strings.Join(paths, "|"))
	eachCommand(app.Commands, "", func(path string, cmd *cli.Command) {
		fmt.Fprintf(&b, "\t' %s') list='%s' ;;\n", path, strings.Join(words(cmd.Flags, cmd.Subcommands), " "))
	})
	fmt.Fprintf(&b, "\t*) list='%s' ;;\n\tesac\n", strings.Join(words(app.Flags, app.Commands), " "))
	b.WriteString("\tCOMPREPLY=($(compgen -W \"$list\" -- \"$cur\"))\n\t[[ ${#COMPREPLY[@]} -gt 0 || $cur == -* ]] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -F _swarm swarm\n")
	return b.String()
}

// completeZsh has zsh run the bash function.
func completeZsh(app *cli.App) string {
	return "#compdef swarm\nautoload -U +X bashcompinit && bashcompinit\n" + completeBash(app)
}

func completeFish(app *cli.App) string {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	var b strings.Builder
	b.WriteString("# fish completion for swarm\ncomplete -c swarm -f\n")
	eachCommand(app.Commands, "", func(path string, cmd *cli.Command) {
		parent, name, below := strings.Cut(path, " ")
		cond := "__fish_use_subcommand"
		if below {
			cond = "__fish_seen_subcommand_from " + parent
		} else {
			name = parent
		}
		fmt.Fprintf(&b, "complete -c swarm -n %s -a %s -d %s\n", quote(cond), name, quote(cmd.Usage))
		for _, f := range cmd.Flags {
			d, ok := f.(cli.DocGenerationFlag)
			if !ok {
				continue
			}
			_, text := describe(d)
			value := ""
			if d.TakesValue() {
				value = " -r"
			}
			fmt.Fprintf(&b, "complete -c swarm -n %s -l %s%s -d %s\n", quote("__fish_seen_subcommand_from "+name), f.Names()[0], value, quote(text))
		}
	})
	return b.String()
}
