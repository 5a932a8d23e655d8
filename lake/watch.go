package lake

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"firn/wal"
)

// What the stream does not tell is seen by looking at the catalogs now and
// then: new and dropped tables, rows rewritten in place, partitions that come
// and go, and a replica identity that is gone.

// pollDone takes one look at the catalogs.
func (s *session) pollDone(r pollResult) error {
	s.polling = false
	defer s.counters.Looks.Add(1)
	s.missed(r.members)
	if r.err != nil {
		s.log.Warn("look at the source's tables", "err", r.err)
		s.counters.Errors.Add(1)
		s.requestLoads()
		return nil
	}
	here := map[uint32]bool{}
	changed := false
	for i := range r.Tables {
		t := &r.Tables[i]
		here[t.OID] = true
		m := s.members[t.OID]
		if m == nil {
			s.welcome(t, r.Visible)
			continue
		}
		if s.look(m, t, &r) {
			changed = true
		}
	}
	for _, m := range s.sorted() {
		if !here[m.oid] && !m.dropped && s.over(m, r.End) {
			s.gone(m)
			changed = true
		}
	}
	s.settle()
	s.requestLoads()
	if changed {
		s.poll() // which adjusts the publication, if no load does
	}
	s.report()
	return nil
}

// missed gives up the tables that have left the publication, and are back now.
func (s *session) missed(members Memberships) {
	for _, m := range s.sorted() {
		l := m.layout
		if m.table != nil {
			l = m.table.layout
		}
		followed := m.state == Streaming || m.state == Behind && !m.resync || m.joining
		if followed && l != nil && members.missed(l) {
			s.giveUp(m, errMissed.Error())
		}
	}
}

var errMissed = errors.New("for a while it was not in the publication, and its changes are lost to the stream")

// missed says whether the table has been out of the publication since it was
// loaded, so that the stream lacks what was committed meanwhile. The stay that
// its rows are complete by stands with them, in the table's own properties: that
// it was put back is not told to whoever comes after a kill, nor when somebody
// else did it. One that is not in it now will be another time it is looked at,
// if it is still there.
func (m Memberships) missed(l *Layout) bool {
	is, ok := m[l.OID]
	return ok && is != l.Membership
}

// welcome takes in a table that is new in the source. Its load extends the
// publication.
func (s *session) welcome(t *wal.Table, visible wal.Visible) {
	for _, m := range s.members {
		if m.ident == (Ident{t.Schema, t.Name}) && !m.dropped {
			s.gone(m)
		}
	}
	old := s.retired(Ident{t.Schema, t.Name})
	m := s.admit(t, visible, nil)
	if old != nil {
		m.metadata, m.store, m.layout = old.metadata, old.store, old.layout
		m.resync = old.metadata != "" || old.store != nil
		delete(s.members, old.oid)
	}
	s.log.Info("new table", "table", m.ident.String(), "state", m.state, "cause", m.reason)
}

// retired finds a dropped table of that name whose files are in the lake.
func (s *session) retired(id Ident) *member {
	for _, m := range s.members {
		if m.ident == id && m.dropped {
			return m
		}
	}
	return nil
}

// over says whether all that came before a table was missed, at the latest at
// end, has been taken and published.
func (s *session) over(m *member, end wal.LSN) bool {
	if m.missedAt == 0 {
		m.missedAt = end
	}
	if m.state != Streaming {
		return true
	}
	return s.streamed() >= m.missedAt && m.table.epoch == nil
}

// gone notes that a table was dropped, or is none of those to mirror any more.
// What the lake has of it stays.
func (s *session) gone(m *member) {
	m.dropped = true
	if m.state == Quarantined {
		return
	}
	s.log.Warn("table was dropped in Postgres, or is not to be mirrored any more; the lake keeps what it has", "table", m.ident.String())
	s.abandon(m)
	m.state, m.reason = Skipped, "it is not among the tables to mirror any more, or has been dropped in Postgres"
	s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Skipped, Reason: m.reason}
}

