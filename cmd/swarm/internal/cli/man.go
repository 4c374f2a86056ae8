package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// The manual is made of the commands themselves, when the package is built: it
// cannot tell of anything that is not there.

// manPages are the pages by name.
var manPages = map[string]func(*cli.App) string{"swarm": manSwarm, "swarm.toml": manSettings}

// roff escapes text for troff: dashes that are typed, backslashes, and lines
// that would be requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func manSwarm(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH SWARM 1 \"\" \"swarm\" \"Build Swarm\"\n.SH NAME\nswarm \\- %s\n.SH SYNOPSIS\n.B swarm\n.I COMMAND\n[flags] [arguments]\n", roff(app.Usage))
	b.WriteString(".SH DESCRIPTION\nMachines that one person owns share the compiling of Gentoo packages, with no server in the middle;\nevery one of them is then a binary package host.\nData goes to standard output, everything else to standard error.\nFlags stand before arguments.\n")
	b.WriteString(".SH COMMANDS\n")
	for _, cmd := range app.Commands {
		manCommand(&b, cmd, "swarm "+cmd.Name)
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, x := range []struct {
		code int
		text string
	}{{exitOK, "done"}, {exitError, "it failed"}, {exitUsage, "the words were wrong"}, {exitPartial, "some of what was asked for was done"},
		{exitUnreachable, "no daemon answers"}, {exitNotFound, "what was named is not there"}, {exitInterrupted, "interrupted"}} {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", x.code, roff(x.text))
	}
	b.WriteString(".SH SIGNALS\nThe daemon (\\fBswarm run\\fR) on\n.TP\nSIGTERM, SIGINT\nlets builds end for as long as \\fBdrain\\-limit\\fR says, gives the rest back to the swarm, and ends.\n")
	b.WriteString(".TP\nSIGHUP\nchecks the settings and the program on disk, and goes on in a new process; builds go on.\n")
	b.WriteString(".SH FILES\n.TP\n/etc/swarm/swarm.toml\nsettings, see \\fBswarm.toml\\fR(5)\n.TP\n/var/lib/swarm\nidentity, keys, board and packages\n.TP\n/run/swarm/control.sock\nthe control socket, for root and the group swarm\n.PP\nFor an ordinary user the XDG directories take their place.\n.SH SEE ALSO\n\\fBswarm.toml\\fR(5), \\fBemerge\\fR(1)\n")
	return b.String()
}

func manCommand(b *strings.Builder, cmd *cli.Command, full string) {
	if cmd.Hidden {
		return
	}
	line := roff(full)
	if len(cmd.Subcommands) > 0 {
		line += ` \fICOMMAND\fR`
	}
	if args := strings.TrimSpace(cmd.ArgsUsage); args != "" {
		line += ` \fI` + roff(args) + `\fR`
	}
	fmt.Fprintf(b, ".SS %s\n%s.\n", line, roff(cmd.Usage))
	for _, p := range paragraphs(cmd.Description) {
		if isExample(p) {
			fmt.Fprintf(b, ".PP\n.nf\n%s\n.fi\n", roff(p))
		} else {
			fmt.Fprintf(b, ".PP\n%s\n", roff(p))
		}
	}
	manFlags(b, cmd.Flags, false)
	for _, sub := range cmd.Subcommands {
		manCommand(b, sub, full+" "+sub.Name)
	}
}

// manFlags lists flags; of settings alone those that the file knows.
func manFlags(b *strings.Builder, flags []cli.Flag, settings bool) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || settings && len(d.GetEnvVars()) == 0 {
			continue
		}
		name, text := describe(d)
		name, value, _ := strings.Cut(strings.TrimSuffix(name, " *"), " ")
		if strings.HasSuffix(name, ",") { // a short name first
			rest, v, _ := strings.Cut(value, " ")
			name, value = name+" "+rest, v
		}
		if settings {
			name = strings.TrimSuffix(strings.TrimPrefix(name, "--"), "=false")
			if name == "config" {
				continue
			}
		}
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR", roff(name))
		if value != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(value))
		}
		fmt.Fprintf(b, "\n%s\n", roff(text))
	}
}

func manSettings(*cli.App) string {
	var b strings.Builder
	b.WriteString(".TH SWARM.TOML 5 \"\" \"swarm\" \"Build Swarm\"\n.SH NAME\nswarm.toml \\- settings of a Build Swarm peer\n")
	b.WriteString(".SH DESCRIPTION\nA TOML file with one line for each setting, as in\n.PP\n.nf\nslots = 2\nquota = \"50G\"\nhours = [\"mon\\-fri 20:00\\-07:00\", \"sat\\-sun 00:00\\-24:00\"]\n.fi\n.PP\n")
	b.WriteString("Each is also a flag of \\fBswarm run\\fR, which comes first, and a variable SWARM_NAME in the environment.\nA daemon takes changes over on SIGHUP, without losing builds.\n.SH SETTINGS\n")
	manFlags(&b, runFlags(), true)
	b.WriteString(".SH SEE ALSO\n\\fBswarm\\fR(1)\n")
	return b.String()
}
