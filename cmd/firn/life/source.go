package life

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"firn/lake"
	"firn/wal"
)

// The table, as Postgres would know it.
const (
	tableOID    = 16384
	tableSchema = "public"
	tableName   = "events"
)

// source is a Postgres that never was: what it says of itself, one table by COPY,
// and a stream that brings what it is given.
type source struct {
	ledger *Ledger
	point  wal.LSN // of the slot
	end    wal.LSN // of the last commit
	made   bool    // the slot
	parts  int     // of the COPY
	xid    uint32
	stream *stream

	streaming bool
}

func newSource(l *Ledger) *source {
	const first = 1 << 24
	return &source{ledger: l, point: first, end: first, parts: 8, stream: &stream{batches: make(chan *wal.Batch)}}
}

func (s *source) Identify(context.Context) (lake.Identity, error) {
	return lake.Identity{SystemID: "1", Timeline: 1, Database: "life", WALPosition: s.end}, nil
}

func (s *source) SwitchPoint(context.Context, int32) (wal.LSN, bool, error) { return 0, false, nil }

// FlushLSN is never ahead of what the stream brings.
func (s *source) FlushLSN(context.Context) (wal.LSN, error) { return s.point, nil }

func (s *source) table() *wal.Table {
	t := &wal.Table{OID: tableOID, Schema: tableSchema, Name: tableName, ReplicaIdentity: 'd', Key: []int{0},
		Rows: s.ledger.Rows(), FileNode: tableOID, MaxAttNum: int16(len(columns)), Usable: true}
	for i, c := range columns {
		t.Columns = append(t.Columns, wal.TableColumn{AttNum: int16(i + 1), Name: c.name, Type: c.typ, NotNull: i == 0})
	}
	return t
}

func (s *source) Look(context.Context) (lake.Look, error) {
	return lake.Look{Tables: []wal.Table{*s.table()}, End: s.end}, nil
}

func (s *source) Describe(context.Context, uint32, uint32) (*wal.Table, error) { return s.table(), nil }

func (s *source) Publish(context.Context, []wal.TableName, []wal.TableName) (lake.Memberships, error) {
	return lake.Memberships{tableOID: 1}, nil
}

func (s *source) Slot(context.Context) (*lake.SlotState, error) {
	if !s.made {
		return nil, nil
	}
	return &lake.SlotState{ConfirmedFlush: s.point}, nil
}

func (s *source) DropSlot(context.Context) error { s.made = false; return nil }

func (s *source) Snapshot(context.Context, bool, []wal.TableName) (lake.Snapshot, error) {
	s.made = true
	return exported{s}, nil
}

func (s *source) Stream(context.Context, wal.LSN, bool) (lake.Stream, error) {
	if s.streaming {
		return nil, errors.New("stream: what was sent is not kept, so that it can't begin again")
	}
	s.streaming = true
	return s.stream, nil
}

// exported is the ledger as it stands while nothing is added to it.
type exported struct{ *source }

func (e exported) Point() wal.LSN { return e.point }

func (e exported) Describe(context.Context, uint32) (*wal.Table, error) { return e.table(), nil }

func (e exported) Parts(context.Context, *wal.Table, int) ([]lake.Part, error) {
	var out []lake.Part
	ids := int64(len(e.ledger.versions))
	for i := range int64(e.parts) {
		out = append(out, lake.Part{Schema: tableSchema, Table: tableName, From: ids * i / int64(e.parts), To: ids * (i + 1) / int64(e.parts)})
	}
	return out, nil
}

func (e exported) Copy(ctx context.Context, _ *wal.Table, p lake.Part, _ []bool, fn func([][]byte) error) error {
	values, buf := make([][]byte, len(columns)), make([]byte, 0, 1<<10)
	for id := p.From; id < p.To; id++ {
		version := e.ledger.versions[id]
		if version == 0 {
			continue
		}
		r := rowOf(id, version)
		r.binary(values, buf)
		if err := fn(values); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (e exported) Done(*wal.Table) {}
func (e exported) Close()          {}

// transaction changes the ledger by a number of changes, and encodes that as the
// stream's messages, committed at a time.
func (s *source) transaction(changes int, at time.Time) (b []byte, end wal.LSN) {
	s.xid++
	start := s.end
	final := start + wal.LSN(changes)*100
	end = final + 48
	us := uint64(at.UnixMicro() - 946684800_000_000)
	message := func(fill func([]byte) []byte) {
		b = append(b, 'd', 0, 0, 0, 0)
		length := len(b) - 4
		b = append(b, 'w')
		b = binary.BigEndian.AppendUint64(b, uint64(start))
		b = binary.BigEndian.AppendUint64(b, uint64(start))
		b = fill(binary.BigEndian.AppendUint64(b, us))
		binary.BigEndian.PutUint32(b[length:], uint32(len(b)-length))
	}
	message(func(b []byte) []byte {
		b = binary.BigEndian.AppendUint64(append(b, 'B'), uint64(final))
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, us), s.xid)
	})
	if s.xid == 1 {
		message(relation)
	}
	change := func(kind, tuple byte, fill func([]byte) []byte) {
		message(func(b []byte) []byte {
			b = append(binary.BigEndian.AppendUint32(append(b, kind), tableOID), tuple)
			return fill(binary.BigEndian.AppendUint16(b, uint16(len(columns))))
		})
	}
	l := s.ledger
	for i := range changes {
		// Spread evenly, whatever the number.
		switch at := i * 37 % 100; {
		case at < updatesOf100:
			id := l.some()
			if l.versions[id]++; l.versions[id] == 0 { // wrapped
				l.versions[id] = 1
			}
			r := rowOf(id, l.versions[id])
			change('U', 'N', r.texts)
		case at < updatesOf100+deletesOf100:
			id := l.some()
			l.versions[id] = 0
			l.rows--
			r := row{id: id}
			change('D', 'K', r.keyText)
		default:
			id := l.insert()
			r := rowOf(id, l.versions[id])
			change('I', 'N', r.texts)
		}
	}
	message(func(b []byte) []byte {
		b = binary.BigEndian.AppendUint64(append(b, 'C', 0), uint64(final))
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(end)), us)
	})
	s.end = end
	return b, end
}

// keyText appends the row as pgoutput has a deleted one: its key, and nothing else.
func (r *row) keyText(b []byte) []byte {
	all := len(b)
	b = r.texts(b)
	b = b[:all+5+int(binary.BigEndian.Uint32(b[all+1:]))]
	for range len(columns) - 1 {
		b = append(b, 'n')
	}
	return b
}

// relation appends the message that describes the table.
func relation(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 'R'), tableOID)
	b = append(append(b, tableSchema...), 0)
	b = append(append(b, tableName...), 0, 'd')
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for i, c := range columns {
		key := byte(0)
		if i == 0 {
			key = 1
		}
		b = append(append(append(b, key), c.name...), 0)
		b = binary.BigEndian.AppendUint32(b, c.typ.OID)
		b = binary.BigEndian.AppendUint32(b, uint32(c.typ.Mod))
	}
	return b
}

// stream hands on what is put into it.
type stream struct{ batches chan *wal.Batch }

// Run only waits: the batches come from elsewhere, which ends before ctx does.
func (s *stream) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (s *stream) Batches() <-chan *wal.Batch { return s.batches }
func (s *stream) Ack(wal.LSN)                {}
func (s *stream) Ping()                      {}
