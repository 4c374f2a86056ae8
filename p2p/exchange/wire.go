package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/build-swarm/swarm/cas"
	"github.com/ipfs/go-cid"
)

// Protocol is the stream protocol of this package.
const Protocol = "/swarm/blob/1"

type op byte

const (
	opGet op = 1
	opHas op = 2
)

type status byte

const (
	statusOK status = iota
	statusNotHeld
	statusBadRequest
	statusBusy
	statusFailed
)

// requestSize is the size of every request in bytes.
const requestSize = 1 + 32 + 8 + 8

// request is one question. For opHas off and n are zero.
type request struct {
	op     op
	cid    cid.Cid
	off, n int64
}

// errRequest: bytes that are no request of this protocol.
var errRequest = errors.New("not a blob request")

func (r request) encode() ([]byte, error) {
	sum, err := cas.Digest(r.cid)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, requestSize)
	b = append(b, byte(r.op))
	b = append(b, sum[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.off))
	return binary.BigEndian.AppendUint64(b, uint64(r.n)), nil
}

// readRequest reads one request; io.EOF when the stream ends before it.
func readRequest(r io.Reader) (request, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return request{}, err
	}
	q := request{
		op:  op(b[0]),
		cid: cas.NewCID([32]byte(b[1:33])),
		off: int64(binary.BigEndian.Uint64(b[33:])),
		n:   int64(binary.BigEndian.Uint64(b[41:])),
	}
	switch {
	case q.op == opHas && q.off == 0 && q.n == 0:
	case q.op == opGet && (q.off >= 0 || q.off == cas.Suffix) && q.n >= 0:
	default:
		return request{}, fmt.Errorf("op %d, off %d, n %d: %w", q.op, q.off, q.n, errRequest)
	}
	return q, nil
}

// Errors a holder answers with. They say nothing bad about it.
var (
	errNotHeld = errors.New("the peer does not hold it")
	errBusy    = errors.New("the peer serves too many streams already")
	errFailed  = errors.New("the peer could not read it")
)

// readStatus reads what a reply begins with, as an error unless it is ok.
func readStatus(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read reply: %w", err)
	}
	switch status(b[0]) {
	case statusOK:
		return nil
	case statusNotHeld:
		return errNotHeld
	case statusBusy:
		return errBusy
	case statusFailed:
		return errFailed
	case statusBadRequest:
		return errRequest
	default:
		return fmt.Errorf("reply begins with status %d", b[0])
	}
}
