package lake

import (
	"context"
	"errors"
	"strings"
	"time"

	"firn/wal"
)

// Source is the Postgres database that is mirrored.
type Source interface {
	Identify(ctx context.Context) (Identity, error)
	// SwitchPoint is where the server's history left timeline from; ok is
	// false if that timeline is not in it.
	SwitchPoint(ctx context.Context, from int32) (lsn wal.LSN, ok bool, err error)
	// FlushLSN is how far the server's WAL may be sent: on a primary what it has
	// flushed, on a standby what it has replayed.
	FlushLSN(ctx context.Context) (wal.LSN, error)
	Catalog
	Replication
}

// Catalog is what the source's system catalogs tell, at present.
type Catalog interface {
	// Look describes the tables that the user's patterns match, usable or not.
	Look(ctx context.Context) (Look, error)
	// Describe tells one table as it is now; nil: it no longer exists. The
	// transaction after has been streamed, and what it did to the table is in
	// it; if that can't be had soon, ErrHidden.
	Describe(ctx context.Context, oid, after uint32) (*wal.Table, error)
	// Publish makes the publication list exactly these tables, those of which
	// only inserts and truncates are wanted (wal.Table.Append) apart.
	Publish(ctx context.Context, tables, appended []wal.TableName) (Memberships, error)
}

// Memberships are the tables in the publication by OID, as a whole, each with
// the number of its stay there, from 1: one that leaves and comes back gets
// another, whoever took it out. The stream has every commit of one stay.
type Memberships map[uint32]uint32

// Look is what one look at the catalogs saw. By the time it is taken up the
// stream may be before it or past it.
type Look struct {
	Tables  []wal.Table
	Visible wal.Visible // whose commits it saw
	End     wal.LSN     // the server's WAL end after it: those commits are before
}

// Replication is the slot and what comes out of it.
type Replication interface {
	// Slot tells the state of our slot, nil if there is none.
	Slot(ctx context.Context) (*SlotState, error)
	DropSlot(ctx context.Context) error
	// Snapshot creates our slot (permanent), or a temporary one beside it,
	// and exports the snapshot of its consistent point. The tables are locked
	// ACCESS SHARE before, so that none can be rewritten under the copy; the
	// lock of a table ends with its Copy.
	Snapshot(ctx context.Context, permanent bool, tables []wal.TableName) (Snapshot, error)
	// Stream starts our slot's stream at start. It waits a while for a slot
	// that another process holds, and then answers ErrSlotInUse. inProgress
	// asks for large transactions while they are still open.
	Stream(ctx context.Context, start wal.LSN, inProgress bool) (Stream, error)
}

// Identity says which server and database this is, and how far its WAL is.
type Identity struct {
	SystemID    string
	Timeline    int32
	Database    string
	WALPosition wal.LSN
}

// SlotState is pg_replication_slots' row of our slot.
type SlotState struct {
	ConfirmedFlush wal.LSN
	Lost           string // why it can't be used any more; empty: it can
}

// Snapshot is an exported snapshot and the connections that hold it.
type Snapshot interface {
	// Point is the slot's consistent point: commits whose record starts before
	// it are in the snapshot, all others in the stream.
	Point() wal.LSN
	// Describe tells a table under the snapshot's lock.
	Describe(ctx context.Context, oid uint32) (*wal.Table, error)
	// Parts opens a table until Done and cuts it into ranges, of which n are
	// copied at the same time. One table is open at a time.
	Parts(ctx context.Context, t *wal.Table, n int) ([]Part, error)
	// Copy reads one part in binary form; text lists, by index into
	// t.Columns, the columns to be cast to text, generated ones are left out.
	// A nil value is NULL. row is fn's until it returns.
	Copy(ctx context.Context, t *wal.Table, p Part, text []bool, fn func(row [][]byte) error) error
	// Done closes the table and releases its lock.
	Done(t *wal.Table)
	// Close ends the snapshot, and the slot if it is a temporary one.
	Close()
}

// Part is a range of a table's pages within one snapshot.
type Part struct {
	Schema, Table string // the leaf, for a partitioned table
	From, To      int64  // pages [From, To); To < 0: to the end
}