// look compares what the catalog says of a table with what we follow. It
// returns true if the publication has to change.
func (s *session) look(m *member, t *wal.Table, r *pollResult) bool {
	was := m.desc
	m.desc, m.descSees, m.missedAt = t, r.Visible, 0
	if m.reshaped == nil && r.Visible.Sees(m.relBy) {
		m.relBy = 0 // before half of all numbers have gone by, and it looks like one to come
	}
	switch {
	case m.state == Skipped && t.Usable && !m.dropped && !m.refused:
		s.log.Info("table can be mirrored now", "table", m.ident.String())
		m.state, m.reason = Loading, ""
		if m.metadata != "" || m.store != nil {
			m.state, m.resync = Behind, true
		}
		return false
	case m.state == Quarantined, m.state == Skipped:
		if !t.Usable && was != nil && was.Usable {
			return true
		}
		return false
	case !t.Usable:
		// In the publication it would make the user's own UPDATE fail
		// (PROTOCOL §30).
		s.quarantine(m, t.Reason)
		return true
	case m.ident != Ident{t.Schema, t.Name}:
		s.quarantine(m, fmt.Sprintf("it was renamed to %s.%s in Postgres; a mirrored table keeps its name", t.Schema, t.Name))
		return true
	}
	if m.table == nil || m.state != Streaming {
		return false
	}
	if r.no <= m.loadedAt {
		return false
	}
	now := &sighting{table: t, visible: r.Visible, end: r.End}
	if s.lookAtFiles(m, was, now) {
		return true
	}
	if m.reshaped == nil && m.table != nil && !m.table.layout.describes(t) {
		m.reshaped = now
	}
	if (m.moved != nil || m.reshaped != nil) && !slices.Contains(s.unsettled, m) {
		s.unsettled = append(s.unsettled, m)
	}
	return false
}

// sighting is a table as a look saw it. What it shows that the stream does not
// is certain only once the stream has come to its end.
type sighting struct {
	table   *wal.Table
	visible wal.Visible
	end     wal.LSN
}

// settle acts on what looks have shown, as soon as the stream has come to it.
func (s *session) settle() {
	if len(s.unsettled) == 0 || s.txn.open {
		return
	}
	s.unsettled = slices.DeleteFunc(s.unsettled, func(m *member) bool {
		if m.table == nil || m.state != Streaming { // a load will see it all
			m.moved, m.reshaped = nil, nil
		}
		s.settleFiles(m)
		s.settleColumns(m)
		return m.moved == nil && m.reshaped == nil
	})
}

// settleColumns follows a change of the columns that no row change has come
// after: the stream describes a table only before its next row. Once all has
// been read that the look saw, the catalog's description is as good as the
// stream's, unless that has come from a transaction that the look did not see.
func (s *session) settleColumns(m *member) {
	p := m.reshaped
	if p == nil || !s.reached(p.end) {
		return
	}
	m.reshaped = nil
	if m.table == nil || m.table.layout.describes(p.table) || m.relBy != 0 && !p.visible.Sees(m.relBy) {
		return
	}
	if p.table.Partitioned && m.table.layout.swapped(p.table) {
		// The repeated descriptions of a partitioned table are not looked
		// into, so rows may have gone to the old column.
		s.resync(m, "a column was dropped and another of its name added")
		return
	}
	m.described(relationOf(p.table), m.relBy)
	if err := s.bind(s.ctx, m); err != nil {
		s.fail(err)
	}
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
}

// describes says whether the layout has just the catalog's columns.
func (l *Layout) describes(t *wal.Table) bool {
	i := 0
	for _, c := range t.Columns {
		if !streamed(c) {
			continue
		}
		if i == len(l.Columns) {
			return false
		}
		if k := l.Columns[i]; k.AttNum != c.AttNum || k.Name != c.Name || k.Type.OID != c.Type.OID || k.Type.Mod != c.Type.Mod {
			return false
		}
		i++
	}
	return i == len(l.Columns)
}

