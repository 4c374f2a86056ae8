package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// idCount is how many user and group ids a sandbox has: what the numbers in a
// package and in etc/passwd may be.
const idCount = 65536

// idMaps are the two programs that give a user namespace its ids, and the files
// that say which ones. They are setuid root, of the package shadow, and all that
// runs with a privilege where the daemon has none.
var idMaps = []struct {
	program, file string
	own           func() int
}{{"newuidmap", "/etc/subuid", os.Getuid}, {"newgidmap", "/etc/subgid", os.Getgid}}

// Rights says what this process lacks to shut builds in, as far as can be told
// without trying; nil for root, and for an ordinary user who has idMaps.
func Rights() error {
	if !rootless() {
		return nil
	}
	for _, m := range idMaps {
		if _, err := subordinate(m.file); err != nil {
			return err
		}
		if _, err := idProgram(m.program); err != nil {
			return err
		}
	}
	return nil
}

func idProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("no %s here: install shadow's uidmap, or run the daemon as root", name)
	}
	return path, nil
}

// mapIDs gives the user namespace of a process root (this user) and the ids
// that the machine's administrator has set aside for this user in /etc/subuid.
func mapIDs(ctx context.Context, pid int) error {
	for _, m := range idMaps {
		first, err := subordinate(m.file)
		if err != nil {
			return err
		}
		path, err := idProgram(m.program)
		if err != nil {
			return err
		}
		// Root inside is the user outside, so that what the daemon gave to the
		// build is root's there, and the rest is from the subordinate range.
		out, err := exec.CommandContext(ctx, path, strconv.Itoa(pid), "0", strconv.Itoa(m.own()), "1", "1", strconv.Itoa(first), strconv.Itoa(idCount-1)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", m.program, err, oneLine(string(out)))
		}
	}
	return nil
}

// subordinate is the first id of a range of this user's with enough of them.
func subordinate(file string) (int, error) {
	me, err := user.Current()
	if err != nil {
		return 0, fmt.Errorf("find out who this is: %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("find ids to build with: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 || parts[0] != me.Username && parts[0] != me.Uid {
			continue
		}
		first, err1 := strconv.Atoi(parts[1])
		count, err2 := strconv.Atoi(parts[2])
		if errors.Join(err1, err2) == nil && count >= idCount-1 {
			return first, nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return 0, fmt.Errorf("%s gives %s no %d ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", file, me.Username, idCount-1, me.Username)
}