// Stream is the replication stream. Run reads it until ctx ends or it breaks;
// Batches is closed when Run returns.
type Stream interface {
	Run(ctx context.Context) error
	Batches() <-chan *wal.Batch
	// Ack tells the server that everything before lsn is durable.
	Ack(lsn wal.LSN)
	// Ping asks the server for its position, which comes as a keepalive.
	Ping()
}

// Errors of the ports that the owner tells apart.
var (
	// ErrSlotInUse: another process holds the slot.
	ErrSlotInUse = errors.New("the replication slot is in use")
	// ErrHidden: what a streamed transaction did to a table can't be seen yet.
	ErrHidden = errors.New("a transaction that was streamed is not visible to others yet")
	// ErrFenced: a newer run has taken the lake over.
	ErrFenced = errors.New("another firn has taken over this lake")
	// ErrMoved: somebody else's commit moved a mirrored table.
	ErrMoved = errors.New("a mirrored table was committed to by another client")
	// ErrUnreadable: what a table's metadata names is missing, or is not what it
	// should be. To try again is no use, and no other table is concerned.
	ErrUnreadable = errors.New("the table's files in the lake can't be read")
	// ErrVanished: a data file was uploaded, and is gone before its publication.
	ErrVanished = errors.New("an uploaded data file has vanished from the store")
)

// MovedError is an ErrMoved that names the tables.
type MovedError struct{ Tables []Ident }

func (m *MovedError) Error() string {
	names := make([]string, len(m.Tables))
	for i, t := range m.Tables {
		names[i] = t.String()
	}
	return ErrMoved.Error() + ": " + strings.Join(names, ", ")
}

func (m *MovedError) Is(target error) bool { return target == ErrMoved }

// Head is the lake's published state: one pointer that all tables move with.
type Head interface {
	// Read returns the newest state.
	Read(ctx context.Context) (*HeadState, error)
	// Claim makes this run the source's one writer.
	Claim(ctx context.Context) error
	// Publish makes one entry of p: all of it or, with an error, nothing.
	// *MovedError: tables aren't at their Moves' From any more. ErrFenced.
	Publish(ctx context.Context, p Publication) error
	// Changed is closed when the state next changes, by us or others.
	Changed() <-chan struct{}
}

// HeadState is what the head says.
type HeadState struct {
	Empty      bool // nothing has ever been written
	Source     *SourceState
	LSN        wal.LSN
	Epoch      uint64
	CommitTime time.Time
	XID        uint32
	Tables     []HeadTable
	Foreign    []Ident // tables and views that others made: no mirrored table can have their names
}

// SourceState is the source a lake belongs to.
type SourceState struct {
	SystemID string
	Timeline int32
	Database string
	Point    wal.LSN // the slot's consistent point
	Creating bool    // the slot is about to be created
}

// States of a mirrored table.
const (
	Loading     = "loading"
	Streaming   = "streaming"
	Behind      = "behind"
	Skipped     = "skipped"
	Quarantined = "quarantined"
)

// TableState is a table's standing. LSN is its position while it is not
// streaming; a streaming table's is the head's.
type TableState struct {
	OID    uint32
	LSN    wal.LSN
	State  string
	Reason string
	Resync bool // its rows have to be loaded anew
}

// HeadTable is a mirrored table as the head names it.
type HeadTable struct {
	Ident    Ident
	Metadata string // URI
	TableState
}

// Publication is one entry: the moves of any number of tables.
type Publication struct {
	Stamp  // LSN 0: the head's is kept
	Source *SourceState
	Moves  []Move
	States map[Ident]TableState // only those that change
}

// Tables makes and opens the files of tables.
type Tables interface {
	Create(ctx context.Context, id Ident, l *Layout) (TableStore, error)
	// Open reads what is live in a table. ErrUnreadable.
	Open(ctx context.Context, id Ident, metadata string) (TableStore, error)
	// Base opens a table as if it were empty, for a load that replaces all its
	// rows: only its metadata has to be readable.
	Base(ctx context.Context, id Ident, metadata string) (TableStore, error)
}
