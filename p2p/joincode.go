package p2p

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The join code is "swarm1-" and the base32 (lower case, no padding) of
//
//	version 1 | length of the whole, 2 bytes | check of these three, 1 byte
//	swarm key, 32 bytes
//	name: length 1 byte, UTF-8
//	up to 8 peers with up to 8 addresses each, as appendInfos writes them
//	first 6 bytes of the SHA-256 of all before
//
// Base32 and not base58: it decodes from the front, so that a code cut short is
// told from a mistyped one; it may be read aloud and typed in capitals. The length
// has a check of its own for the same reason. One address costs about 80
// characters, one more of the same peer 15.
const (
	joinPrefix  = "swarm1-"
	joinVersion = 1
	joinSum     = 6
	joinHead    = 4
	joinPeers   = 8
	// maxJoinText bounds the text that is looked at, in bytes.
	maxJoinText = 16 << 10
	// maxSwarmName bounds JoinCode.Name, in bytes.
	maxSwarmName = 64
)

// Errors of ParseJoinCode, each with its own remedy.
var (
	ErrJoinKind      = errors.New("not a join code")
	ErrJoinTruncated = errors.New("the join code is cut short")
	ErrJoinMistyped  = errors.New("the join code is mistyped")
	ErrJoinVersion   = errors.New("the join code is of a newer version of swarm")
)

// JoinCode is what a machine needs to enter a swarm. It contains the swarm key:
// whoever reads it may join.
type JoinCode struct {
	Key   SwarmKey
	Addrs []string // multiaddrs that end in /p2p/ID, sorted by peer as given
	Name  string   // of the swarm, for people; may be empty
}

func joinEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// NewJoinCode checks what goes into a code: the key, the length of the name, and
// the addresses, of which it keeps the first eight of the first eight peers.
func NewJoinCode(key SwarmKey, name string, addrs []string) (JoinCode, error) {
	if key.IsZero() {
		return JoinCode{}, fmt.Errorf("make a join code: %w", ErrSwarmKey)
	}
	if len(name) > maxSwarmName || !printable(name) {
		return JoinCode{}, fmt.Errorf("make a join code: the name %.80q is longer than %d bytes or not plain text", name, maxSwarmName)
	}
	infos, err := addrInfos(addrs)
	if err != nil {
		return JoinCode{}, fmt.Errorf("make a join code: %w", err)
	}
	return JoinCode{Key: key, Name: name, Addrs: joinable(infos)}, nil
}

// addrInfos groups addresses by peer, in the order in which peers first come.
func addrInfos(addrs []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	at := map[peer.ID]int{}
	for _, s := range addrs {
		info, err := peer.AddrInfoFromString(s)
		if err != nil || len(info.Addrs) == 0 {
			return nil, fmt.Errorf("address %.200q: want /ip4/HOST/tcp/PORT/p2p/PEER", s)
		}
		i, ok := at[info.ID]
		if !ok {
			i = len(out)
			at[info.ID] = i
			out = append(out, peer.AddrInfo{ID: info.ID})
		}
		out[i].Addrs = append(out[i].Addrs, info.Addrs...)
	}
	return out, nil
}

func joinable(infos []peer.AddrInfo) []string {
	var out []string
	for _, info := range infos[:min(len(infos), joinPeers)] {
		for _, a := range info.Addrs[:min(len(info.Addrs), maxAddrs)] {
			if len(a.Bytes()) <= 255 {
				out = append(out, a.String()+"/p2p/"+info.ID.String())
			}
		}
	}
	return out
}

// String is the code, one line. What NewJoinCode would refuse is left out.
func (j JoinCode) String() string {
	b := make([]byte, joinHead, 256)
	b = append(b, j.Key.secret[:]...)
	b = appendBytes(b, []byte(j.Name[:min(len(j.Name), maxSwarmName)]))
	infos, err := addrInfos(j.Addrs)
	if err != nil {
		infos = nil
	}
	b = appendInfos(b, infos[:min(len(infos), joinPeers)])
	return sealJoin(b)
}

// sealJoin fills in the head of b, adds the checksum, and turns it into text.
func sealJoin(b []byte) string {
	b[0] = joinVersion
	binary.BigEndian.PutUint16(b[1:], uint16(len(b)+joinSum))
	b[3] = headCheck(b)
	sum := sha256.Sum256(b)
	return joinPrefix + joinEncoding().EncodeToString(append(b, sum[:joinSum]...))
}

func headCheck(b []byte) byte {
	s := sha256.Sum256(b[:3])
	return s[0]
}

