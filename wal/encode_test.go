package wal_test

import (
	"encoding/binary"
	"time"

	"firn/wal"
)

// encoder writes messages as Postgres' proto.c does.
type encoder struct{ b []byte }

func message(kind wal.Kind) *encoder { return &encoder{[]byte{byte(kind)}} }

func (e *encoder) u8(v byte) *encoder      { e.b = append(e.b, v); return e }
func (e *encoder) u16(v int) *encoder      { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)); return e }
func (e *encoder) u32(v uint32) *encoder   { e.b = binary.BigEndian.AppendUint32(e.b, v); return e }
func (e *encoder) u64(v uint64) *encoder   { e.b = binary.BigEndian.AppendUint64(e.b, v); return e }
func (e *encoder) lsn(v wal.LSN) *encoder  { return e.u64(uint64(v)) }
func (e *encoder) str(s string) *encoder   { e.b = append(append(e.b, s...), 0); return e }
func (e *encoder) bytes(b []byte) *encoder { e.u32(uint32(len(b))); e.b = append(e.b, b...); return e }
func (e *encoder) time(t time.Time) *encoder {
	return e.u64(uint64(t.UnixMicro() - 946684800_000_000))
}

// xid is there within streamed segments only, as 0 is elsewhere.
func (e *encoder) xid(v uint32) *encoder {
	if v != 0 {
		e.u32(v)
	}
	return e
}

func (e *encoder) flag(v bool, bit byte) byte {
	if v {
		return bit
	}
	return 0
}

func (e *encoder) tuple(tag byte, t wal.Tuple) *encoder {
	e.u8(tag).u16(len(t))
	for _, v := range t {
		e.u8(v.Kind)
		if v.Kind == 't' || v.Kind == 'b' {
			e.bytes(v.Data)
		}
	}
	return e
}

// encode writes what d has decoded.
func encode(kind wal.Kind, d *wal.Decoder) []byte {
	e := message(kind)
	switch kind {
	case wal.KindBegin:
		e.lsn(d.Begin.FinalLSN).time(d.Begin.Time).u32(d.Begin.XID)
	case wal.KindCommit:
		e.u8(0).lsn(d.Commit.LSN).lsn(d.Commit.EndLSN).time(d.Commit.Time)
	case wal.KindOrigin:
		e.lsn(d.Origin.LSN).str(d.Origin.Name)
	case wal.KindRelation:
		r := d.Relation
		e.xid(d.XID).u32(r.ID).str(r.Namespace).str(r.Name).u8(r.ReplicaIdentity).u16(len(r.Columns))
		for _, c := range r.Columns {
			e.u8(e.flag(c.Key, 1)).str(c.Name).u32(c.TypeOID).u32(uint32(c.TypeMod))
		}
	case wal.KindType:
		e.xid(d.XID).u32(d.Type.OID).str(d.Type.Namespace).str(d.Type.Name)
	case wal.KindInsert, wal.KindUpdate, wal.KindDelete:
		e.xid(d.XID).u32(d.RelationID)
		if d.OldKind != 0 {
			e.tuple(d.OldKind, d.Old)
		}
		if kind != wal.KindDelete {
			e.tuple('N', d.New)
		}
	case wal.KindTruncate:
		e.xid(d.XID).u32(uint32(len(d.Truncate.Relations)))
		e.u8(e.flag(d.Truncate.Cascade, 1) | e.flag(d.Truncate.Restart, 2))
		for _, id := range d.Truncate.Relations {
			e.u32(id)
		}
	case wal.KindLogical:
		e.xid(d.XID).u8(e.flag(d.Logical.Transactional, 1)).lsn(d.Logical.LSN).str(d.Logical.Prefix).bytes(d.Logical.Content)
	case wal.KindStreamStart:
		e.u32(d.StreamStart.XID).u8(e.flag(d.StreamStart.First, 1))
	case wal.KindStreamCommit:
		c := d.StreamCommit
		e.u32(c.XID).u8(0).lsn(c.LSN).lsn(c.EndLSN).time(c.Time)
	case wal.KindStreamAbort:
		a := d.StreamAbort
		e.u32(a.XID).u32(a.SubXID)
		if !a.Time.IsZero() {
			e.lsn(a.LSN).time(a.Time)
		}
	}
	return e.b
}
