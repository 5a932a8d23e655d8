package lake

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"firn/lake/column"
	"firn/wal"
)

// progress is how far a table's load is. The loader writes, anyone reads.
type progress struct {
	rows, bytes, total atomic.Int64
	began              time.Time
}

// loadOrder is one table to load: what the loader may know of the member.
type loadOrder struct {
	member   *member // handed back, not looked into
	oid      uint32
	ident    Ident
	metadata string     // of the table in the lake; empty: there is none
	store    TableStore // the same, already open
	layout   *Layout    // of store
	name     wal.TableName
	progress *progress
}

// loadResult is a table ready to join: its rows as of floor are in files and in
// the index, its later changes are parked.
type loadResult struct {
	member   *member
	table    *Table
	desc     *wal.Table // as its rows were loaded
	files    []*NewFile
	floor    wal.LSN
	replaces bool // the rows replace those the lake has
	caughtUp bool // nothing was loaded: the index followed files of others
	err      error
	end      bool // of all the loads under way
}

// requestLoads begins to load what needs it, unless a load is under way: then
// that one's end asks again.
func (s *session) requestLoads() {
	if s.loading || s.polling || s.stopping {
		return // the end of either asks again
	}
	var orders []loadOrder
	for _, m := range s.sorted() {
		if m.loadOn || m.joining || m.table != nil || m.desc == nil || time.Now().Before(m.retryAt) {
			continue
		}
		if m.state == Loading || m.state == Behind && m.resync {
			if m.changes == nil {
				s.startSpool(m)
			}
			m.loadOn = true
			m.progress = &progress{began: time.Now()}
			m.progress.total.Store(max(0, m.desc.Rows))
			orders = append(orders, loadOrder{member: m, oid: m.oid, ident: m.ident, metadata: m.metadata, store: m.store, layout: m.layout,
				name: wal.TableName{Schema: m.desc.Schema, Name: m.desc.Name}, progress: m.progress})
		}
	}
	if len(orders) == 0 {
		if s.initial != nil {
			s.initial.Close()
			s.initial = nil
		}
		return
	}
	s.loading = true
	snap, members := s.initial, s.listed
	s.initial = nil
	names := s.published()
	base := s.committedEpoch
	s.group.Go(func() error {
		err := s.load(s.ctx, snap, members, names, orders, base)
		s.sendLoad(s.ctx, loadResult{end: true, err: err})
		return nil
	})
}

func (s *session) sendLoad(ctx context.Context, r loadResult) {
	select {
	case s.loads <- r:
	case <-ctx.Done():
		if r.table != nil {
			r.table.close(s.log)
		}
	}
}