// ParseJoinCode reads a code as pasted: spaces, line breaks and capitals do not
// matter. Every error is one line and wraps one of ErrJoinKind, ErrJoinTruncated,
// ErrJoinMistyped, ErrJoinVersion; none repeats the code, which is secret.
func ParseJoinCode(text string) (JoinCode, error) {
	if len(text) > maxJoinText {
		return JoinCode{}, fmt.Errorf("%w: %d bytes are far too many; paste the one line that swarm invite prints", ErrJoinKind, len(text))
	}
	text = strings.ToLower(strings.Join(strings.Fields(text), ""))
	rest, ok := strings.CutPrefix(text, joinPrefix)
	if !ok {
		return JoinCode{}, wrongKind(text)
	}
	b, err := decodeJoin(rest)
	if err != nil {
		return JoinCode{}, err
	}
	j, err := parseJoinBody(b[joinHead : len(b)-joinSum])
	if err != nil { // the checksum fits, so whoever made it is at fault
		return JoinCode{}, fmt.Errorf("%w: %w; ask for a new one (swarm invite)", ErrJoinKind, err)
	}
	return j, nil
}

// wrongKind says what was pasted instead of a join code.
func wrongKind(text string) error {
	what := "a join code is one line that begins with " + joinPrefix + "; swarm invite prints it"
	switch {
	case text == "":
		what = "it is empty; " + what
	case strings.HasPrefix(joinPrefix, text):
		return fmt.Errorf("%w: there is nothing after %q", ErrJoinTruncated, text)
	case strings.HasPrefix(text, "swarm") && len(text) > 6 && text[5] >= '2' && text[5] <= '9':
		return ErrJoinVersion
	case strings.HasPrefix(text, "/key/swarm/"):
		what = "this is a swarm key file; " + what
	case strings.HasPrefix(text, "12d3koo"):
		what = "this is a peer ID; " + what
	case strings.HasPrefix(text, "/ip") || strings.HasPrefix(text, "/dns"):
		what = "this is an address; " + what
	}
	return fmt.Errorf("%w: %s", ErrJoinKind, what)
}

// decodeJoin turns the text after the prefix into the whole checked message.
func decodeJoin(text string) ([]byte, error) {
	if i := strings.IndexFunc(text, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '2' && r <= '7') }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		return nil, fmt.Errorf("%w: %q cannot be in it (character %d)", ErrJoinMistyped, r, i+len(joinPrefix)+1)
	}
	// A cut may leave bits that no whole byte has: drop them, the length tells.
	whole := text
	if rest := len(text) % 8; rest == 1 || rest == 3 || rest == 6 {
		whole = text[:len(text)-1]
	}
	b, err := joinEncoding().DecodeString(whole)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJoinMistyped, err)
	}
	if len(b) < joinHead {
		return nil, fmt.Errorf("%w: only %d characters are there", ErrJoinTruncated, len(text)+len(joinPrefix))
	}
	if b[3] != headCheck(b) {
		return nil, fmt.Errorf("%w near its beginning; copy it again", ErrJoinMistyped)
	}
	if b[0] != joinVersion {
		return nil, ErrJoinVersion
	}
	want := int(binary.BigEndian.Uint16(b[1:]))
	switch chars := joinEncoding().EncodedLen(want); {
	case len(text) < chars:
		return nil, fmt.Errorf("%w: %d of its %d characters are there", ErrJoinTruncated, len(text)+len(joinPrefix), chars+len(joinPrefix))
	case len(text) > chars:
		return nil, fmt.Errorf("%w: %d characters too many at its end", ErrJoinMistyped, len(text)-chars)
	case want < joinHead+joinSum || joinEncoding().EncodeToString(b) != text:
		return nil, fmt.Errorf("%w: its checksum does not fit; copy it again", ErrJoinMistyped)
	}
	if sum := sha256.Sum256(b[:want-joinSum]); !bytes.Equal(sum[:joinSum], b[want-joinSum:]) {
		return nil, fmt.Errorf("%w: its checksum does not fit; copy it again", ErrJoinMistyped)
	}
	return b, nil
}

var errJoinBody = errors.New("its content makes no sense")

func parseJoinBody(b []byte) (JoinCode, error) {
	var j JoinCode
	if len(b) < len(j.Key.secret) {
		return JoinCode{}, errJoinBody
	}
	b = b[copy(j.Key.secret[:], b):]
	name, b, ok := cutBytes(b)
	if !ok || len(name) > maxSwarmName || !printable(string(name)) || j.Key.IsZero() || len(b) == 0 || b[0] > joinPeers {
		return JoinCode{}, errJoinBody
	}
	j.Name = string(name)
	infos, err := parseInfos(b)
	if err != nil {
		return JoinCode{}, errJoinBody
	}
	j.Addrs = joinable(infos)
	if _, err := addrInfos(j.Addrs); err != nil {
		return JoinCode{}, errJoinBody
	}
	return j, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
