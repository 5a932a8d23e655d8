package wal

import (
	"bytes"
	"encoding/binary"
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

// cursor reads a message from at on. After the first thing wrong all reads
// give zero, so that callers check once, at the end.
type cursor struct {
	b     []byte
	at    int
	wrong string
}

const truncated = "the message is cut short"

func (c *cursor) fail(what string) {
	if c.wrong == "" {
		c.wrong = what
	}
}

func (c *cursor) left() int { return len(c.b) - c.at }

// take returns the next n bytes, or nil when they aren't there.
func (c *cursor) take(n int) []byte {
	if c.wrong != "" || n > len(c.b)-c.at {
		c.fail(truncated)
		return nil
	}
	p := c.b[c.at : c.at+n : c.at+n]
	c.at += n
	return p
}

func (c *cursor) byte() byte {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if p := c.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if p := c.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if p := c.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) lsn() LSN { return LSN(c.uint64()) }

func (c *cursor) time() time.Time { return Clock(int64(c.uint64())) }

func (c *cursor) xid() uint32 {
	x := c.uint32()
	if x == 0 {
		c.fail("the transaction number is 0")
	}
	return x
}

func (c *cursor) noFlags() {
	if c.byte() != 0 {
		c.fail("unknown flags")
	}
}

func (c *cursor) bytes(n uint32) []byte {
	if int64(n) > int64(c.left()) {
		c.fail(truncated)
		return nil
	}
	return c.take(int(n))
}

// string reads up to a zero byte.
func (c *cursor) string() string {
	if c.wrong != "" {
		return ""
	}
	n := bytes.IndexByte(c.b[c.at:], 0)
	if n < 0 {
		c.fail("a string has no end")
		return ""
	}
	s := string(c.b[c.at : c.at+n])
	c.at += n + 1
	return s
}

// namespace reads a schema, which is empty for pg_catalog.
func (c *cursor) namespace() string {
	if s := c.string(); s != "" {
		return s
	}
	return "pg_catalog"
}

// columnBytesMin is the least a column of a Relation takes: flags, an empty
// name, type and typmod.
const columnBytesMin = 1 + 1 + 4 + 4

func (c *cursor) relation() *Relation {
	r := &Relation{ID: c.uint32(), Namespace: c.namespace(), Name: c.string(), ReplicaIdentity: c.byte()}
	n := int(c.uint16())
	if n > c.left()/columnBytesMin {
		c.fail("more columns than the message can hold")
		return nil
	}
	r.Columns = make([]Column, n)
	for i := range r.Columns {
		flags := c.byte()
		r.Columns[i] = Column{Key: flags&1 != 0, Name: c.string(), TypeOID: c.uint32(), TypeMod: int32(c.uint32())}
	}
	return r
}

// tuple appends a row's values to t. This is the hot loop: it works on local
// variables, and looks for room once per value.
func (c *cursor) tuple(t Tuple) Tuple {
	n := int(c.uint16())
	if c.wrong != "" {
		return t
	}
	b, at := c.b, c.at
	for range n {
		if at >= len(b) {
			c.at = at
			c.fail(truncated)
			return t
		}
		kind := b[at]
		at++
		switch kind {
		case 'n', 'u':
			t = append(t, Value{Kind: kind})
		case 't', 'b':
			if len(b)-at < 4 {
				c.at = at
				c.fail(truncated)
				return t
			}
			size := int64(binary.BigEndian.Uint32(b[at:]))
			at += 4
			if size > int64(len(b)-at) {
				c.at = at
				c.fail("a value is longer than the message")
				return t
			}
			end := at + int(size)
			t = append(t, Value{Kind: kind, Data: b[at:end:end]})
			at = end
		default:
			c.at = at - 1
			c.fail("unknown kind of value")
			return t
		}
	}
	c.at = at
	return t
}
