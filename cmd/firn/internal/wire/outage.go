package wire

import (
	"errors"
	"io"
	"net"

	"firn/catalog"
	"firn/lake/object"
	"firn/wal/slot"
)

// Outage says whether an error that ended a run is one that passes by itself:
// Postgres, the store or the network between is away, or answers too late. The
// next run goes on from the head as if this one had been killed.
func Outage(err error) bool {
	for _, kind := range []error{slot.ErrUnreachable, slot.ErrNotReady, slot.ErrShutdown,
		object.ErrUnreachable, object.ErrUnavailable, catalog.ErrUnknown, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, kind) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network)
}