// load copies tables within one snapshot, one after the other, and sends each
// as it is done. It runs beside the owner. snap, if not nil, is that of the slot's
// creation, and members what the publication had before.
func (s *session) load(ctx context.Context, snap Snapshot, members Memberships, publish publication, orders []loadOrder, base uint64) error {
	if snap == nil {
		// The publication first: a commit from the new slot's point on must
		// be in the stream, for all of these tables.
		var err error
		if members, err = s.o.Source.Publish(ctx, publish.tables, publish.appended); err != nil {
			return fmt.Errorf("extend publication: %w", err)
		}
		names := make([]wal.TableName, len(orders))
		for i, o := range orders {
			names[i] = o.name
		}
		if snap, err = s.o.Source.Snapshot(ctx, false, names); err != nil {
			return fmt.Errorf("take a snapshot to load from: %w", err)
		}
	}
	defer snap.Close()
	for _, o := range orders {
		r := s.loadTable(ctx, snap, members[o.oid], o, base)
		r.member, r.floor = o.member, snap.Point()
		s.sendLoad(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (s *session) loadTable(ctx context.Context, snap Snapshot, membership uint32, o loadOrder, base uint64) (r loadResult) {
	t, err := snap.Describe(ctx, o.oid)
	if err != nil {
		r.err = fmt.Errorf("describe %s: %w", o.ident, err)
		return r
	}
	if t == nil || !t.Usable {
		r.err = errGone
		return r
	}
	defer snap.Done(t)
	if membership == 0 {
		r.err = fmt.Errorf("load %s: somebody has taken it out of the publication", o.ident)
		return r
	}
	store, layout, err := s.prepareLoad(ctx, o, t)
	if err != nil {
		r.err = fmt.Errorf("load %s: %w", o.ident, err)
		return r
	}
	layout.Membership = membership // it is nobody else's yet
	r.replaces = o.metadata != "" || o.store != nil
	table, err := s.newTable(o.ident, layout, store)
	if err != nil {
		r.err = err
		return r
	}
	if r.files, err = s.copyTable(ctx, snap, t, table, o.progress, base); err != nil {
		table.close(s.log)
		r.err = fmt.Errorf("load %s: %w", o.ident, err)
		return r
	}
	r.table, r.desc = table, t
	return r
}

// errGone: the table was dropped, or can't be mirrored any more.
var errGone = errors.New("the table is gone")

// prepareLoad opens the table's files or makes it, and lays it out.
func (s *session) prepareLoad(ctx context.Context, o loadOrder, t *wal.Table) (TableStore, *Layout, error) {
	if o.store != nil {
		layout, err := s.anew(o.ident, t, o.layout)
		return o.store, layout, err
	}
	if o.metadata == "" {
		layout, err := NewLayout(t, nil, 0)
		if err != nil {
			return nil, nil, err
		}
		if layout, err = layout.partitioned(s.partitionBy(o.ident)); err != nil {
			return nil, nil, &unpartitionable{err}
		}
		store, err := s.o.Tables.Create(ctx, o.ident, layout)
		return store, layout, err
	}
	store, err := s.o.Tables.Open(ctx, o.ident, o.metadata)
	if errors.Is(err, ErrUnreadable) {
		store, err = s.o.Tables.Base(ctx, o.ident, o.metadata)
	}
	if err != nil {
		return nil, nil, err
	}
	old, err := decodeLayout(store.Properties()[layoutProperty])
	if err != nil {
		return nil, nil, err
	}
	layout, err := s.anew(o.ident, t, old)
	return store, layout, err
}

// anew lays out a table for a load that replaces the rows it has.
func (s *session) anew(id Ident, t *wal.Table, old *Layout) (*Layout, error) {
	l, err := NewLayout(t, old, 0)
	if err != nil {
		return nil, err
	}
	if old == nil {
		old = &Layout{}
	}
	if !l.inherit(old) {
		l.PartitionBy = "" // what is missing may be there under another field
	}
	return s.repartition(id, l), nil
}

// unpartitionable is why a new table can't be partitioned as the user says.
type unpartitionable struct{ error }

func (e *unpartitionable) Unwrap() error { return e.error }

// loadDone takes a loader's result.
func (s *session) loadDone(r loadResult) error {
	if r.end {
		s.loading = false
		if r.err != nil && s.ctx.Err() == nil {
			s.log.Warn("load failed; trying again", "err", r.err)
			s.counters.Errors.Add(1)
			for _, m := range s.members {
				if m.loadOn {
					m.loadOn, m.retryAt = false, time.Now().Add(5*time.Second)
				}
			}
		}
		s.requestLoads()
		return nil
	}
	m := r.member
	if r.caughtUp {
		s.following--
	} else {
		m.loadOn = false
	}
	if r.err != nil {
		return s.loadFailed(m, r.err, r.caughtUp)
	}
	if m.state != Loading && m.state != Behind || r.caughtUp && m.resync { // another turn meanwhile
		r.table.close(s.log)
		return nil
	}
	s.o.Fail("before-load-join")
	m.table, m.store, m.position, m.joining, m.relKnown = r.table, r.table.store, r.floor, true, false
	m.loadedAt, m.moved, m.reshaped = s.looks, nil, nil
	if r.desc != nil {
		m.desc, m.descSees = r.desc, wal.Visible{} // of a time unknown
	}
	m.decoder = wal.Decoder{}
	if !r.caughtUp {
		e := m.table.touch()
		e.kind, e.layout, e.truncated, e.preloaded = "snapshot", true, r.replaces, r.files
	}
	var err error
	if m.replay, err = m.changes.Reader(); err != nil {
		return fmt.Errorf("replay changes of %s: %w", m.ident, err)
	}
	s.joining = append(s.joining, m)
	s.log.Info("table loaded", "table", m.ident.String(), "rows", m.table.live, "lsn", r.floor.String())
	return nil
}

func (s *session) loadFailed(m *member, err error, caughtUp bool) error {
	var row *RowError
	var not *unpartitionable
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case errors.Is(err, errGone):
		s.dropSpool(m)
		m.state, m.reason = Skipped, "it was dropped in Postgres, or lost its replica identity, before it was loaded"
		return nil
	case errors.As(err, &not):
		s.dropSpool(m)
		m.refused = true
		m.state, m.reason = Skipped, not.Error()+"; change partition_by in firn.yaml and start firn again"
		s.log.Error("table is skipped", "table", m.ident.String(), "cause", m.reason)
		return nil
	case errors.Is(err, ErrUnreadable) && caughtUp:
		if m.state == Behind && !m.resync {
			s.resync(m, err.Error())
		}
		return nil
	case errors.Is(err, ErrUnreadable):
		s.dropSpool(m)
		m.refused = true
		m.state, m.reason = Skipped, err.Error()+"; put back what is missing and start firn again"
		s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Skipped, Reason: m.reason}
		s.log.Error("table is skipped", "table", m.ident.String(), "cause", m.reason)
		return nil
	case errors.As(err, &row) && errors.Is(err, column.ErrUnrepresentable):
		s.quarantine(m, row.Error())
		return nil
	}
	s.log.Warn("load failed; trying again", "table", m.ident.String(), "err", err)
	s.counters.Errors.Add(1)
	m.retryAt = time.Now().Add(5 * time.Second)
	return nil
}
