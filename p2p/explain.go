package p2p

import (
	"errors"
	"fmt"

	multistream "github.com/multiformats/go-multistream"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// openError gives the errors of protocol negotiation their sentinel.
func openError(err error) error {
	if _, ok := errors.AsType[multistream.ErrNotSupported[protocol.ID]](err); ok {
		return fmt.Errorf("%w: %w", ErrNoProtocol, err)
	}
	return err
}
