package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/build-swarm/swarm/claims/agent"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
	"github.com/build-swarm/swarm/cmd/swarm/internal/daemon"
	"github.com/build-swarm/swarm/cmd/swarm/internal/render"
	"github.com/build-swarm/swarm/p2p"
)

// peersFile remembers the addresses of a join code, one a line, beside the
// swarm key.
const peersFile = "join.peers"

func initCmd(e *env) *cli.Command {
	flags := []cli.Flag{configFlag(), stateFlag(), jsonFlag(), &cli.BoolFlag{Name: "new-identity", Usage: "replace this machine's identity, for a clone of another machine; the swarm stays"}}
	return &cli.Command{
		Name: "init", Usage: "make this machine's identity and a new swarm", Flags: flags, Before: settings(flags),
		Action: func(c *cli.Context) error {
			if _, err := positional(c, 0, 0, ""); err != nil {
				return err
			}
			if c.Bool("new-identity") {
				return runRenew(e, c.String("state"), c.Bool("json"))
			}
			return runInit(e, c.String("state"), c.Bool("json"))
		},
	}
}

// member is the JSON document of init and join.
type member struct {
	Schema int    `json:"schema"`
	Swarm  string `json:"swarm"` // fingerprint of the swarm key
	Peer   string `json:"peer"`
	State  string `json:"state_dir"`
}

func runInit(e *env, state string, asJSON bool) error {
	if err := makeState(state); err != nil {
		return err
	}
	keyPath := filepath.Join(state, p2p.SwarmKeyFile)
	if _, err := os.Lstat(keyPath); err == nil {
		return failure("swarm invite makes a join code for it; --new-identity replaces the identity alone", "%s belongs to a swarm already", state)
	}
	if err := noOldBoard(state); err != nil {
		return err
	}
	id, err := p2p.LoadOrCreateIdentity(state)
	if err != nil {
		return deniedState(state, err)
	}
	key := p2p.NewSwarmKey()
	if err := key.WriteFile(keyPath); err != nil {
		return deniedState(state, err)
	}
	if err := handState(state); err != nil {
		return err
	}
	if asJSON {
		return e.out.JSON(member{1, key.Fingerprint(), id.ID(), state})
	}
	e.out.Printf("new swarm %s, this peer is %s\n", key.Fingerprint(), id.ID())
	e.out.Printf("next: swarm run, then swarm invite on this machine and swarm join on the others\n")
	return nil
}

