package lake

import (
	"fmt"
	"io"
	"time"

	"firn/wal"
)

// replaySome applies some of the changes that were parked for tables that are
// about to join; more says that there are others to apply at once.
func (s *session) replaySome() (more bool, err error) {
	until := time.Now().Add(20 * time.Millisecond)
	keep := s.joining[:0]
	for i, m := range s.joining {
		if more {
			keep = append(keep, s.joining[i:]...)
			break
		}
		if more, err = s.replay(m, until); err != nil {
			return false, err
		}
		switch {
		case more || !m.joining:
		case s.reached(m.position):
			s.join(m)
		case m.changes.Bytes() > 0: // what has been replayed needs no room any more
			s.dropSpool(m)
			s.startSpool(m)
			if m.replay, err = m.changes.Reader(); err != nil {
				return false, fmt.Errorf("replay changes of %s: %w", m.ident, err)
			}
		}
		if m.joining {
			keep = append(keep, m)
		}
	}
	s.joining = keep
	return more, nil
}

// reached says whether the stream has brought every commit whose record starts
// before lsn, and all that the epoch has. Only then may a table whose load read
// its rows at lsn join: it would be ahead of the epoch, and take those commits
// twice after a restart. One that is followed at a distance would be behind it:
// the stream begins at its position then, not at the lake's.
func (s *session) reached(lsn wal.LSN) bool {
	lsn = max(lsn, s.position)
	if s.txn.open {
		return s.txn.final >= lsn
	}
	return max(s.received, s.idle) >= lsn
}

// replay applies m's parked changes until there are no more for now, or the
// time is up: then more is true.
func (s *session) replay(m *member, until time.Time) (more bool, err error) {
	txn := s.txn
	defer func() { s.txn.final, s.txn.xid = txn.final, txn.xid }()
	for n := 0; m.joining; n++ {
		if n%256 == 255 && time.Now().After(until) {
			return true, nil
		}
		lsn, xid, msg, err := m.replay.Next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("replay changes of %s: %w", m.ident, err)
		}
		kind, err := m.decoder.Decode(msg)
		if err != nil {
			return false, fmt.Errorf("replay changes of %s: %w", m.ident, err)
		}
		if kind == wal.KindRelation {
			m.described(m.decoder.Relation, xid)
			continue
		}
		if !m.takes(lsn) {
			continue
		}
		s.txn.final, s.txn.xid = lsn, xid
		if err := s.apply(m, &m.decoder, kind); err != nil {
			return false, err
		}
	}
	return false, nil
}

// join makes a table one of those that move together.
func (s *session) join(m *member) {
	s.dropSpool(m)
	m.joining, m.resync, m.state, m.reason = false, false, Streaming, ""
	s.position = max(s.position, m.position) // nothing commits in between
	if m.table.epoch != nil {
		m.unseen = true
		m.table.fresh = &TableState{OID: m.oid, State: Streaming} // over what s.states has, unless it is left out
	} else {
		s.states[m.ident] = TableState{OID: m.oid, State: Streaming}
	}
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
	s.cutSoon = true
	s.log.Info("table streams", "table", m.ident.String(), "rows", m.table.live)
}
