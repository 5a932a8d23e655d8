package wal

import (
	"errors"
	"fmt"
)

// Decoder reads pgoutput messages of protocol versions 1 to 4. Decode fills
// the fields that belong to the returned Kind and leaves the others as they
// were; all are valid until the next Decode, unless said otherwise, and Values
// and Content no longer than the message's buffer.
//
// A message doesn't say whether it belongs to a streamed segment, where most
// carry a transaction number; the Decoder knows from the Stream Start and Stop
// it has seen. So one Decoder reads one connection, in order. The zero Decoder
// is ready.
type Decoder struct {
	Begin        Begin
	Commit       Commit
	Relation     *Relation // of KindRelation; a copy, which may be kept
	Type         Type
	Truncate     Truncate
	Origin       Origin
	Logical      Logical
	StreamStart  StreamStart
	StreamCommit StreamCommit
	StreamAbort  StreamAbort

	// RelationID is the table of an Insert, Update or Delete.
	RelationID uint32
	// OldKind says what Old has: 'K' the replica identity's columns (the others
	// are 'n', which does not mean NULL), 'O' the whole row, 0 nothing.
	OldKind byte
	// Old and New are the row before and after. An Insert has only New, a
	// Delete only Old, an Update New and, after a change of the identity or
	// under REPLICA IDENTITY FULL, Old.
	Old, New Tuple
	// XID is the (sub)transaction that made the change, within a streamed
	// segment; 0 elsewhere.
	XID uint32

	inStream       bool
	oldBuf, newBuf Tuple
	relations      []uint32
}

// InStream says whether the last Decode left the stream within a segment of a
// transaction in progress.
func (d *Decoder) InStream() bool { return d.inStream }

// SetInStream says where the next message comes from, for messages that were
// parked and are read again without the Stream Start and Stop around them.
func (d *Decoder) SetInStream(in bool) { d.inStream = in }

// Reset forgets the stream's state, for a new connection. It keeps buffers.
func (d *Decoder) Reset() { d.inStream = false }

// Decode reads one message: the payload of one XLogData. It allocates nothing
// for Insert, Update and Delete once its buffers have grown to the widest row.
// After an error the fields have no meaning and the state is as before.
func (d *Decoder) Decode(msg []byte) (Kind, error) {
	if len(msg) == 0 {
		return 0, errors.New("decode message: it is empty")
	}
	kind := Kind(msg[0])
	c := cursor{b: msg, at: 1}
	d.XID = 0
	switch kind {
	case KindInsert, KindUpdate, KindDelete:
		if d.inStream {
			d.XID = c.xid()
		}
		d.row(kind, &c)
	case KindRelation, KindType, KindTruncate, KindLogical:
		if d.inStream {
			d.XID = c.xid()
		}
		d.describe(kind, &c)
	case KindBegin, KindCommit, KindStreamStart, KindStreamStop, KindStreamCommit, KindStreamAbort:
		d.boundary(kind, &c)
	case KindOrigin:
		d.Origin = Origin{LSN: c.lsn(), Name: c.string()}
	case 'b', 'P', 'K', 'r', 'p':
		return 0, fmt.Errorf("decode message %q: %w", msg[0], ErrTwoPhase)
	default:
		return 0, fmt.Errorf("decode message: unknown kind %q", msg[0])
	}
	if c.wrong == "" && c.at != len(msg) {
		c.fail("bytes are left over")
	}
	if c.wrong != "" {
		return 0, fmt.Errorf("decode %v message: byte %d of %d: %s", kind, c.at, len(msg), c.wrong)
	}
	// Only now, so that a broken message doesn't change the state.
	switch kind {
	case KindStreamStart:
		d.inStream = true
	case KindStreamStop:
		d.inStream = false
	}
	return kind, nil
}

// row reads Insert, Update and Delete.
func (d *Decoder) row(kind Kind, c *cursor) {
	d.OldKind, d.Old, d.New = 0, nil, nil
	d.RelationID = c.uint32()
	tag := c.byte()
	if kind != KindInsert && (tag == 'K' || tag == 'O') {
		d.OldKind = tag
		d.oldBuf = c.tuple(d.oldBuf[:0])
		d.Old = d.oldBuf
		if kind == KindDelete {
			return
		}
		tag = c.byte()
	}
	if kind == KindDelete || tag != 'N' {
		c.fail("unknown tuple tag")
		return
	}
	d.newBuf = c.tuple(d.newBuf[:0])
	d.New = d.newBuf
}

// describe reads what isn't a row but belongs to a transaction.
func (d *Decoder) describe(kind Kind, c *cursor) {
	switch kind {
	case KindRelation:
		d.Relation = c.relation()
	case KindType:
		d.Type = Type{OID: c.uint32(), Namespace: c.namespace(), Name: c.string()}
	case KindTruncate:
		n := int(c.uint32())
		flags := c.byte()
		if n > c.left()/4 {
			c.fail("more tables than the message can hold")
			return
		}
		d.relations = d.relations[:0]
		for range n {
			d.relations = append(d.relations, c.uint32())
		}
		d.Truncate = Truncate{Relations: d.relations, Cascade: flags&1 != 0, Restart: flags&2 != 0}
	case KindLogical:
		flags := c.byte()
		d.Logical = Logical{Transactional: flags&1 != 0, LSN: c.lsn(), Prefix: c.string()}
		d.Logical.Content = c.bytes(c.uint32())
	}
}

// boundary reads where transactions and their segments begin and end.
func (d *Decoder) boundary(kind Kind, c *cursor) {
	if d.inStream != (kind == KindStreamStop) {
		if d.inStream {
			c.fail("it can't come within a streamed segment")
		} else {
			c.fail("no streamed segment is open")
		}
		return
	}
	switch kind {
	case KindBegin:
		d.Begin = Begin{FinalLSN: c.lsn(), Time: c.time(), XID: c.uint32()}
	case KindCommit:
		c.noFlags()
		d.Commit = Commit{LSN: c.lsn(), EndLSN: c.lsn(), Time: c.time()}
	case KindStreamStart:
		d.StreamStart = StreamStart{XID: c.xid(), First: c.byte() == 1}
	case KindStreamCommit:
		x := c.xid()
		c.noFlags()
		d.StreamCommit = StreamCommit{XID: x, LSN: c.lsn(), EndLSN: c.lsn(), Time: c.time()}
	case KindStreamAbort:
		d.StreamAbort = StreamAbort{XID: c.xid(), SubXID: c.xid()}
		if c.left() > 0 { // protocol 4 with streaming 'parallel'
			d.StreamAbort.LSN, d.StreamAbort.Time = c.lsn(), c.time()
		}
	}
}
