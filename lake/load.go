package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"firn/lake/column"
	"firn/lake/index"
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
	if s.loading || s.stopping {
		return
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
	snap := s.initial
	s.initial = nil
	names := s.published()
	base := s.committedEpoch
	s.group.Go(func() error {
		err := s.load(s.ctx, snap, names, orders, base)
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
// as it is done. It runs beside the owner.
func (s *session) load(ctx context.Context, snap Snapshot, publish publication, orders []loadOrder, base uint64) error {
	if snap == nil {
		// The publication first: a commit from the new slot's point on must
		// be in the stream, for all of these tables.
		if err := s.o.Source.Publish(ctx, publish.tables, publish.appended); err != nil {
			return fmt.Errorf("extend publication: %w", err)
		}
		names := make([]wal.TableName, len(orders))
		for i, o := range orders {
			names[i] = o.name
		}
		var err error
		if snap, err = s.o.Source.Snapshot(ctx, false, names); err != nil {
			return fmt.Errorf("take a snapshot to load from: %w", err)
		}
	}
	defer snap.Close()
	for _, o := range orders {
		r := s.loadTable(ctx, snap, o, base)
		r.member, r.floor = o.member, snap.Point()
		s.sendLoad(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (s *session) loadTable(ctx context.Context, snap Snapshot, o loadOrder, base uint64) (r loadResult) {
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
	store, layout, err := s.prepareLoad(ctx, o, t)
	if err != nil {
		r.err = fmt.Errorf("load %s: %w", o.ident, err)
		return r
	}
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
	r.table = table
	return r
}

// errGone: the table was dropped, or can't be mirrored any more.
var errGone = errors.New("the table is gone")

// prepareLoad opens the table's files or makes it, and lays it out.
func (s *session) prepareLoad(ctx context.Context, o loadOrder, t *wal.Table) (TableStore, *Layout, error) {
	if o.store != nil {
		layout, err := NewLayout(t, o.layout, 0)
		return o.store, layout, err
	}
	if o.metadata == "" {
		layout, err := NewLayout(t, nil, 0)
		if err != nil {
			return nil, nil, err
		}
		store, err := s.o.Tables.Create(ctx, o.ident, layout)
		return store, layout, err
	}
	store, err := s.o.Tables.Open(ctx, o.ident, o.metadata)
	if err != nil {
		return nil, nil, err
	}
	old, err := decodeLayout(store.Properties()[layoutProperty])
	if err != nil {
		return nil, nil, err
	}
	layout, err := NewLayout(t, old, 0)
	return store, layout, err
}

// copyTable copies the table's parts side by side into files of the new
// layout, and their keys into the index.
func (s *session) copyTable(ctx context.Context, snap Snapshot, t *wal.Table, table *Table, p *progress, base uint64) ([]*NewFile, error) {
	if table.index != nil {
		if err := table.index.Reset(); err != nil {
			return nil, err
		}
	}
	text := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		if col := table.layout.attr(c.AttNum); col != nil {
			text[i] = !col.codec.Binary()
		}
	}
	var mu sync.Mutex // of the index, table.files and added
	var added []*dataFile
	copyAll := func(put func(index.Key, index.Loc) error) error {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(s.o.LoadWorkers)
		for _, part := range snap.Parts(t) {
			g.Go(func() error {
				c := &copier{session: s, table: table, progress: p, mu: &mu, added: &added, put: put, key: newRowKey(table.layout)}
				return c.run(gctx, snap, t, part, text)
			})
		}
		return g.Wait()
	}
	var err error
	if table.index != nil {
		err = table.index.Load(copyAll)
	} else {
		err = copyAll(func(index.Key, index.Loc) error { return nil })
	}
	if err != nil {
		return nil, err
	}
	s.o.Fail("in-load")
	var files []*NewFile
	for _, f := range added {
		n, err := f.enc.wait(ctx)
		if err != nil {
			return nil, err
		}
		if n != nil {
			files = append(files, n)
			table.live += n.Rows
		}
		f.enc = nil
	}
	if table.index != nil {
		if err := table.index.CommitLoad(base, 0, table.fileNames()); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// copier takes one part's rows.
type copier struct {
	session  *session
	table    *Table
	progress *progress
	key      *rowKey
	put      func(index.Key, index.Loc) error // under mu

	mu    *sync.Mutex
	added *[]*dataFile

	rows *rowBuilder
	open batch
	keys []index.Key
	file *dataFile
}

func (c *copier) run(ctx context.Context, snap Snapshot, t *wal.Table, part Part, text []bool) error {
	var err error
	if c.rows, err = newRowBuilder(c.session.room.mem, c.table.layout); err != nil {
		return err
	}
	defer c.rows.arrow.Release()
	defer func() {
		if c.file != nil {
			c.file.enc.finish()
		}
	}()
	if err := snap.Copy(ctx, t, part, text, func(row [][]byte) error { return c.take(ctx, row) }); err != nil {
		return err
	}
	return c.flush(ctx)
}

func (c *copier) take(ctx context.Context, row [][]byte) error {
	cols := c.table.layout.Columns
	if len(row) != len(cols) {
		return fmt.Errorf("COPY gave %d columns, the table has %d", len(row), len(cols))
	}
	size := 0
	for i, v := range row {
		if v == nil {
			c.rows.cells[i].Null()
		} else if err := c.rows.cells[i].Binary(v); err != nil {
			return &RowError{Table: c.table.Ident, Op: "COPY", Key: c.show(row), Err: fmt.Errorf("column %s: %w", cols[i].Name, err)}
		}
		size += len(v) + 8
	}
	if c.key != nil {
		c.key.begin()
		for i, k := range c.key.cols {
			if err := c.key.binary(i, row[k]); err != nil {
				return &RowError{Table: c.table.Ident, Op: "COPY", Key: c.show(row), Err: err}
			}
		}
		c.keys = append(c.keys, c.key.sum())
	}
	c.open.rows++
	c.open.bytes += size
	if c.open.rows >= batchRowsMax || c.open.bytes >= batchBytesMax {
		return c.flush(ctx)
	}
	return nil
}

// show prints the key of a COPY row: those parts that come as text.
func (c *copier) show(row [][]byte) string {
	s := ""
	for _, k := range c.table.layout.key {
		s += fmt.Sprintf("%s=%q ", c.table.layout.Columns[k].Name, row[k])
	}
	return s
}

// flush hands the rows to the file's encoder and their keys to the index.
func (c *copier) flush(ctx context.Context) error {
	if c.open.rows == 0 {
		return nil
	}
	if c.file != nil && c.file.enc.out.Bytes() >= fileBytesMax {
		c.file.enc.finish()
		c.file = nil
	}
	if c.file == nil {
		enc, err := newEncoder(c.table.store, c.table.layout, c.session.room)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.file = &dataFile{no: c.table.nextFile(), path: enc.out.Path(), enc: enc}
		c.table.files[c.file.no] = c.file
		*c.added = append(*c.added, c.file)
		c.mu.Unlock()
		c.table.spawn(enc.run)
	}
	b := c.open
	start := c.file.rows
	c.file.rows += b.flushed(c.file, start)
	if len(c.keys) > 0 {
		c.mu.Lock()
		for i, k := range c.keys {
			if err := c.put(k, index.Loc{File: c.file.no, Pos: start + uint32(i)}); err != nil {
				c.mu.Unlock()
				return fmt.Errorf("index row %d: %w", i, err)
			}
		}
		c.mu.Unlock()
	}
	c.progress.rows.Add(int64(b.rows))
	c.progress.bytes.Add(int64(b.bytes))
	c.session.counters.RowsLoaded.Add(int64(b.rows))
	c.session.counters.BytesLoaded.Add(int64(b.bytes))
	c.open, c.keys = batch{}, c.keys[:0]
	return c.file.enc.send(ctx, c.rows.take(), &b)
}

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
	m.loadOn = false
	if r.err != nil {
		return s.loadFailed(m, r.err)
	}
	if m.state != Loading && m.state != Behind { // quarantined or dropped meanwhile
		r.table.close(s.log)
		return nil
	}
	s.o.Fail("before-load-join")
	m.table, m.store, m.position, m.joining, m.relKnown = r.table, r.table.store, r.floor, true, false
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

func (s *session) loadFailed(m *member, err error) error {
	var row *RowError
	switch {
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case errors.Is(err, errGone):
		s.dropSpool(m)
		m.state, m.reason = Skipped, "it was dropped in Postgres, or lost its replica identity, before it was loaded"
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
// before lsn. Only then may a table whose load read its rows at lsn join: it
// would be ahead of the epoch, and take those commits twice after a restart.
func (s *session) reached(lsn wal.LSN) bool {
	if s.txn.open {
		return s.txn.final >= lsn
	}
	return max(s.position, s.idle) >= lsn
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
			m.described(m.decoder.Relation)
			continue
		}
		if !m.takes(lsn) {
			continue
		}
		s.txn.final, s.txn.xid = lsn, xid
		if err := s.apply(m, &m.decoder, kind, msg); err != nil {
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
		m.table.fresh = &TableState{OID: m.oid, State: Streaming}
		delete(s.states, m.ident)
	} else {
		s.states[m.ident] = TableState{OID: m.oid, State: Streaming}
	}
	if s.dirtyAt.IsZero() {
		s.dirtyAt = time.Now()
	}
	s.cutSoon = true
	s.log.Info("table streams", "table", m.ident.String(), "rows", m.table.live)
}
