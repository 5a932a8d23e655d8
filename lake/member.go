package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"firn/wal"
	"firn/wal/spool"
)

// member is a table of the source and what becomes of it here.
type member struct {
	oid   uint32
	ident Ident
	// desc is the table as last seen in the catalog, by a snapshot that sees
	// descSees, or more.
	desc     *wal.Table
	descSees wal.Visible
	state    string
	reason   string
	// position is where the table stands while it is not streaming with the
	// others: its last published LSN, or its load's floor.
	position wal.LSN
	resync   bool
	metadata string     // URI at the head when the session began; empty: not in the lake
	store    TableStore // its files, once opened or made in this session
	layout   *Layout    // its last, while table is nil and store is not

	table  *Table // streaming, or joining
	unseen bool   // it has joined, and no epoch with it is published yet
	// changes are the stream's messages for a table that is being loaded or
	// caught up, in commit order.
	changes *spool.Spool
	replay  *spool.Reader
	joining bool        // the load is done; changes are being replayed
	decoder wal.Decoder // of the replay
	late    bool        // its index has much to read
	unfit   error       // why it was not opened: it is to be loaded anew
	loadOn  bool        // a load of it is under way

	rel      *wal.Relation // the newest the stream sent
	relKnown bool          // the table's layout fits rel
	relBy    uint32        // the transaction that brought it; 0: none did, or all see it

	loadedAt     int // looks that had begun when it was loaded: they may be older than its rows
	moved        *sighting
	reshaped     *sighting
	missedAt     wal.LSN // WAL end when a look no longer found it
	dropped      bool
	refused      bool      // it can't be partitioned as the user says, or its name is another's
	progress     *progress // of the load under way, or the last
	retryAt      time.Time // when a failed load may be tried again
	rewriteAt    time.Time // when a rewrite may be tried again after one failed
	rewriteFails int       // in a row
	plans        []RewritePlan
	plannedOf    int64         // the snapshot that plans is for; 0: none
	plannedAt    time.Time     //
	asked        []RewritePlan // rewrites that are to be done first
	askedErr     error         // why one of them was not
}

// enroll lists the source's tables beside those of the head.
func (s *session) enroll(look Look) {
	known := map[uint32]*HeadTable{}
	for i := range s.head.Tables {
		known[s.head.Tables[i].OID] = &s.head.Tables[i]
	}
	for i := range look.Tables {
		t := &look.Tables[i]
		s.admit(t, look.Visible, known[t.OID])
		delete(known, t.OID)
	}
	for oid, h := range known {
		if slices.ContainsFunc(look.Tables, func(t wal.Table) bool { return h.Ident == Ident{t.Schema, t.Name} }) {
			continue // its successor has its place
		}
		m := &member{oid: oid, ident: h.Ident, state: Skipped, position: h.LSN, metadata: h.Metadata,
			reason: "it is not among the tables to mirror any more, or has been dropped in Postgres", dropped: true}
		s.members[oid] = m
		s.leave(m, h)
	}
}

