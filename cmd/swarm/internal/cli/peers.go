package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
	"github.com/build-swarm/swarm/p2p"
)

// peersFile remembers the addresses of a join code, one a line, beside the
// swarm key.
const peersFile = "join.peers"

func initCmd(e *env) *cli.Command {
	flags := []cli.Flag{configFlag(), stateFlag(), &cli.BoolFlag{Name: "new-identity", Usage: "replace this machine's identity, for a clone of another machine; the swarm stays"}}
	return &cli.Command{
		Name: "init", Usage: "make this machine's identity and a new swarm", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			return runInit(e, c.String("state"), c.Bool("new-identity"))
		},
	}
}

func runInit(e *env, state string, renew bool) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return failure("choose another place with --state", "make %s: %v", state, err)
	}
	keyPath := filepath.Join(state, p2p.SwarmKeyFile)
	if renew {
		if err := removeIdentity(state); err != nil {
			return err
		}
	}
	id, err := p2p.LoadOrCreateIdentity(state)
	if err != nil {
		return err
	}
	if renew {
		e.out.Printf("new identity %s in %s; restart the daemon: swarm run\n", id.ID(), state)
		return nil
	}
	if _, err := os.Stat(keyPath); err == nil {
		return failure("swarm invite makes a join code; --new-identity replaces the identity alone", "%s belongs to a swarm already", state)
	}
	key := p2p.NewSwarmKey()
	if err := key.WriteFile(keyPath); err != nil {
		return err
	}
	e.out.Printf("new swarm %s, this peer is %s\n", key.Fingerprint(), id.ID())
	e.out.Printf("next: swarm run, then swarm invite on this machine and swarm join on the others\n")
	return nil
}

// removeIdentity takes away the identity and what was said in its name: a
// board of another identity's records is read back from the peers.
func removeIdentity(state string) error {
	for _, name := range []string{"identity.pem", "board.db", "peers.json"} {
		if err := os.Remove(filepath.Join(state, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace the identity: %w", err)
		}
	}
	return nil
}

func inviteCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "invite", Usage: "print a join code: whoever has it can join the swarm", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			code, err := control.NewClient(c.String("socket")).Invite(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(map[string]any{"schema": 1, "join_code": code})
			}
			e.out.Printf("%s\n", code)
			e.note("it holds the swarm key: pass it on as you would a password (swarm join reads it from a file or standard input)")
			return nil
		},
	}
}

func joinCmd(e *env) *cli.Command {
	flags := []cli.Flag{configFlag(), stateFlag(), &cli.StringFlag{Name: "file", Usage: "read the join code from this file; - is standard input"}}
	return &cli.Command{
		Name: "join", Usage: "enter a swarm with its join code", ArgsUsage: " ", Flags: flags, Before: settings(flags),
		Description: "The code is asked for on the terminal, or read with --file FILE or from standard input,\nso that it need not stand in the shell's history.",
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) > 0 {
				return usage("swarm join --file FILE, or swarm join and paste it", "a join code on the command line stays in the shell's history")
			}
			text, err := readCode(e, c.String("file"))
			if err != nil {
				return err
			}
			return runJoin(e, c.String("state"), text)
		},
	}
}

// maxCode bounds what is read as a join code, in bytes.
const maxCode = 64 << 10

func readCode(e *env, file string) (string, error) {
	var r io.Reader
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return "", failure("", "read the join code: %v", err)
		}
		defer f.Close()
		r = f
	default:
		r = e.in
		if f, ok := e.in.(*os.File); ok && file == "" && term.IsTerminal(int(f.Fd())) {
			_, _ = fmt.Fprint(e.err, "join code: ") // a prompt that cannot be shown is none
			b, err := term.ReadPassword(int(f.Fd()))
			e.note("")
			return string(b), err
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxCode))
	if err != nil {
		return "", fmt.Errorf("read the join code: %w", err)
	}
	return string(b), nil
}

func runJoin(e *env, state, text string) error {
	code, err := p2p.ParseJoinCode(strings.TrimSpace(text))
	if err != nil {
		return failure("make a new one with swarm invite on a machine of the swarm", "%v", err)
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return failure("choose another place with --state", "make %s: %v", state, err)
	}
	keyPath := filepath.Join(state, p2p.SwarmKeyFile)
	if old, err := p2p.ReadSwarmKey(keyPath); err == nil {
		if old.Fingerprint() != code.Key.Fingerprint() {
			return failure("move "+state+" away, or join with another --state", "%s belongs to another swarm (%s, the code is for %s)", state, old.Fingerprint(), code.Key.Fingerprint())
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	id, err := p2p.LoadOrCreateIdentity(state)
	if err != nil {
		return err
	}
	if err := code.Key.WriteFile(keyPath); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(state, peersFile), []byte(strings.Join(code.Addrs, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the peers of the join code: %w", err)
	}
	e.out.Printf("joined swarm %s as %s\n", code.Key.Fingerprint(), id.ID())
	e.out.Printf("next: swarm run\n")
	return nil
}

// joinedPeers are the addresses of the join code that was used here.
func joinedPeers(state string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(state, peersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the peers of the join code: %w", err)
	}
	return strings.Fields(string(b)), nil
}

func peersCmd(e *env) *cli.Command {
	flags := clientFlags(jsonFlag())
	return &cli.Command{
		Name: "peers", Usage: "list the peers, how each is reached and what it is", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			peers, err := control.NewClient(c.String("socket")).Peers(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return e.out.JSON(map[string]any{"schema": 1, "peers": peers})
			}
			t := e.out.NewTable("PEER", "STATE", "VIA", "RTT", "CORES", "BLOBS", "KEPT", "HEARD", "ID")
			for _, p := range peers {
				via, rtt := p.Via, "-"
				if p.Self {
					via = "self"
				} else if via == "" {
					via = "-"
				}
				if p.RTTMicros > 0 {
					rtt = fmt.Sprintf("%.1fms", float64(p.RTTMicros)/1000)
				}
				t.Row(p.Nick, stateCell(p.State), via, rtt, p.Cores, p.Blobs, render.Bytes(p.UsedB),
					render.Duration(time.Duration(p.AgeMS)*time.Millisecond), p.ID)
			}
			t.Flush()
			return nil
		},
	}
}

func stateCell(state string) any {
	style := render.Plain
	switch state {
	case "building", "safe", "available":
		style = render.Good
	case "held", "waiting", "claimed", "ready":
		style = render.Warn
	case "away", "blocked", "unfit":
		style = render.Bad
	case "gone", "idle":
		style = render.Dim
	}
	return render.Cell(style, state)
}