// runRenew gives a cloned machine an identity of its own. What was said in the
// old one's name stays with the original: the board is read back from the
// peers, the packages that lie here are announced anew.
func runRenew(e *env, state string, asJSON bool) error {
	key, err := p2p.ReadSwarmKey(filepath.Join(state, p2p.SwarmKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return failure("swarm init makes a new swarm, swarm join enters one", "%s belongs to no swarm yet", state)
	}
	if err != nil {
		return deniedState(state, err)
	}
	journal, err := agent.OpenJournal(filepath.Join(state, boardFile))
	if errors.Is(err, agent.ErrInUse) {
		return failure("stop it first", "a swarm daemon runs on %s", state)
	}
	if err != nil {
		return deniedState(state, err)
	}
	if err := journal.Close(); err != nil {
		return err
	}
	for _, name := range []string{identityFile, boardFile, "peers.json"} {
		if err := os.Remove(filepath.Join(state, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return deniedState(state, err)
		}
	}
	id, err := p2p.LoadOrCreateIdentity(state)
	if err != nil {
		return deniedState(state, err)
	}
	if err := handState(state); err != nil {
		return err
	}
	if asJSON {
		return e.out.JSON(member{1, key.Fingerprint(), id.ID(), state})
	}
	e.out.Printf("this peer is now %s, in the swarm %s as before\n", id.ID(), key.Fingerprint())
	e.out.Printf("next: swarm run\n")
	return nil
}

// Files of a state directory beside the swarm key.
const (
	identityFile = "identity.pem"
	boardFile    = "board.db"
)

func makeState(state string) error {
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = daemon.StateMode
	}
	if err := os.MkdirAll(state, mode); err != nil {
		return failure("choose another place with --state", "make the state directory: %v", err)
	}
	return nil
}

// handState gives what root has just made in a state directory to the user whose the
// directory is: the daemon runs as that user.
func handState(state string) error {
	st, err := os.Stat(state)
	if err != nil {
		return fmt.Errorf("look whose the state directory is: %w", err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	for _, name := range []string{identityFile, p2p.SwarmKeyFile, peersFile, boardFile} {
		if err := os.Lchown(filepath.Join(state, name), int(owner.Uid), int(owner.Gid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give the keys to the user of the state directory: %w", err)
		}
	}
	return nil
}

// noOldBoard keeps the records of one swarm out of another: a directory whose
// key is gone still holds its board and its packages.
func noOldBoard(state string) error {
	if _, err := os.Lstat(filepath.Join(state, boardFile)); err == nil {
		return failure("move it away, or choose another with --state", "%s holds the board of another swarm, whose key is gone", state)
	}
	return nil
}

// deniedState says whose the state directory is when that is the trouble.
func deniedState(state string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure("use sudo, or choose another place with --state", "this user may not use %s: %v", state, err)
	}
	return err
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
			if onlyHere(code) {
				e.note("it names addresses of this machine alone: for others give the daemon one that they reach (swarm run --listen)")
			}
			return nil
		},
	}
}

// onlyHere reports whether a join code is good for this machine alone.
func onlyHere(text string) bool {
	code, err := p2p.ParseJoinCode(text)
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(code.Addrs, func(a string) bool {
		return !strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(a, "/ip6/::1/")
	})
}

func joinCmd(e *env) *cli.Command {
	flags := []cli.Flag{configFlag(), stateFlag(), jsonFlag(), &cli.StringFlag{Name: "file", Usage: "read the join code from this `FILE`; - is standard input"},
		&cli.BoolFlag{Name: "rekeyed", Usage: "take the new key of a swarm that this machine is in (swarm rekey); identity and board stay"}}
	return &cli.Command{
		Name: "join", Usage: "enter a swarm with its join code", Flags: flags, Before: settings(flags),
		Description: "The code is asked for on the terminal, or read with --file FILE or from standard input, so that it need not stand in the shell's history.",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("swarm join --file FILE, or swarm join and paste it", "a join code on the command line stays in the shell's history")
			}
			text, err := readCode(c.Context, e, c.String("file"))
			if err != nil {
				return err
			}
			return runJoin(e, c.String("state"), text, c.Bool("rekeyed"), c.Bool("json"))
		},
	}
}

// maxCode bounds what is read as a join code, in bytes.
const maxCode = 64 << 10

func readCode(ctx context.Context, e *env, file string) (string, error) {
	r := e.in
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", failure("swarm join --file FILE", "read the join code: %v", err)
		}
		defer f.Close()
		r = f
	} else if f, ok := e.in.(*os.File); ok && file == "" && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(e.err, "join code (not shown): ") // a prompt that cannot be shown is none
		text, err := readSecret(ctx, f)
		e.note("")
		return text, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxCode))
	if err != nil {
		return "", fmt.Errorf("read the join code: %w", err)
	}
	return string(b), nil
}

