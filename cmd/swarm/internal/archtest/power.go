package archtest

import (
	"go/ast"
	"go/token"
	"strings"
)

// powerWords name ways to end the life of a machine. A supervisor once restarted
// somebody's desktop into another system: this program has no such verb, no
// command that could, and no library call.
var powerWords = []string{"reboot", "Reboot", "REBOOT", "kexec", "Kexec", "KEXEC", "poweroff", "PowerOff", "POWER_OFF"}

// Power finds such words in names and texts of the code, its tests too. A server
// of net/http has a method Shutdown, which is its own; in a text the word is none
// of ours.
func Power(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if within(f.Dir, "cmd/swarm/internal/archtest/...") {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			text, also := "", ""
			switch x := n.(type) {
			case *ast.Ident:
				text = x.Name
			case *ast.BasicLit:
				if x.Kind == token.STRING {
					text, also = x.Value, "shutdown"
				}
			}
			for _, w := range append(powerWords[:len(powerWords):len(powerWords)], also) {
				if w != "" && strings.Contains(text, w) {
					found = append(found, t.at(f, n, "%q: this program never ends the life of a machine, nor asks another to", w))
					break
				}
			}
			return true
		})
	}
	return found
}
