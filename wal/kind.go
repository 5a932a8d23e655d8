package wal

import (
	"errors"
	"fmt"
	"time"
)

// The kinds of message that Decode knows, of protocol versions 1 to 4.
const (
	KindBegin        Kind = 'B'
	KindCommit       Kind = 'C'
	KindOrigin       Kind = 'O'
	KindRelation     Kind = 'R'
	KindType         Kind = 'Y'
	KindInsert       Kind = 'I'
	KindUpdate       Kind = 'U'
	KindDelete       Kind = 'D'
	KindTruncate     Kind = 'T'
	KindLogical      Kind = 'M' // pg_logical_emit_message
	KindStreamStart  Kind = 'S'
	KindStreamStop   Kind = 'E'
	KindStreamCommit Kind = 'c'
	KindStreamAbort  Kind = 'A'
)

// String is the message's name in Postgres' documentation.
func (k Kind) String() string {
	switch k {
	case KindBegin:
		return "Begin"
	case KindCommit:
		return "Commit"
	case KindOrigin:
		return "Origin"
	case KindRelation:
		return "Relation"
	case KindType:
		return "Type"
	case KindInsert:
		return "Insert"
	case KindUpdate:
		return "Update"
	case KindDelete:
		return "Delete"
	case KindTruncate:
		return "Truncate"
	case KindLogical:
		return "Message"
	case KindStreamStart:
		return "Stream Start"
	case KindStreamStop:
		return "Stream Stop"
	case KindStreamCommit:
		return "Stream Commit"
	case KindStreamAbort:
		return "Stream Abort"
	}
	return fmt.Sprintf("%q", byte(k))
}

// ErrTwoPhase is returned for the messages of prepared transactions: the slot
// was made, or has been altered, with two_phase, and such a slot can't be used.
var ErrTwoPhase = errors.New("the slot sends prepared transactions (two_phase), which aren't supported")

// Begin opens a transaction that is sent whole, after its commit.
type Begin struct {
	FinalLSN LSN       // start of its commit record
	Time     time.Time // of the commit
	XID      uint32
}

// Commit closes what Begin opened.
type Commit struct {
	LSN    LSN // start of the commit record
	EndLSN LSN // end of the commit record
	Time   time.Time
}

// Type names the type of a column whose OID is not built in. Of a domain, Name
// is that of the base type though OID is the domain's.
type Type struct {
	OID             uint32
	Namespace, Name string
}

// Truncate empties tables. Cascade and Restart are the statement's options.
type Truncate struct {
	Relations        []uint32
	Cascade, Restart bool
}

// Origin says that the transaction began on another server.
type Origin struct {
	LSN  LSN
	Name string
}

// Logical is a message by pg_logical_emit_message. One that isn't
// transactional comes outside Begin and Commit, from aborted transactions too.
type Logical struct {
	Transactional bool
	LSN           LSN
	Prefix        string
	Content       []byte // points into the message
}

// StreamStart opens a segment of a transaction that is still in progress.
type StreamStart struct {
	XID   uint32 // of the top transaction
	First bool   // the transaction's first segment
}

// StreamCommit commits a streamed transaction; fields as in Commit.
type StreamCommit struct {
	XID         uint32
	LSN, EndLSN LSN
	Time        time.Time
}

// StreamAbort drops what SubXID did in the streamed transaction XID; equal
// numbers drop all of it. LSN and Time are zero unless streaming is 'parallel'.
type StreamAbort struct {
	XID, SubXID uint32
	LSN         LSN
	Time        time.Time
}
