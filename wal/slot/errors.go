package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Errors to test for with errors.Is. The text of what wraps them is a sentence
// for the user; the server's own error is in the chain as *pgconn.PgError.
var (
	// ErrUnreachable: no server answers at the address, TLS could not be agreed
	// on, or the connection broke. Trying again may help.
	ErrUnreachable = errors.New("the server cannot be reached")
	// ErrAuth: the server refuses user or password, or pg_hba.conf has no line.
	ErrAuth = errors.New("the server refuses the login")
	// ErrNoDatabase: the server has no such database.
	ErrNoDatabase = errors.New("the database does not exist")
	// ErrNotReady: the server is starting or stopping, or has no connection
	// left. Trying again helps.
	ErrNotReady = errors.New("the server takes no connection now")
	// ErrPrivilege: the user lacks a right.
	ErrPrivilege = errors.New("a right is missing")
	// ErrSlotInUse: another client streams from the slot.
	ErrSlotInUse = errors.New("the replication slot is in use")
	// ErrSlotMissing: there is no slot of that name.
	ErrSlotMissing = errors.New("the replication slot does not exist")
	// ErrSlotExists: CreateSlot found one of that name.
	ErrSlotExists = errors.New("the replication slot exists already")
	// ErrSlotLost: Postgres has removed WAL that the slot needs.
	ErrSlotLost = errors.New("the replication slot is lost")
	// ErrSlotUnfit: the slot is of another plugin, database or kind.
	ErrSlotUnfit = errors.New("the replication slot is not fit for firn")
	// ErrNoSlotFree: max_replication_slots is reached.
	ErrNoSlotFree = errors.New("no replication slot is free")
	// ErrPublicationMissing: the publication does not exist.
	ErrPublicationMissing = errors.New("the publication does not exist")
	// ErrPublicationUnfit: a publication of that name is FOR ALL TABLES or
	// names schemas, so its tables can't be listed one by one.
	ErrPublicationUnfit = errors.New("the publication is not fit for firn")
	// ErrBusy: a table lock or the slot could not be had within the patience
	// that was given.
	ErrBusy = errors.New("other transactions are in the way")
	// ErrSnapshotGone: the exported snapshot can't be imported any more.
	ErrSnapshotGone = errors.New("the exported snapshot is gone")
	// ErrHidden: a commit that was streamed, and may have altered the table, is
	// not shown to other sessions yet: a synchronous standby is away, or waits
	// for us.
	ErrHidden = errors.New("committed, and not visible to others yet (is a synchronous standby away?)")
	// ErrTableChanged: a table was altered between its description and its
	// COPY: describe it and load it again.
	ErrTableChanged = errors.New("the table has changed")
	// ErrShutdown: Postgres is shutting down; the stream was dropped so that it
	// can. The slot keeps what was not acknowledged.
	ErrShutdown = errors.New("the server is shutting down")
)

// classify puts one of the errors above before err where its SQLSTATE or kind
// is known. An err that has one already stays as it is.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	for _, k := range []error{ErrUnreachable, ErrAuth, ErrNoDatabase, ErrNotReady, ErrPrivilege, ErrSlotInUse,
		ErrSlotMissing, ErrSlotExists, ErrSlotLost, ErrSlotUnfit, ErrNoSlotFree, ErrPublicationMissing,
		ErrPublicationUnfit, ErrBusy, ErrSnapshotGone, ErrTableChanged, ErrShutdown} {
		if errors.Is(err, k) {
			return err
		}
	}
	if kind := kindOf(err); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

func kindOf(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "28000", "28P01":
			return ErrAuth
		case "3D000":
			return ErrNoDatabase
		case "42501":
			return ErrPrivilege
		case "57P03", "53300":
			return ErrNotReady
		case "57P01", "57P02":
			return ErrShutdown
		}
		return nil
	}
	// Which of pgconn's errors arise while connecting, only this type tells.
	var ce *pgconn.ConnectError
	var ne net.Error
	if errors.As(err, &ce) || errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrUnreachable
	}
	return nil
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// lostTriesMax is how often a slot is looked at whose walsender was ended while
// Postgres goes on.
const lostTriesMax = 5

// explain finds out what the slot or publication has to do with an error of
// the stream.
func (s *Source) explain(ctx context.Context, err error) error {
	switch c := code(err); {
	case c == "42704" && strings.Contains(err.Error(), "publication"):
		return fmt.Errorf("%w: %w", ErrPublicationMissing, err)
	case c == "42704" && strings.Contains(err.Error(), s.o.Slot):
		return fmt.Errorf("%w: %w", ErrSlotMissing, err)
	case errors.Is(err, ErrShutdown), errors.Is(err, ErrUnreachable), errors.Is(err, ErrAuth):
		return err
	}
	// Invalidated in use: the walsender is ended as if by an administrator
	// (57P01), or the socket just closes. The slot is marked only after that.
	for try := 1; ; try++ {
		_, cerr := s.checkSlot(ctx)
		if errors.Is(cerr, ErrSlotLost) || errors.Is(cerr, ErrSlotMissing) {
			return fmt.Errorf("%w: %w", cerr, err)
		}
		if cerr != nil || code(err) != "57P01" || try == lostTriesMax || sleep(ctx, slotRetry) != nil {
			return classify(err)
		}
	}
}