func runJoin(e *env, state, text string, rekeyed, asJSON bool) error {
	code, err := p2p.ParseJoinCode(text)
	if err != nil {
		return failure("swarm invite prints one, on a machine of the swarm whose daemon runs", "%v", err)
	}
	if err := makeState(state); err != nil {
		return err
	}
	keyPath := filepath.Join(state, p2p.SwarmKeyFile)
	old, err := p2p.ReadSwarmKey(keyPath)
	switch {
	case rekeyed && errors.Is(err, fs.ErrNotExist):
		return failure("swarm join, without --rekeyed", "%s belongs to no swarm yet", state)
	case errors.Is(err, fs.ErrNotExist):
		if err := noOldBoard(state); err != nil {
			return err
		}
	case err != nil:
		return deniedState(state, err)
	case rekeyed && old.Fingerprint() != code.Key.Fingerprint():
		if err := code.Key.ReplaceFile(keyPath); err != nil {
			return deniedState(state, err)
		}
	case old.Fingerprint() != code.Key.Fingerprint():
		return failure("move the directory away, or choose another with --state; if the swarm was rekeyed: swarm join --rekeyed", "%s belongs to another swarm: %s, and the code is for %s", state, old.Fingerprint(), code.Key.Fingerprint())
	}
	id, err := p2p.LoadOrCreateIdentity(state)
	if err != nil {
		return deniedState(state, err)
	}
	// The same key may be there already: the addresses are renewed then.
	if err := code.Key.WriteFile(keyPath); err != nil && !errors.Is(err, fs.ErrExist) {
		return deniedState(state, err)
	}
	if err := os.WriteFile(filepath.Join(state, peersFile), []byte(strings.Join(code.Addrs, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the peers of the join code: %w", err)
	}
	if err := handState(state); err != nil {
		return err
	}
	if asJSON {
		return e.out.JSON(member{1, code.Key.Fingerprint(), id.ID(), state})
	}
	e.out.Printf("joined the swarm %s as %s\n", code.Key.Fingerprint(), id.ID())
	if rekeyed {
		e.out.Printf("next: restart the daemon (swarm run)\n")
		return nil
	}
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
		Subcommands: trustCmds(e),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return unknown(c.Command.Subcommands, "swarm peers", c.Args().First())
			}
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
			showPeers(e.out, peers)
			return nil
		},
	}
}

// shortRate writes bytes per second in a few letters: 93M/s.
func shortRate(n int64) string {
	unit := 0
	for ; n >= 1000 && unit < 3; unit++ {
		n = (n + 512) >> 10
	}
	return fmt.Sprintf("%d%s/s", n, [...]string{"B", "K", "M", "G"}[unit])
}

// showPeers writes the table, and below it why a peer cannot be reached.
func showPeers(o render.Out, peers []control.Peer) {
	t := o.NewTable("PEER", "STATE", "VIA", "RTT", "RATE", "CORES", "BLOBS", "KEPT", "HEARD", "ID")
	for _, p := range peers {
		via, rtt, rate := p.Via, "-", "-"
		if p.Self {
			via = "self"
		} else if via == "" {
			via = "-"
		}
		if p.Connected && p.RTTMicros > 0 {
			rtt = fmt.Sprintf("%.1fms", float64(p.RTTMicros)/1000)
		}
		if p.Rate > 0 {
			rate = shortRate(p.Rate)
		}
		id := p.ID
		if o.TTY {
			id = shortID(id)
		}
		t.Row(nickOr(p.Nick), stateCell(p.State), via, rtt, rate, p.Cores, p.Blobs, render.Bytes(p.UsedB), heard(p.Peer), id)
	}
	t.Flush()
	if !o.TTY {
		return // a pipe gets lines of one kind
	}
	for _, p := range peers {
		if p.Problem != "" {
			o.Labeled(render.Warn, "warning:", shortID(p.ID)+": "+p.Problem)
		}
	}
}

func nickOr(nick string) string {
	if nick == "" {
		return "-"
	}
	return nick
}

// shortID is the end of a peer ID, which tells it from others: all begin alike.
func shortID(id string) string {
	if len(id) > 8 {
		return id[len(id)-8:]
	}
	return id
}

func stateCell(state string) any {
	style := render.Plain
	switch state {
	case "building", "safe", "available":
		style = render.Good
	case "held", "waiting", "claimed", "ready":
		style = render.Warn
	case "away", "banned", "blocked", "unfit", "unreached", "silent":
		style = render.Bad
	case "gone", "idle":
		style = render.Dim
	}
	return render.Cell(style, state)
}
