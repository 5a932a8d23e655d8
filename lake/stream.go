package lake

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"firn/lake/column"
	"firn/wal"
	"firn/wal/spool"
)

// transaction is the one whose changes are being applied.
type transaction struct {
	open  bool
	final wal.LSN // start of its commit record
	time  time.Time
	xid   uint32
}

// parkedTxn is a transaction that Postgres streams while it is in progress:
// its messages wait on disk, as they came but for the subtransaction's id,
// until its end is known.
type parkedTxn struct {
	xid     uint32
	spool   *spool.Spool
	aborted map[uint32]bool // subtransactions rolled back
}

func (p *parkedTxn) drop(log *slog.Logger) {
	if err := p.spool.Remove(); err != nil {
		log.Warn("remove parked transaction", "xid", p.xid, "err", err)
	}
}

// consume takes one batch of the stream.
func (s *session) consume(b *wal.Batch) error {
	for {
		m, ok, err := b.Next()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if m.Data == nil {
			s.keepalive(m)
			continue
		}
		if err := s.message(m.Data); err != nil {
			return err
		}
		if s.failure != nil {
			return s.failure
		}
	}
}

// pendingBytesMax bounds what all open batches together may hold, in wire bytes.
const pendingBytesMax = 64 << 20

// relieve flushes the larger open batches: with a thousand tables each may be
// far from full and all together too much.
func (s *session) relieve() error {
	var open []*Table
	for _, m := range s.members {
		if m.table != nil && m.table.open != nil {
			open = append(open, m.table)
		}
	}
	slices.SortFunc(open, func(a, b *Table) int { return b.open.bytes - a.open.bytes })
	for _, t := range open {
		if s.room.pending <= pendingBytesMax/2 {
			return nil
		}
		if err := t.flush(s.ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepalive notes how far the server has read. Outside a transaction that is
// how far we are, too: one that is still in progress comes again whole.
func (s *session) keepalive(m wal.Message) {
	if !s.txn.open {
		s.idle = max(s.idle, m.WALEnd)
	}
	if m.Reply {
		s.cutSoon = true // the server may be waiting to shut down (PROTOCOL §29)
	}
}

// message takes one pgoutput message.
func (s *session) message(data []byte) error {
	if s.inside != nil && len(data) > 0 && data[0] != byte(wal.KindStreamStop) {
		return s.park(data)
	}
	kind, err := s.decoder.Decode(data)
	if err != nil {
		return err
	}
	d := &s.decoder
	switch kind {
	case wal.KindBegin:
		return s.beginTxn(transaction{open: true, final: d.Begin.FinalLSN, time: d.Begin.Time, xid: d.Begin.XID})
	case wal.KindCommit:
		s.endTxn(d.Commit.EndLSN, d.Commit.Time)
	case wal.KindStreamStart:
		return s.beginBlock(d.StreamStart.XID)
	case wal.KindStreamStop:
		s.inside = nil
	case wal.KindStreamAbort:
		s.abort(d.StreamAbort.XID, d.StreamAbort.SubXID)
	case wal.KindStreamCommit:
		return s.commitParked(d.StreamCommit)
	case wal.KindOrigin, wal.KindType, wal.KindLogical:
		// Types are asked of the catalog; messages are nobody's rows.
	default:
		return s.change(d, kind, data)
	}
	return nil
}

func (s *session) beginTxn(t transaction) error {
	if err := s.cutBefore(t.final); err != nil {
		return err
	}
	s.txn = t
	return nil
}

func (s *session) endTxn(end wal.LSN, at time.Time) {
	s.txn.open = false
	s.received = max(s.received, end)
	if end > s.position { // else it comes again, for a table that is behind
		s.position, s.commit.xid = end, s.txn.xid
		if at.After(s.commit.time) { // clocks may run back, history may not
			s.commit.time = at
		}
	}
	s.counters.Transactions.Add(1)
}

// beginBlock opens or goes on with a streamed transaction.
func (s *session) beginBlock(xid uint32) error {
	p := s.parked[xid]
	if p == nil {
		sp, err := spool.Create(s.spoolDir, fmt.Sprintf("txn-%d-%d", xid, s.nextSpool()), s.spill)
		if err != nil {
			return fmt.Errorf("park transaction %d: %w", xid, err)
		}
		p = &parkedTxn{xid: xid, spool: sp, aborted: map[uint32]bool{}}
		s.parked[xid] = p
	}
	s.inside = p
	return nil
}

// park keeps a message of the open stream block. It carries its
// subtransaction's id after the first byte; parked, it looks as outside a block.
func (s *session) park(data []byte) error {
	if data[0] == byte(wal.KindOrigin) {
		return nil // it has no transaction's id, and nobody asks for it
	}
	if len(data) < 5 {
		return fmt.Errorf("park message %q: %d bytes are too few", data[0], len(data))
	}
	xid := binary.BigEndian.Uint32(data[1:])
	data[4] = data[0]
	err := s.inside.spool.Append(0, xid, data[4:])
	s.counters.SpilledBytes.Add(int64(len(data)))
	if err != nil {
		// Only commits of streamed transactions free their room, and they may
		// never come while we don't read: take them unstreamed (PROTOCOL §28).
		s.Lake.unstreamed = true
		s.log.Warn("no room to park transactions in progress: reading them once they have committed", "xid", s.inside.xid, "err", err)
		return fmt.Errorf("park transaction %d (%w): reading it unstreamed instead: %w", s.inside.xid, err, errRestart)
	}
	return nil
}

func (s *session) abort(xid, sub uint32) {
	p := s.parked[xid]
	if p == nil {
		return // nothing of it came since we connected
	}
	if xid != sub {
		p.aborted[sub] = true
		return
	}
	p.drop(s.log)
	delete(s.parked, xid)
}

// commitParked applies a streamed transaction as if it came now.
func (s *session) commitParked(c wal.StreamCommit) error {
	p := s.parked[c.XID]
	if err := s.beginTxn(transaction{open: true, final: c.LSN, time: c.Time, xid: c.XID}); err != nil {
		return err
	}
	if p != nil {
		r, err := p.spool.Reader()
		if err != nil {
			return fmt.Errorf("replay transaction %d: %w", c.XID, err)
		}
		var d wal.Decoder
		for {
			_, xid, msg, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("replay transaction %d: %w", c.XID, err)
			}
			if p.aborted[xid] {
				continue
			}
			kind, err := d.Decode(msg)
			if err != nil {
				return fmt.Errorf("replay transaction %d: %w", c.XID, err)
			}
			if err := s.change(&d, kind, msg); err != nil {
				return err
			}
			if s.failure != nil {
				return s.failure
			}
		}
		p.drop(s.log)
		delete(s.parked, c.XID)
	}
	s.endTxn(c.EndLSN, c.Time)
	return nil
}

// change takes a message about a relation, live or replayed from a streamed
// transaction.
func (s *session) change(d *wal.Decoder, kind wal.Kind, raw []byte) error {
	switch kind {
	case wal.KindRelation:
		if m := s.members[d.Relation.ID]; m != nil {
			if m.changes != nil {
				return s.parkFor(m, raw)
			}
			m.described(d.Relation, s.txn.xid)
		}
		return nil
	case wal.KindTruncate:
		for _, oid := range d.Truncate.Relations {
			if m := s.members[oid]; m != nil && m.takes(s.txn.final) {
				if err := s.changeOf(m, d, kind, raw); err != nil {
					return err
				}
			}
		}
		return nil
	case wal.KindInsert, wal.KindUpdate, wal.KindDelete:
		m := s.members[d.RelationID]
		if m == nil {
			if !s.strange[d.RelationID] {
				s.strange[d.RelationID] = true
				s.log.Warn("the publication has a table that is not mirrored; its changes are left out", "oid", d.RelationID)
			}
			return nil
		}
		if !m.takes(s.txn.final) {
			return nil
		}
		return s.changeOf(m, d, kind, raw)
	case wal.KindOrigin, wal.KindType, wal.KindLogical:
		return nil
	}
	return fmt.Errorf("apply change: message %s is out of place", kind)
}

// described notes a new Relation message, which came in transaction by; it is
// fitted to the table before the next row that the table takes. A partitioned
// table's comes again each time the rows' partition changes, and then says
// nothing new.
func (m *member) described(r *wal.Relation, by uint32) {
	if m.relKnown && m.desc != nil && m.desc.Partitioned && reflect.DeepEqual(m.rel, r) {
		return
	}
	m.rel, m.relBy, m.relKnown = r, by, false
}

func (s *session) changeOf(m *member, d *wal.Decoder, kind wal.Kind, raw []byte) error {
	switch {
	case m.changes != nil:
		return s.parkFor(m, raw)
	case m.state != Streaming:
		return nil
	}
	return s.apply(m, d, kind)
}

// apply does a change to a table that is followed.
func (s *session) apply(m *member, d *wal.Decoder, kind wal.Kind) error {
	if kind != wal.KindTruncate {
		if err := s.bind(s.ctx, m); err != nil {
			return err
		}
		if m.table == nil {
			return nil // bind gave it up for a fresh load, which will have read this
		}
	}
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
	t := m.table
	var err error
	switch kind {
	case wal.KindInsert:
		s.counters.Inserts.Add(1)
		err = t.insert(s.ctx, d.New)
	case wal.KindUpdate:
		s.counters.Updates.Add(1)
		err = t.update(s.ctx, oldTuple(d), d.New)
	case wal.KindDelete:
		s.counters.Deletes.Add(1)
		err = t.delete(d.Old)
	case wal.KindTruncate:
		s.counters.Truncates.Add(1)
		t.truncate()
		t.annotate(func(l *Layout) { l.truncated(s.txn.xid) })
	}
	if err := s.judge(m, err); err != nil || s.room.pending <= pendingBytesMax {
		return err
	}
	return s.relieve()
}

func oldTuple(d *wal.Decoder) wal.Tuple {
	if d.OldKind == 0 {
		return nil
	}
	return d.Old
}

// judge decides what an error of a row means: this table, or everything.
func (s *session) judge(m *member, err error) error {
	if err == nil {
		return nil
	}
	var wrong *Contradiction
	if errors.As(err, &wrong) {
		wrong.LSN = s.txn.final
		was := s.distrust[m.ident]
		if was == nil {
			was = &doubt{}
			s.distrust[m.ident] = was
		}
		if was.at == wrong.LSN || was.times >= doubtsMax {
			s.quarantine(m, wrong.Error()+", although its index was rebuilt from the files")
			return nil
		}
		was.at, was.rebuilt = wrong.LSN, false
		was.times++
		return wrong
	}
	var row *RowError
	if errors.As(err, &row) && (errors.Is(err, column.ErrUnrepresentable) || errors.Is(err, column.ErrMalformed)) {
		s.quarantine(m, fmt.Sprintf("%v (LSN %s)", row, s.txn.final))
		return nil
	}
	return err
}

// parkFor keeps a change for a table that is not followed yet.
func (s *session) parkFor(m *member, raw []byte) error {
	for {
		if m.changes == nil { // its load ended, or it was stopped, meanwhile
			var d wal.Decoder
			kind, err := d.Decode(raw)
			if err != nil {
				return err
			}
			if kind == wal.KindRelation {
				m.described(d.Relation, s.txn.xid)
				return nil
			}
			return s.changeOf(m, &d, kind, raw)
		}
		err := m.changes.Append(s.txn.final, s.txn.xid, raw)
		if err == nil {
			s.counters.SpilledBytes.Add(int64(len(raw)))
			return nil
		}
		if !errors.Is(err, spool.ErrBudget) {
			return fmt.Errorf("park change of %s: %w", m.ident, err)
		}
		if err := s.waitForRoom(m); err != nil {
			return err
		}
	}
}

// waitForRoom stops reading the stream until a load has ended and its parked
// changes are applied (PROTOCOL §25).
func (s *session) waitForRoom(m *member) error {
	if !s.loading && s.following == 0 && !s.polling && len(s.joining) == 0 {
		return fmt.Errorf("park change of %s: the spill budget of %d bytes is full and no load will free it", m.ident, s.spill.Max())
	}
	s.log.Warn("the spill budget is full: the stream waits for a load to end", "table", m.ident.String(), "bytes", s.spill.Max())
	if len(s.joining) == 0 {
		select {
		case r := <-s.loads:
			if err := s.loadDone(r); err != nil {
				return err
			}
		case r := <-s.polled: // whose end may begin a load
			if err := s.pollDone(r); err != nil {
				return err
			}
		case <-s.stop:
			return context.Canceled // what is open comes again
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	for more := true; more; {
		var err error
		if more, err = s.replaySome(); err != nil {
			return err
		}
	}
	return nil
}