// swapped says whether a name stands for another attribute than it did.
func (l *Layout) swapped(t *wal.Table) bool {
	return slices.ContainsFunc(t.Columns, func(c wal.TableColumn) bool {
		was := l.named(c.Name)
		return streamed(c) && was != nil && was.AttNum != c.AttNum
	})
}

// relationOf is the Relation message that the stream would send of t now.
func relationOf(t *wal.Table) *wal.Relation {
	r := &wal.Relation{ID: t.OID, Namespace: t.Schema, Name: t.Name, ReplicaIdentity: t.ReplicaIdentity}
	for _, c := range t.Columns {
		if !streamed(c) {
			continue
		}
		mod := c.Type.Mod
		if c.Type.Kind == 'd' {
			mod = -1
		}
		r.Columns = append(r.Columns, wal.Column{Name: c.Name, TypeOID: c.Type.OID, TypeMod: mod})
	}
	return r
}

// lookAtFiles notices rows that were replaced without the stream's knowledge.
// A relfilenode that changed is a hint: TRUNCATE, which the stream shows,
// changes it too (PROTOCOL §27), and explains it if both are of one transaction.
// Until that is clear the table counts as behind. It returns true if the
// publication has to change.
func (s *session) lookAtFiles(m *member, was *wal.Table, now *sighting) bool {
	switch {
	case slices.Equal(fileNodes(now.table), m.table.layout.FileNodes):
		m.moved = nil
	case now.table.Partitioned && !sameLeaves(was, now.table):
		s.quarantine(m, "a partition was attached or detached, or a new one was made: the stream does not show that")
		return true
	case m.moved == nil:
		m.moved = now
	}
	return false
}

func (s *session) settleFiles(m *member) {
	p := m.moved
	switch {
	case p == nil:
		return
	case m.table.layout.explains(p.table):
		m.table.annotate(func(l *Layout) { l.FileNodes = fileNodes(p.table) })
	case !s.reached(p.end):
		return // a TRUNCATE that explains it may still come
	case p.table.Partitioned:
		s.quarantine(m, "a partition was truncated or its rows were rewritten: the stream does not show that")
		s.poll() // which takes it out of the publication
	default:
		s.resync(m, "its rows were rewritten in place (ALTER TABLE, VACUUM FULL or CLUSTER)")
	}
	m.moved = nil
}

// truncationsMax is how many transactions that truncated a table are kept in
// mind: those that a look may not have seen. One forgotten costs a needless load.
const truncationsMax = 16

// truncated notes that the stream showed the transaction to truncate the table.
func (l *Layout) truncated(by uint32) {
	known := l.TruncatedBy[max(0, len(l.TruncatedBy)-truncationsMax+1):]
	l.TruncatedBy = append(slices.Clone(known), by)
}

// explains says whether each file node of t that the layout does not know is by
// a transaction that the stream showed to have truncated the table.
func (l *Layout) explains(t *wal.Table) bool {
	strange := func(node, writer uint32) bool {
		return !slices.Contains(l.FileNodes, node) && !slices.Contains(l.TruncatedBy, writer)
	}
	if !t.Partitioned {
		return !strange(t.FileNode, t.Writer)
	}
	return len(t.Leaves) == len(l.FileNodes) &&
		!slices.ContainsFunc(t.Leaves, func(l wal.Leaf) bool { return strange(l.FileNode, l.Writer) })
}

// sameLeaves says whether two descriptions of a partitioned table, the first of
// which may be unknown, have the same partitions.
func sameLeaves(a, b *wal.Table) bool {
	oids := func(t *wal.Table) (out []uint32) {
		for _, l := range t.Leaves {
			out = append(out, l.OID)
		}
		slices.Sort(out)
		return out
	}
	return a == nil || slices.Equal(oids(a), oids(b))
}