// admit makes a member of a table found in the catalog by a snapshot that sees
// visible; h is what the head says of it, nil if it is new.
func (s *session) admit(t *wal.Table, visible wal.Visible, h *HeadTable) *member {
	m := &member{oid: t.OID, ident: Ident{t.Schema, t.Name}, desc: t, descSees: visible, state: Loading}
	s.members[t.OID] = m
	switch {
	case h == nil:
	case h.State == Quarantined:
		m.state, m.reason = Quarantined, h.Reason
	case h.State == Loading, h.Resync, h.State == Skipped:
		m.resync = h.Metadata != ""
		if m.resync {
			m.state, m.reason = Behind, h.Reason
		}
	default:
		m.state = h.State
	}
	if h != nil {
		m.position, m.metadata = h.LSN, h.Metadata
		if h.State == Streaming {
			m.position = s.head.LSN
		}
		if h.Ident != m.ident {
			m.quarantine(fmt.Sprintf("the table was renamed from %s to %s", h.Ident, m.ident))
			m.ident = h.Ident
			s.leave(m, h) // so that it is loaded anew once it has its name again
		}
	} else if old := s.byIdent(m.ident); old != nil {
		// Dropped and created again under its name: the new table's rows
		// replace the old one's.
		m.metadata, m.resync = old.Metadata, true
	} else if slices.Contains(s.head.Foreign, m.ident) {
		m.refused = true
		m.state, m.reason = Skipped, "the lake has a table or view of that name, which firn did not make; rename or drop it there, or leave this one out by --tables, and start firn again"
		s.log.Error("table is skipped", "table", m.ident.String(), "cause", m.reason)
	}
	if !t.Usable && m.state != Quarantined {
		m.state, m.reason = Skipped, t.Reason
		if h != nil {
			s.leave(m, h)
		}
	}
	return m
}

// leave makes known that a table which the head calls followed is so no more.
func (s *session) leave(m *member, h *HeadTable) {
	if h.State == Streaming {
		m.position = s.head.LSN
	}
	if h.State == Streaming || h.State == Behind {
		s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Skipped, Reason: m.reason}
	}
}

func (s *session) byIdent(id Ident) *HeadTable {
	for i := range s.head.Tables {
		if s.head.Tables[i].Ident == id {
			return &s.head.Tables[i]
		}
	}
	return nil
}

func (m *member) quarantine(reason string) {
	m.state, m.reason = Quarantined, reason
}

// publication is what Publish is asked for.
type publication struct{ tables, appended []wal.TableName }

// published lists the tables that belong into the publication: all but those
// without a replica identity, which would make the user's own UPDATE fail,
// unless only their inserts are wanted.
func (s *session) published() (p publication) {
	for _, m := range s.sorted() {
		if m.state == Skipped || m.missedAt != 0 || m.desc == nil || !m.desc.Usable {
			continue
		}
		name := wal.TableName{Schema: m.desc.Schema, Name: m.desc.Name}
		if m.desc.Append {
			p.appended = append(p.appended, name)
		} else {
			p.tables = append(p.tables, name)
		}
	}
	return p
}

func (s *session) whyNone() string {
	why := ": no table matches"
	for _, m := range s.sorted() {
		if m.state == Skipped {
			why = fmt.Sprintf(": %s is skipped, for %s", m.ident, m.reason)
		}
	}
	return why
}

func (s *session) sorted() []*member {
	out := make([]*member, 0, len(s.members))
	for _, m := range s.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *member) int {
		if a.ident != b.ident {
			if a.ident.Namespace < b.ident.Namespace || a.ident.Namespace == b.ident.Namespace && a.ident.Name < b.ident.Name {
				return -1
			}
			return 1
		}
		return int(int64(a.oid) - int64(b.oid))
	})
	return out
}

// takes says whether the table takes a commit whose record starts at lsn.
func (m *member) takes(lsn wal.LSN) bool { return lsn >= m.position }

// bind fits the newest Relation to the table before its next row.
func (s *session) bind(ctx context.Context, m *member) error {
	if m.relKnown {
		return nil
	}
	if m.rel == nil {
		return fmt.Errorf("change of %s before its relation message", m.ident)
	}
	desc := m.desc
	if desc == nil || !m.descSees.Sees(m.relBy) || !sameShape(desc, m.rel) {
		var err error
		desc, err = s.o.Source.Describe(ctx, m.oid, m.relBy)
		if errors.Is(err, ErrHidden) {
			// Who made the commit may wait for us to have it, as for any
			// synchronous standby: it is not to be waited for.
			s.resync(m, "it may have been altered in a transaction that is not visible to others yet")
			return nil
		}
		if err != nil {
			return fmt.Errorf("describe %s: %w", m.ident, err)
		}
		if desc != nil {
			m.desc = desc
		}
	}
	ev, err := Evolve(m.table.layout, m.rel, desc)
	if err != nil {
		return err
	}
	if ev.Resync != "" {
		s.resync(m, ev.Resync)
		return nil
	}
	if ev.Layout != m.table.layout {
		if err := m.table.evolve(ctx, ev.Layout); err != nil {
			return err
		}
		s.log.Info("schema changed", "table", m.ident.String(), "lsn", s.txn.final.String(), "columns", len(ev.Layout.Columns))
	}
	m.table.wire(ev.Wire)
	m.relKnown = true
	return nil
}

// sameShape says whether the catalog's description and the stream's have the
// same columns, so that it needs no fresh look.
func sameShape(t *wal.Table, r *wal.Relation) bool {
	i := 0
	for _, c := range t.Columns {
		if !streamed(c) {
			continue
		}
		if i == len(r.Columns) || r.Columns[i].Name != c.Name || r.Columns[i].TypeOID != c.Type.OID {
			return false
		}
		i++
	}
	return i == len(r.Columns) && t.ReplicaIdentity == r.ReplicaIdentity
}

// resync gives up following a table row by row: what the open epoch did to it
// is dropped, it stays in the lake as last published, and a fresh load will
// replace it.
func (s *session) resync(m *member, why string) {
	s.giveUp(m, why)
	s.requestLoads()
}

func (s *session) giveUp(m *member, why string) {
	s.log.Warn("table has to be loaded anew", "table", m.ident.String(), "cause", why)
	s.abandon(m)
	m.state, m.reason, m.resync = Behind, why, true
	s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Behind, Reason: why, Resync: true}
	s.startSpool(m)
}

// quarantine stops a table, and only it, with its reason.
func (s *session) quarantine(m *member, reason string) {
	s.log.Error("table is quarantined", "table", m.ident.String(), "cause", reason)
	s.counters.Errors.Add(1)
	s.abandon(m)
	m.quarantine(reason)
	s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Quarantined, Reason: reason}
}

// abandon lets go of a table's open state; its part of a committing epoch, if
// any, still lands.
func (s *session) abandon(m *member) {
	s.dropSpool(m)
	m.joining = false
	if t := m.table; t != nil {
		if m.state == Streaming {
			m.position = s.sealedLSN
		}
		m.layout = t.layout
		t.abandon(s.log)
		m.table = nil
	}
}

// startSpool parks the table's changes from here on.
func (s *session) startSpool(m *member) {
	sp, err := spool.Create(s.spoolDir, fmt.Sprintf("table-%d-%d", m.oid, s.nextSpool()), s.spill)
	if err != nil {
		s.fail(fmt.Errorf("park changes of %s: %w", m.ident, err))
		return
	}
	m.changes = sp
}

// dropSpool lets go of the parked changes. Relations among those not replayed
// are kept: Postgres sends one only once.
func (s *session) dropSpool(m *member) {
	if m.changes == nil {
		return
	}
	s.keepRelation(m)
	if err := m.changes.Remove(); err != nil {
		s.log.Warn("remove parked changes", "table", m.ident.String(), "err", err)
	}
	m.changes, m.replay = nil, nil
}

func (s *session) keepRelation(m *member) {
	r := m.replay
	if r == nil {
		var err error
		if r, err = m.changes.Reader(); err != nil {
			s.fail(fmt.Errorf("read parked changes of %s: %w", m.ident, err))
			return
		}
	}
	for {
		_, xid, msg, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			s.fail(fmt.Errorf("read parked changes of %s: %w", m.ident, err))
			return
		}
		if wal.Kind(msg[0]) != wal.KindRelation {
			continue
		}
		if _, err := m.decoder.Decode(msg); err != nil {
			s.fail(fmt.Errorf("read parked changes of %s: %w", m.ident, err))
			return
		}
		m.described(m.decoder.Relation, xid)
	}
}
